"""The production checklist: the state of a deployment, what we recommend, and why.

Invariant: it changes nothing and starts nothing; a fact that can't be determined is "unknown", never guessed.
"""

from harmonylite.doctor.collect import collect
from harmonylite.doctor.rows import Row, check

__all__ = ["Row", "check", "collect"]
