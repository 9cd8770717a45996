-- Which hosts have most rows, and what became of them?
SELECT lower(regexp_extract(url, '^[^:]+://(?:[^/@]*@)?([^/:?#]+)', 1)) AS host, count(*) AS rows,
       count(*) FILTER (fate = 'curated') AS curated, count(*) FILTER (fate = 'failed') AS failed
FROM samples WHERE url IS NOT NULL GROUP BY ALL ORDER BY rows DESC, host LIMIT $most
