-- How do rows fare at every filter, each taken for itself? true, false, NULL where that is not known; so many of each.
SELECT {outcomes}, count(*) AS rows FROM {placed} WHERE fate <> 'failed' GROUP BY ALL ORDER BY ALL
