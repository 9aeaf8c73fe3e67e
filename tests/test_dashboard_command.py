"""``hiersae dashboard`` from end to end: a real index behind the folder of pages and behind the server."""

from __future__ import annotations

import json
import re
import shutil
import signal
import struct
import subprocess
import urllib.request
from pathlib import Path

import pytest

from docs import pictures
from hiersae_cli.config.dashboard import DashboardConfig
from tests.helpers import PATIENCE, command, environment, hiersae
from tests.test_docs import DOCUMENTED


def flags(config: DashboardConfig) -> list[str]:
    made_of = ["--acts", config.acts[0], "--baseline", config.baseline, "--model", config.model]
    return [config.run, *made_of, "--device", "cpu"]


def test_a_folder_of_pages_is_written_and_pictures_of_it_for_the_docs(tiny_dashboard: DashboardConfig, tmp_path: Path):
    done = hiersae("dashboard", *flags(tiny_dashboard), "-o", tmp_path / "pages", "--json", timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["pages"] == str(tmp_path / "pages" / "index.html") and Path(summary["pages"]).exists()
    written = sum(file.stat().st_size for file in (tmp_path / "pages").rglob("*") if file.is_file())
    assert summary["bytes"] == written
    if pictures.CHROMIUM:
        pytest.importorskip("playwright")
        made = pictures.make(tmp_path / "pages", tmp_path)
        assert {picture.name for picture in made} <= {path.name for path in pictures.IMAGES.iterdir()}
        for picture in made:
            width, height = struct.unpack(">II", picture.read_bytes()[16:24])  # of a PNG
            assert width == pictures.WIDTH and height > 500
    again = hiersae("dashboard", *flags(tiny_dashboard), "-o", tmp_path / "pages")
    assert again.returncode == 1 and "--overwrite" in again.stderr
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("keep me")
    refused = hiersae("dashboard", *flags(tiny_dashboard), "-o", other, "--overwrite")
    assert refused.returncode == 1 and "thesis.tex" in refused.stderr and (other / "thesis.tex").exists()


def documented(page: str, *words: str) -> list[str]:
    """The arguments of the first ``hiersae`` command of a page that has all of these words."""
    return next(found for where, found in DOCUMENTED if where == page and set(words) <= set(found))


def test_what_the_demo_makes_is_served_and_studied_by_the_documented_commands(
    tiny_hier: Path, tiny_flat: Path, tiny_acts: Path, tiny_host: Path, tmp_path: Path
):
    demo = tmp_path / "1"  # which stands for $out
    shutil.copytree(tiny_hier, demo / "runs" / "hier")
    for name, path in (("runs/flat", tiny_flat), ("acts.h5", tiny_acts), ("host", tiny_host)):
        (demo / name).symlink_to(path)
    report = ["eval", "runs/hier", "--acts", "acts.h5", "--no-controls", "--resamples", 100, "-o", "report.json"]
    assert hiersae(*report, cwd=demo, fresh=True).returncode == 0
    build = documented("demo.sh", "dashboard", "-o")
    build[build.index("--tokens") + 1] = "15k"  # not all rows, as in the demo
    made = hiersae(*build, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    study = documented("study.md", "study", "new")
    made = hiersae(*study, cwd=demo, fresh=True)
    assert made.returncode == 0 and re.search(r"study: \d+ matched sets of each task, as no more", made.stderr)
    serve = documented("dashboard.md", "dashboard", "--serve")
    assert serve == documented("demo.sh", "dashboard", "--serve")
    process = subprocess.Popen(
        command(*serve, "--port", 0), cwd=demo, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:
            said += line
            if "serving at" in line:
                break
        found = re.search(r"serving at (http://127\.0\.0\.1:\d+/)", said)
        assert found, said
        # The last two have ids as older releases wrote them.
        for page in ("", "feature/a0", "baseline/3", "feature/1.3", "compare/0.0"):
            with urllib.request.urlopen(found[1] + page, timeout=PATIENCE) as response:
                assert response.status == 200 and b"</html>" in response.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 0 and "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
