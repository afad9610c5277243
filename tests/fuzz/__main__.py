"""Fuzz every decoder of foreign bytes, and what its values are used for, with atheris.

Invariant: whatever the bytes are, the only errors are ForeignError and WireError. The first other one ends the run with
exit code 77 and a file that has the input; ``python -m tests.fuzz FILE`` runs that one again.
"""

from __future__ import annotations

import importlib
import sys
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from typing import Any

CORPUS = Path(".venv/fuzz-corpus")
"""Inputs that reached new code, kept between runs."""
LONGEST = 4096
"""Bytes of an input."""


def main() -> None:
    """Fuzz for as many minutes as are asked for, or run the inputs that are named."""
    parser = ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("inputs", nargs="*", type=Path)
    given = parser.parse_args()
    if given.inputs:
        from tests.fuzz.targets import one_input, targets

        for file in given.inputs:
            one_input(targets(), file.read_bytes())
        return
    # x86_64 Linux only: `make fuzz` puts it into a folder of its own. It has to see the modules come.
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["harmonylite", "msgspec"]):
        from tests.fuzz.targets import one_input, seed, targets

        found = targets()
    seed(CORPUS)
    limits = [f"-max_total_time={int(given.minutes * 60)}", f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], str(CORPUS), *limits], partial(one_input, found))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
