"""Pure rules of change sets: which shard a row belongs to, when change sets are whole, which batch may be applied."""
