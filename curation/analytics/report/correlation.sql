-- The signals of the rows with the lowest keys: keys are digests, so these are rows by chance, the same every time.
SELECT key{columns} FROM samples ORDER BY key LIMIT $rows
