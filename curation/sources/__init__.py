"""The kinds of source: one file per kind, and `open.py` that tells them apart."""
