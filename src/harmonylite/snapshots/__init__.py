"""Snapshots: exact copies of a mirror, with positions and schema inside, kept where every node can fetch them."""
