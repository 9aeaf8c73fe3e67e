"""``python -m tests.mutations --count 5000`` damages more files than the tests do."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.mutations import KINDS, drill


def main() -> None:
    """Damage every kind of file, and end with an error if something other than our errors came of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=1000, help="ways of damage for each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, help="one kind of file")
    options = parser.parse_args()
    problems = []
    for name, kind in KINDS.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                of_kind = drill(kind, Path(folder), options.count, options.seed)
            print(f"{name}: {len(of_kind)} problems")
            problems += [f"{name}: {problem}" for problem in of_kind]
    raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
