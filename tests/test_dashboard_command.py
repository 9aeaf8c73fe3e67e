"""``hiersae dashboard`` from end to end: a real index behind the folder of pages and behind the server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

from hiersae_cli.config import DashboardConfig
from tests.helpers import command, environment, hiersae


def flags(config: DashboardConfig) -> list[str]:
    made_of = ["--acts", config.acts[0], "--baseline", config.baseline, "--model", config.model]
    return [config.run, *made_of, "--device", "cpu"]


def test_a_folder_of_pages_is_written(tiny_dashboard: DashboardConfig, tmp_path: Path):
    done = hiersae("dashboard", *flags(tiny_dashboard), "-o", tmp_path / "pages", "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["pages"] == str(tmp_path / "pages" / "index.html") and Path(summary["pages"]).exists()
    written = sum(file.stat().st_size for file in (tmp_path / "pages").rglob("*") if file.is_file())
    assert summary["bytes"] == written
    again = hiersae("dashboard", *flags(tiny_dashboard), "-o", tmp_path / "pages")
    assert again.returncode == 1 and "--overwrite" in again.stderr
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("keep me")
    refused = hiersae("dashboard", *flags(tiny_dashboard), "-o", other, "--overwrite")
    assert refused.returncode == 1 and "thesis.tex" in refused.stderr and (other / "thesis.tex").exists()


def test_pages_are_served_until_interrupted(tiny_dashboard: DashboardConfig):
    process = subprocess.Popen(
        command("dashboard", *flags(tiny_dashboard), "--serve", "--port", 0),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
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
            with urllib.request.urlopen(found[1] + page, timeout=60) as response:
                assert response.status == 200 and b"</html>" in response.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0 and "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
