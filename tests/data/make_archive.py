"""Writes ``acts-v1.h5``, the cache that later releases must still read. Run once a schema version, never again:

python -m tests.data.make_archive
"""

from pathlib import Path

from tests.caches import content, write

ARCHIVE = Path(__file__).with_name("acts-v1.h5")

if __name__ == "__main__":
    write(ARCHIVE, content(60, "bfloat16", seed=1), "bfloat16")
