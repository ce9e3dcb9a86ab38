"""Groups of commands: what an operator, a steward or an auditor types."""
