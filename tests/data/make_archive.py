"""Writes ``acts-v1.h5``, the cache that later releases must still read, and ``acts-v2.h5``, with a truth.

Run once a schema version, never again: what exists is left alone.

python -m tests.data.make_archive
"""

from pathlib import Path

from hiersae_cli.config import SynthConfig
from hiersae_cli.workflows import synth
from tests.caches import content, write

ARCHIVE = Path(__file__).with_name("acts-v1.h5")
TRUTH_ARCHIVE = Path(__file__).with_name("acts-v2.h5")

if __name__ == "__main__":
    if not TRUTH_ARCHIVE.exists():
        synth.run(SynthConfig(preset="toy", rows=200, held_out=100, out=str(TRUTH_ARCHIVE), device="cpu"))
    if not ARCHIVE.exists():
        write(ARCHIVE, content(60, "bfloat16", seed=1), "bfloat16")
