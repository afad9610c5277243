"""Loops that carry change sets between the database and the streams."""
