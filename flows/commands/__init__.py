"""The verbs of `pairmill`, grouped by what they are for. Importing them costs nothing but click."""
