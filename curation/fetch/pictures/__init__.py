"""From fetched bytes to stored ones: decoding, scaling, encoding, without metadata."""
