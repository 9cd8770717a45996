"""Texts as sets of words: pairs by Jaccard."""
