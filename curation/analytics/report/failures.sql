-- Of which class were the failures of each step? The class stands before the colon of a reason.
SELECT fate_step AS step, split_part(fate_reason, ':', 1) AS class, count(*) AS rows
FROM samples WHERE fate = 'failed' GROUP BY ALL ORDER BY step, rows DESC, class LIMIT 100
