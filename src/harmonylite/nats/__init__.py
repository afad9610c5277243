"""Core NATS: one connection, kept alive; who we are there; questions between nodes."""
