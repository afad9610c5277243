"""Pure rules about tables: their shape, which of them are replicated, and what of a foreign shape can be applied."""
