"""Who may take part, and what a site lets a run do."""
