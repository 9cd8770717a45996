-- How many tokens did a model read and write for the answers that rows have?
SELECT count({read}) AS rows, coalesce(sum({read}), 0) AS read, coalesce(sum({written}), 0) AS written FROM samples
