"""Failback of a region: what was ordered in failover streams goes back to the primary region."""
