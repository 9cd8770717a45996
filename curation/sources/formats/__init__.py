"""The formats of source tables."""
