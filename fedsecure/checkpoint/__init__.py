"""Sealed, signed checkpoints on W of N stores."""
