"""The deterministic simulation: many nodes on real SQLite files, streams in memory, everything else out of one seed."""
