-- Which rows would end elsewhere? By where they ended and where they would, with the first keys as examples.
-- `line` is a step's place among those of both specifications: a step that only moved is the same step.
SELECT one.fate AS fate_a, one.fate_step AS step_a, two.fate AS fate_b, two.step AS step_b,
       count(*) AS rows, list_sort(min(key, $examples)) AS examples, one.line IS DISTINCT FROM two.line AS moved
FROM (SELECT key, fate, fate_step, line FROM samples LEFT JOIN before_lines ON step = fate_step) AS one
FULL JOIN (SELECT key, fate, step, line FROM now JOIN now_lines USING (code)) AS two USING (key)
GROUP BY ALL
ORDER BY rows DESC, fate_a, step_a, fate_b, step_b
