"""What an auditor runs: promises of privacy put to the test, through encryption."""
