-- How many pictures of each size are there? In steps of half an octave.
SELECT floor(2 * log2({width}))::INTEGER AS width_step, floor(2 * log2({height}))::INTEGER AS height_step,
       count(*) AS rows, count(*) FILTER (fate = 'curated') AS curated
FROM samples WHERE {width} > 0 AND {height} > 0 GROUP BY ALL ORDER BY ALL
