"""SQLite: the database and its mirror. Everything is synchronous and runs on the one thread that owns the files."""
