-- Which rows ended elsewhere? By fate and step in both versions, with the first keys as examples.
SELECT one.fate AS fate_a, one.fate_step AS step_a, two.fate AS fate_b, two.fate_step AS step_b,
       count(*) AS rows, list_sort(min(coalesce(one.key, two.key), $examples)) AS examples
FROM (SELECT key, fate, fate_step FROM a.samples) AS one
FULL JOIN (SELECT key, fate, fate_step FROM b.samples) AS two USING (key)
WHERE (one.fate, one.fate_step) IS DISTINCT FROM (two.fate, two.fate_step)
GROUP BY ALL
ORDER BY rows DESC, fate_a, step_a, fate_b, step_b
