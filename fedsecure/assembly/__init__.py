"""Where kits and configurations become working objects."""
