-- What became of the addresses that were asked for, by class? Seconds are added as decimals: floats would not add up alike.
SELECT status, count(*) AS urls, count(*) FILTER (attempts > 1) AS repeated, count(*) FILTER (attempts = 0) AS not_asked,
       sum(fetched_bytes)::BIGINT AS bytes, sum(seconds::DECIMAL(18, 3))::DOUBLE AS seconds
FROM downloads GROUP BY ALL ORDER BY urls DESC, status
