"""HarmonyLite: multi-writer replication for ordinary SQLite files over NATS JetStream.

The command `harmonylite` is the interface; all modules are internal and may move in any release.
"""

__version__ = "0.1.0"
