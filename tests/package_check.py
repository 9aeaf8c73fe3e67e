"""What ``make package`` runs with an installed wheel, in a folder with nothing of the repository:

    python package_check.py WHEEL SDIST

checks that the wheel and the source distribution hold the same package, and that the installed commands work.
"""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import hiersae
import hiersae_cli

CHAIN = """
synth toy --rows 4k --held-out 1k -o acts.h5
train acts.h5 --widths 4,16 --k 1,1 --tokens 4k --batch 128 --device cpu -o run
eval run --acts acts.h5 --no-controls --resamples 100 --device cpu --html report.html -o report.json
export-tree run --acts acts.h5 --device cpu -o tree.json
info tree.json
"""


def main(wheel: str, sdist: str) -> None:
    """Check the two files, and run a small chain with what is installed."""
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        message = email.message_from_bytes(archive.read(metadata))
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    missing = sorted(in_wheel - in_sdist)
    assert not missing, f"the source distribution lacks {missing}"
    assert "hiersae_cli/pages/assets/page.js" in in_wheel and "hiersae.py" in in_wheel
    assert message["Version"] == hiersae.__version__ and message.get_all("Provides-Extra")
    assert "site-packages" in str(hiersae_cli.__file__), "the repository is imported, not what is installed"
    hiersae_command = Path(sys.executable).with_name("hiersae")
    for line in CHAIN.strip().splitlines():
        print("$ hiersae", line, flush=True)
        subprocess.run([hiersae_command, *line.split(), "-q"], check=True)
    assert hiersae.load_tree("tree.json").roots() and hiersae.load_report("report.json").groups


if __name__ == "__main__":
    main(*sys.argv[1:])
