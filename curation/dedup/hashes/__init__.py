"""Codes of 64 and 256 bits: pairs by Hamming distance, and what chance brings."""
