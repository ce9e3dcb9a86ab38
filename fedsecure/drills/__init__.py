"""Faults on purpose: small federations are broken, and what is promised is checked."""
