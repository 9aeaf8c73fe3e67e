"""``hiersae push`` and ``hf://`` names, against a stand-in for the hub's HTTP interface (``fake_hub``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hiersae_cli.api import evaluate, export_tree
from hiersae_cli.config.encode import EncodeConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.push import PushConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats import hub as hub_names
from hiersae_cli.formats.run import load_run
from hiersae_cli.render.model_card import card
from hiersae_cli.workflows.push import push
from tests.fake_hub import FakeHub, fake_hub
from tests.helpers import Said, hiersae

REPOSITORY = "someone/tiny-tree"


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with fake_hub() as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def files(tiny_hier: Path, tiny_acts: Path, tiny_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report and a tree of ``tiny_hier``."""
    folder = tmp_path_factory.mktemp("files")
    evaluate(tiny_hier, acts=tiny_acts, controls=False, resamples=100, out=folder / "report.json")
    export_tree(tiny_hier, acts=tiny_acts, model=tiny_host, out=folder / "tree.json")
    return folder


def test_a_run_goes_to_the_hub_and_is_used_from_there(
    hub: FakeHub, files: Path, tiny_hier: Path, tiny_acts: Path, tmp_path: Path
) -> None:
    env = hub.environment(tmp_path / "home")
    flags = ("--report", files / "report.json", "--tree", files / "tree.json", "--license", "mit")
    done = hiersae("push", tiny_hier, REPOSITORY, *flags, "--json", env=env)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    names = ["README.md", "config.json", "metrics.jsonl", "model.safetensors", "report.json", "tree.json"]
    assert result["address"] == f"{hub.address}/{REPOSITORY}" and result["files"] == names
    assert hub.commits[REPOSITORY] == ["Add hier"] and sorted(hub.files[REPOSITORY]) == names
    assert hub.files[REPOSITORY]["model.safetensors"] == (tiny_hier / "model.safetensors").read_bytes()

    hub.files["datasets/someone/acts"] = {"tiny/acts.h5": tiny_acts.read_bytes()}
    run, acts = f"hf://{REPOSITORY}", "hf://datasets/someone/acts/tiny/acts.h5"
    used = hiersae(
        "eval", run, "--acts", acts, "--no-controls", "--resamples", 100, "-o", tmp_path / "report.json", env=env
    )
    assert used.returncode == 0, used.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["config"]["runs"] == [run] and report["config"]["acts"] == [acts], "files record the names"
    assert list(report["runs"]) == ["tiny-tree"]
    assert report["runs"]["tiny-tree"] == json.loads((files / "report.json").read_text())["runs"]["hier"]

    offline = hiersae("info", run, env={**env, "HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 0 and "hier, 16 + 112 latents" in offline.stdout, offline.stderr
    missing = hiersae("info", "hf://someone/else", env=env)
    assert missing.returncode == 2 and "the hub has no such repository" in missing.stderr
    nowhere = hiersae("info", "hf://someone/else", env={**env, "HF_HUB_OFFLINE": "1"})
    assert nowhere.returncode == 1 and "no earlier download is on this machine" in nowhere.stderr
    refused = hiersae("push", tiny_hier, REPOSITORY, env={**env, "HF_TOKEN": "hf_wrong"})
    assert refused.returncode == 1 and "the hub refuses: Invalid credentials" in refused.stderr


def test_the_card_has_figures_families_and_the_licence(files: Path, tiny_hier: Path, tmp_path: Path) -> None:
    console, out = Said(), tmp_path / "out"
    config = PushConfig(
        run=str(tiny_hier),
        repository=REPOSITORY,
        report=str(files / "report.json"),
        tree=str(files / "tree.json"),
        out=str(out),
    )
    push(config, console)
    text = (out / "README.md").read_text()
    assert "the licence of the host is not known" in console.text and "nothing was pushed" in console.text
    assert text.startswith("---\nlibrary_name: hiersae\ntags:\n") and "license:" not in text.partition("\n---")[0]
    figures = json.loads((files / "report.json").read_text())["runs"]["hier"]
    assert f"{figures['fvu']['value']:.4g}" in text and "| latents | 16 + 112 |" in text
    assert f'load_run("hf://{REPOSITORY}")' in text and "look it up before you use this" in text
    assert load_run(out).sha256 == load_run(tiny_hier).sha256
    with pytest.raises(FileError, match="already exists"):
        push(config, console)


def test_the_card_of_a_host_of_the_hub_names_it_and_its_licence(tiny_hier: Path) -> None:
    header = json.loads((tiny_hier / "config.json").read_text())
    header["host"] |= {"name": "openai-community/gpt2", "fingerprint": "0" * 40}
    text = card("run", REPOSITORY, header, {"fvu": 0.25, "l0": [4, 4]}, {}, ["a1 word: b2 more"], "mit", "mit")
    assert 'license: "mit"\nbase_model: "openai-community/gpt2"' in text and "| fvu | 0.25 |" in text
    assert "has the licence `mit`" in text and "```text\na1 word: b2 more\n```" in text


def test_a_report_or_tree_of_another_run_is_refused(files: Path, tiny_flat: Path, tmp_path: Path) -> None:
    for field, file, problem in (("report", "report.json", "does not measure"), ("tree", "tree.json", "another run")):
        config = PushConfig(
            run=str(tiny_flat), repository=REPOSITORY, out=str(tmp_path / "out"), **{field: str(files / file)}
        )
        with pytest.raises(UsageError, match=problem):
            push(config)
    with pytest.raises(UsageError, match="OWNER/NAME"):
        PushConfig(run="run", repository="tiny-tree")


def test_names_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def download(repository: str, **options: object) -> str:
        asked.append((repository, options["repo_type"], options["revision"], options["allow_patterns"]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    (tmp_path / "acts.h5").touch()
    for name in ("hf://a/b", "hf://models/a/b@v1", "hf://datasets/a/b/acts.h5"):
        hub_names.local_path(name)
    assert asked == [
        ("a/b", "model", None, None),
        ("a/b", "model", "v1", None),
        ("a/b", "dataset", None, ["acts.h5", "acts.h5/*"]),
    ]
    for wrong, problem in (("hf://a", "not a name on the hub"), ("hf://a/b/none", "has no none")):
        with pytest.raises(UsageError, match=problem):
            hub_names.local_path(wrong)
    config = EvalConfig(runs=["hf://a/b", "here"], acts=["acts.h5"], model="hf://a/c")
    assert config.names_hub()
    local = hub_names.with_local_paths(config)
    assert local.runs == [str(tmp_path), "here"] and local.model == "a/c"
    assert local.recorded()["runs"] == ["hf://a/b", "here"]
    with pytest.raises(UsageError, match="cannot be written to directly"):
        hub_names.with_local_paths(EncodeConfig(run="run", acts=["acts.h5"], out="hf://a/b"))
