"""How sites are treated: limits per domain, and what they say about robots and reserved rights."""
