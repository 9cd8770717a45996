-- How many groups of each size are there at a step, the chosen row counted?
SELECT rows + 1 AS size, count(*) AS groups
FROM (SELECT count(*) AS rows FROM samples WHERE fate_step = $step AND duplicate_of IS NOT NULL GROUP BY duplicate_of)
GROUP BY ALL ORDER BY size LIMIT $most
