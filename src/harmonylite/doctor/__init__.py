"""The production checklist: what a deployment is, what is recommended, and why.

Invariant: nothing is changed and nothing is started; what can't be found out is said to be unknown, never guessed.
"""

from harmonylite.doctor.collect import collect
from harmonylite.doctor.rows import Row, check

__all__ = ["Row", "check", "collect"]
