-- Which value had the last row that passed a `top`? None where it ranked what is no number.
SELECT {least}(TRY(({expression})::DOUBLE)) AS value FROM {placed} WHERE __place__ > $place
