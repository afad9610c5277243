"""SQLite: the database and its mirror. Everything here is synchronous and runs on the one thread that owns the files."""
