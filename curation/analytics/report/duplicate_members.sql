-- Which rows do these stand for? The first by key.
SELECT duplicate_of AS chosen, list_sort(min(key, $most)) AS members FROM samples
WHERE fate_step = $step AND list_contains($chosen, duplicate_of) GROUP BY ALL ORDER BY chosen
