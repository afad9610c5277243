"""The mirror's file: its tables, positions, conflict journal and schema history; how it is compared and swapped."""
