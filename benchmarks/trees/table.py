"""One table, and frontiers, of the reports of ``hiersae eval``, ``hiersae sweep`` or ``runs/compare.sh``.

    python -m benchmarks.trees.table REPORT.json… [--plot FILE.svg] [--metrics NAME,NAME…]

Prints a Markdown table with a row for each architecture of each report: the mean over its seeds, with half of the
interval if the report has one. ``--plot`` draws FVU against L0 and against the bits per token under the tree.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hiersae_cli.render.comparison import COLUMNS, frontiers, rows_of, table


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(
        prog="python -m benchmarks.trees.table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument("reports", nargs="+", type=Path)
    flags.add_argument("--metrics", default=",".join(COLUMNS), help="columns, by the metric's name in the report")
    flags.add_argument("--plot", type=Path, help="file for the frontiers (SVG)")
    return flags


if __name__ == "__main__":
    options = parser().parse_args()
    measured = [row for path in options.reports for row in rows_of(json.loads(path.read_text(encoding="utf-8")))]
    print(table(measured, {name: COLUMNS.get(name, name) for name in options.metrics.split(",")}))
    if options.plot:
        options.plot.write_text(frontiers(measured), encoding="utf-8")
