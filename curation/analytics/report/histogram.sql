-- How many rows of each fate are in each bin of a signal? The first and the last bin hold what lies beyond them.
SELECT fate, greatest(0, least($bins - 1, floor((scaled - $start) / $width)))::INTEGER AS bin, count(*) AS rows
FROM (SELECT fate, CASE WHEN $is_log THEN ln(greatest(value, $floor)) ELSE value END AS scaled
      FROM (SELECT fate, TRY(({expression})::DOUBLE) AS value FROM samples) WHERE isfinite(value))
GROUP BY ALL ORDER BY ALL
