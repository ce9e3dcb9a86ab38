"""The offline certificate authority and the start-up kits."""
