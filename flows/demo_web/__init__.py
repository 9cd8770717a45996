"""A small generated web with planted truth: what `pairmill demo` serves, curates and is judged by."""
