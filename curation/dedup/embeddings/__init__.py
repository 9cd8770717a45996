"""Vectors of float16: cells of a k-means, and pairs by cosine."""
