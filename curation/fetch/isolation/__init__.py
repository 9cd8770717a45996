"""Decoding in a child process that a hostile picture may kill."""
