"""What is seen of a running federation."""
