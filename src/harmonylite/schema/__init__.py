"""Pure rules about tables: their shape, which of them are replicated, and which foreign changes can be applied."""
