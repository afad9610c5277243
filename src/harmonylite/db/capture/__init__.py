"""From the database to the stream: read the pending rows as one change set."""
