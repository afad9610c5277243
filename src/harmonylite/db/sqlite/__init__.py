"""What knows SQLite and nothing of replication: connection, thread, introspection, lossless values, files."""
