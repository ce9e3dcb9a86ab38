"""The one folder that meets Flower."""
