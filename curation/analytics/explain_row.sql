-- Which keys begin so? Samples are sorted by key, so that only the row groups in reach are read.
SELECT * FROM samples WHERE key >= $first AND key < $end ORDER BY key LIMIT 10
