"""Fetching over HTTP: transfers, their order, and the walls around them."""
