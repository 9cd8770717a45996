-- How many keys do two versions have in common, and apart: in the pools, and among the curated?
SELECT count(*) FILTER (one.key IS NOT NULL AND two.key IS NOT NULL) AS pool_both,
       count(*) FILTER (two.key IS NULL) AS pool_only_a,
       count(*) FILTER (one.key IS NULL) AS pool_only_b,
       count(*) FILTER (one.fate = 'curated' AND two.fate = 'curated') AS curated_both,
       count(*) FILTER (one.fate = 'curated' AND two.fate IS DISTINCT FROM 'curated') AS curated_only_a,
       count(*) FILTER (two.fate = 'curated' AND one.fate IS DISTINCT FROM 'curated') AS curated_only_b
FROM (SELECT key, fate FROM a.samples) AS one
FULL JOIN (SELECT key, fate FROM b.samples) AS two USING (key)
