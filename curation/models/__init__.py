"""Models that operators run: which there are, how they are loaded, how rows become passes."""
