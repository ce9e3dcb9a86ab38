"""Checks before a start and on request; each says what to do."""
