-- Which rows stand for most others at a step?
SELECT duplicate_of AS chosen, count(*) AS rows FROM samples
WHERE fate_step = $step AND duplicate_of IS NOT NULL GROUP BY ALL ORDER BY rows DESC, chosen LIMIT $most
