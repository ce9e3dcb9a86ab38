"""The long-running processes of aggregators and sites."""
