"""``python -m harmonylite``: the same as the command ``harmonylite``."""

from harmonylite.cli import main

main()
