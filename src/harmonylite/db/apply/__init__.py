"""From the stream to the database: fold change sets into the mirror, merge them into the database."""
