-- Which hosts have most rows, and what became of them? What stands before the path is counted first, then tidied.
SELECT lower(regexp_extract(authority, '^(?:.*@)?([^:]*)', 1)) AS host, sum(rows)::BIGINT AS rows,
       sum(curated)::BIGINT AS curated, sum(failed)::BIGINT AS failed
FROM (SELECT split_part(split_part(split_part(url, '://', 2), '/', 1), '?', 1) AS authority, count(*) AS rows,
             count(*) FILTER (fate = 'curated') AS curated, count(*) FILTER (fate = 'failed') AS failed
      FROM samples WHERE url <> '' GROUP BY ALL)
GROUP BY ALL ORDER BY rows DESC, host LIMIT $most
