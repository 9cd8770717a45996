-- How was an address fetched? One line per fetch; the captions of one address share it.
SELECT * FROM downloads WHERE url = $url ORDER BY ALL
