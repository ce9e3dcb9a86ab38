"""Data sets, tables, models and local training; sites only."""
