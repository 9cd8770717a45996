-- Which value had the last row that passed a `top`?
SELECT {least}(({expression})::DOUBLE) AS value FROM {placed} WHERE __place__ > $place
