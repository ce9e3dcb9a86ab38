"""The socket for ways to run a federation."""
