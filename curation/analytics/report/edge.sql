-- Which rows of one side of a threshold are nearest to it?
SELECT key, value FROM (SELECT key, TRY(({expression})::DOUBLE) AS value FROM {placed} WHERE {side})
WHERE isfinite(value) ORDER BY abs(value - $limit), key LIMIT $most
