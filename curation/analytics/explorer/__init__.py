"""A page on this machine to look at a finished version, filter it, and move thresholds; `serving.serve` starts it."""
