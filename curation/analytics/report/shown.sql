-- What is said of rows that are shown? Samples are sorted by key, so that only the row groups in reach are read.
SELECT key, {caption} AS caption, fate, fate_step FROM samples WHERE key IN ({keys})
