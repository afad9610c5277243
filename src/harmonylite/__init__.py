"""HarmonyLite: multi-writer replication for ordinary SQLite files over NATS JetStream."""

__version__ = "0.1.0"
