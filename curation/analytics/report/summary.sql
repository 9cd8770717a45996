-- How large are the values of a signal? Exact quantiles: estimates would differ from run to run.
SELECT count(value) AS known, count(*) - count(value) AS missing, min(value) AS least, max(value) AS greatest,
       quantile_disc(value, [0.005, 0.25, 0.5, 0.75, 0.995]) AS quantiles
FROM (SELECT CASE WHEN isfinite(given) THEN given END AS value
      FROM (SELECT TRY(({expression})::DOUBLE) AS given FROM samples))
