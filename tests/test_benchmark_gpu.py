"""``benchmarks/gpu.sh`` in its tiny form for a CPU: every part works, and a failing part costs only itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers import PATIENCE, environment

ROOT = Path(__file__).parent.parent


def gpu_script(out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    env = environment({"PYTHON": sys.executable})
    words = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(out), "--device", "cpu", *flags]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=3 * PATIENCE)


def test_every_part_works_on_a_cpu(tmp_path: Path) -> None:
    done = gpu_script(tmp_path)
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert done.returncode == 0, (done.stderr, results)
    parts = {name: part["result"] for name, part in results["parts"].items()}
    assert list(parts) == ["tests", "speed", "cache", "host"]
    assert "passed" in parts["tests"]["summary"]
    measured = [(row["implementation"], row["dtype"]) for row in parts["speed"]["rows"] if "tokens_per_s" in row]
    assert {("hiersae", "float32"), ("hiersae", "bfloat16")} <= set(measured)
    assert parts["cache"]["cache_tokens_per_second"] > 0 and parts["host"]["seconds"] > 0
    assert done.stdout.startswith((tmp_path / "gpu.md").read_text().splitlines()[0])
    assert sorted(os.listdir(tmp_path)) == ["gpu.json", "gpu.md"]


def test_a_part_that_fails_says_so(tmp_path: Path) -> None:
    done = gpu_script(tmp_path, "--only", "cache", "--model", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "no such" in json.loads((tmp_path / "gpu.json").read_text())["parts"]["cache"]["failed"]
