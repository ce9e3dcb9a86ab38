"""A run's privacy certificate: what was promised, in writing, signed."""
