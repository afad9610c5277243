"""Pure rules of change sets: which shard a row belongs to, when change sets are whole, and what cut may be applied."""
