"""What near duplicates are by: bits of a hash, the cosine of embeddings, the words of texts."""
