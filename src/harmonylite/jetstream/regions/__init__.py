"""Streams of several regions: mirror streams, promotion, failover streams. A first reading can leave this out."""
