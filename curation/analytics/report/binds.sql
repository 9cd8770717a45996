-- Can an expression be asked of the samples? Embeddings are not among their columns.
SELECT ({expression}) AS value FROM samples LIMIT 0
