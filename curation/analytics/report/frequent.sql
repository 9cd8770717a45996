-- Which values of a column are most frequent, and how many rows with them were curated?
SELECT left({column}::VARCHAR, 100) AS value, count(*) AS rows, count(*) FILTER (fate = 'curated') AS curated FROM samples
WHERE {column} IS NOT NULL GROUP BY ALL ORDER BY rows DESC, value LIMIT $most
