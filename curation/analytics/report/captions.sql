-- Which captions are most repeated? By their digests first: the texts themselves would not fit into memory.
WITH repeated AS (SELECT hash(caption) AS hashed, count(*) AS rows FROM samples
                  WHERE caption <> '' GROUP BY ALL HAVING count(*) > 1 ORDER BY rows DESC, hashed LIMIT $most)
SELECT {caption} AS caption, count(*) AS rows, count(*) FILTER (fate = 'curated') AS curated
FROM samples WHERE hash(caption) IN (SELECT hashed FROM repeated) GROUP BY samples.caption ORDER BY rows DESC, samples.caption LIMIT $most
