"""The documentation against the code: examples run, commands parse, links lead somewhere, tables are complete."""

from __future__ import annotations

import configparser
import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hiersae_cli.api import encode, evaluate, export_tree
from hiersae_cli.cli.app import commands as all_commands
from hiersae_cli.cli.flags import build
from hiersae_cli.cli.verbs import VERBS
from hiersae_cli.config.base import Config
from hiersae_cli.config.train import ARCHITECTURES, TrainConfig
from hiersae_cli.formats import codes, datasets, experiment_run, index, index_layout, labels, report, run, study, tree
from hiersae_cli.formats.activations import layout as activations
from hiersae_cli.formats.activations.layout import ROW_COLUMNS, STATISTICS
from hiersae_cli.formats.report import MORE_IS_BETTER
from hiersae_cli.sae import build as build_model
from hiersae_cli.study import from_file as study_items
from hiersae_cli.study import report as study_report
from hiersae_cli.workflows import lm
from tests.helpers import PATIENCE, environment

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
SCRIPTS = sorted((ROOT / "runs").glob("*.sh"))
CONFIGS: dict[str, type[Config]] = {verb.name: verb.config for verb in VERBS}
COMMANDS: dict[str, Any] = all_commands()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(path), re.MULTILINE | re.DOTALL)


def shell_texts() -> Iterator[tuple[str, str]]:
    """Every shell text of pages and scripts, with where it stands; the reference's synopses are no commands."""
    for page in PAGES:
        if page.name != "commands.md":
            for block in blocks(page, "sh"):
                yield page.name, block
    for script in SCRIPTS:
        yield script.name, text_of(script)


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every ``hiersae`` command in a shell text; variables stand for 1."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        lexer = shlex.shlex(re.sub(r"\$\w+", "1", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer) if re.search(r"\bhiersae ", line) and not line.lstrip().startswith("#") else []
        if "hiersae" in words:
            found = words[words.index("hiersae") + 1 :]
            ends = [place for place, word in enumerate(found) if set(word) <= set("();<>|&")]
            yield found[: ends[0]] if ends else found


def split(words: list[str]) -> tuple[str, list[str]]:
    """The command, of a group with its part, and its arguments."""
    length = 1 if words[0] in COMMANDS else 2
    return " ".join(words[:length]), words[length:]


DOCUMENTED = [(where, words) for where, text in shell_texts() for words in commands(text)]


def test_the_chain_is_documented() -> None:
    in_the_readme = [words[0] for name, words in DOCUMENTED if name == "README.md"]
    assert in_the_readme == ["cache", "train", "train", "eval", "dashboard"]
    for where in ("quickstart.md", "pipeline.md", "demo.sh", "tinyshakespeare.sh"):
        found = {words[0] for name, words in DOCUMENTED if name == where}
        assert {"lm", "cache", "train", "eval", "export-tree", "info"} <= found, where
    assert {split(words)[0] for _, words in DOCUMENTED} == set(COMMANDS)


@pytest.mark.parametrize("model", ["GPT-2 small", "Pythia-410m", "Gemma-2-2b"])
def test_the_chain_is_documented_for_known_models(model: str) -> None:
    section = text_of(DOCS / "your-model.md").split(f"\n## {model}\n")[1].split("\n## ")[0]
    verbs = [words[0] for words in commands(section)]
    on_a_gpu, on_a_cpu = verbs[:6], verbs[6:]
    assert on_a_gpu == ["cache", "train", "train", "eval", "export-tree", "dashboard"]
    assert on_a_cpu == ["cache", "train", "train"]


# What files of the documented chain record, for ``--config``.
RECORDED: dict[str, dict[str, Any]] = {
    "train": {"acts": ["acts.h5"], "widths": "64,960", "k": "8,8"},
    "cache": {"texts": ["input.txt"], "model": "host"},
    "eval": {"runs": ["runs/hier"], "acts": ["acts.h5"]},
}


@pytest.mark.parametrize(("where", "words"), DOCUMENTED, ids=[f"{w}: {' '.join(a)}"[:60] for w, a in DOCUMENTED])
def test_documented_commands_are_valid(where: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    verb, args = split(words)
    monkeypatch.setattr("hiersae_cli.formats.recorded_config.recorded_flags", lambda *_: RECORDED[verb])
    values = dict(COMMANDS[verb].make_context(verb, args).params)
    for shared in ("json", "quiet"):
        values.pop(shared)
    build(CONFIGS[verb], values)


def test_the_script_is_the_chain_of_the_pipeline() -> None:
    def chain(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("hiersae ")]

    pipeline = next(block for block in blocks(DOCS / "pipeline.md", "sh") if "hiersae lm" in block)
    script = text_of(ROOT / "runs" / "tinyshakespeare.sh").replace('"$text"', "input.txt")
    assert chain(script) == chain(pipeline)


def test_the_quick_start_has_the_commands_of_the_readme() -> None:
    readme = [" ".join(words) for name, words in DOCUMENTED if name == "README.md"]
    quick_start = [" ".join(words) for name, words in DOCUMENTED if name == "quickstart.md"]
    assert [line for line in quick_start if line in readme] == readme


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    assert text_of(script).startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text_of(script)
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True, timeout=PATIENCE)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:hiersae_cli|tests|docs|runs)/[a-z_/.]*(?:/|\.py|\.md|\.sh))`", text_of(page))
    examples = {"runs/hier/", "runs/flat/", "runs/theirs/"}
    for path in set(named) - examples:
        assert (ROOT / path).exists(), path


def test_the_index_lists_every_page() -> None:
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in text_of(DOCS / "index.md")


def test_the_python_examples_run(tiny_acts: Path, tiny_hier: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "hier").symlink_to(tiny_hier)
    (tmp_path / "acts.h5").symlink_to(tiny_acts)
    export_tree(tiny_hier, acts=tiny_acts, out=tmp_path / "tree.json")
    encode(tiny_hier, tiny_acts, out=tmp_path / "codes.h5").close()
    evaluate(tiny_hier, acts=tiny_acts, controls=False, resamples=100, out=tmp_path / "report.json")
    example = "\n".join(blocks(DOCS / "python-api.md", "python"))
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment({"PYTHONPATH": str(ROOT)}),
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "latents a token" in done.stdout
    assert "EncodedText(28 tokens" in done.stdout and "Run(small: hier, 16 + 112 latents" in done.stdout


def test_every_metric_is_specified() -> None:
    page = text_of(DOCS / "file-formats.md")
    for metric in MORE_IS_BETTER:
        assert f"`{metric}`" in page, metric


def test_every_tensor_is_specified() -> None:
    page = text_of(DOCS / "file-formats.md")
    for arch in ARCHITECTURES:
        assert f"`{arch}`" in page
        sizes: dict[str, Any] = {"widths": (2, 4), "k": (1, 1)} if arch == "hier" else {"widths": (4,), "k": (1,)}
        if arch == "matryoshka":
            sizes = {"widths": (2, 4), "k": (1,)}
        for name in build_model(TrainConfig(acts=[], arch=arch, **sizes), 3).state_dict():
            assert name.startswith("counts.") or f"`{name}`" in page, f"{arch}: {name}"


def test_a_cache_is_as_specified(tiny_acts: Path) -> None:
    page = text_of(DOCS / "file-formats.md")
    specified = set(re.findall(r"^\| `([a-z_]+(?:/[A-Za-z_]+)*)` \| [^|]+ \| \(?[Nsd]?[^|]* \|", page, re.MULTILINE))
    with h5py.File(tiny_acts, "r") as file:
        modules = list(file["activations"])
        found: dict[str, h5py.Dataset] = {}
        file.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
        generic = {re.sub("|".join(map(re.escape, modules)), "MODULE", name) for name in found}
        assert generic <= specified, generic - specified
        contiguous = [*ROW_COLUMNS, "rows_committed", "fingerprint"]
        for module in modules:
            contiguous += [f"activations/{module}", f"norms/{module}"]
            contiguous += [f"statistics/{module}/{name}" for name in ("mean", *STATISTICS)]
        for name in contiguous:
            assert found[name].id.get_offset() is not None, name

        # The fingerprint, by the specification alone.
        digest = hashlib.sha256()
        for column, kind in (("tokens", "<i4"), ("document", "<i4"), ("position", "<i4"), ("split", "u1")):
            digest.update(file[column][...].astype(kind).tobytes())
        for module in sorted(modules):
            data = file[f"activations/{module}"]
            digest.update(module.encode())
            digest.update(np.ascontiguousarray(data[...]).tobytes())
        assert file["fingerprint"][()].decode() == digest.hexdigest()


def _datasets_of(section: str) -> dict[str, tuple[str, str]]:
    """Type and shape of the datasets in a section's tables; the type is empty if the table does not say it."""
    datasets: dict[str, tuple[str, str]] = {}
    for name_cell, type_cell, shape_cell in re.findall(r"^\| (`[^|]+) \| ([^|]*) \| ([^|]*) \|", section, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", name_cell)
        types = re.findall(r"\b(?:bool|u?int\d+|float\d+|string|64 bytes)\b", type_cell) or [""]
        shapes = re.findall(r"\([^)]*\)|scalar", shape_cell)
        for place, name in enumerate(names if shapes else ()):
            datasets[name] = (types[place % len(types)], shapes[place % len(shapes)])
    return datasets


def test_the_documented_datasets_are_those_that_readers_check() -> None:
    page = text_of(DOCS / "file-formats.md")
    sections = dict(re.findall(r"^## (\w+ ?\w*)[^\n]*\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    checked = {
        "Activation cache": activations.DATASETS,
        "Codes": codes.DATASETS,
        "Index": index_layout.DATASETS | index_layout.TABLES["run"] | index_layout.TABLES["baseline"],
    }
    for title, table in checked.items():
        documented = _datasets_of(sections[title])
        for name, stored in table.items():
            kind, shape = documented.pop(name)
            if kind:
                assert kind == stored.types, name
            inner = ", ".join(map(str, stored.shape)) + "," * (len(stored.shape) == 1)
            assert shape == (f"({inner})" if stored.shape else "scalar"), name
        assert not documented, title


def test_the_documented_versions_are_those_of_the_code() -> None:
    modules = [
        activations,
        lm,
        run,
        report,
        codes,
        tree,
        labels,
        index,
        study_report,
        study_items,
        datasets,
        experiment_run,
    ]
    versions = {module.SCHEMA: str(module.SCHEMA_VERSION) for module in modules}
    versions |= {schema: str(version) for schema, version in study.VERSIONS.items()}
    versions[activations.SCHEMA] += f"; {activations.TRUTH_VERSION}"
    rows = re.findall(r"^\| (`hiersae\.[^|]+`) \| (\d(?:; \d)?)", text_of(DOCS / "file-formats.md"), re.MULTILINE)
    documented = {schema.strip("`"): version for schemas, version in rows for schema in schemas.split(", ")}
    assert documented == versions


def test_symbols_that_contributing_names_are_where_it_says() -> None:
    """In a step of a recipe, every symbol is defined in the files that the step names; a type may be anywhere."""
    steps = re.findall(r"^\d\. (.*?)(?=^\d\. |^$)", text_of(DOCS / "contributing.md"), re.MULTILINE | re.DOTALL)
    everywhere = "".join(text_of(file) for file in (ROOT / "hiersae_cli").rglob("*.py"))
    checked = set()
    for step in steps:
        named = re.findall(r"`([^`\s(]+)(?:\([^`]*\))?`", step)
        places = [ROOT / name for name in named if name.startswith("hiersae_cli/") and "VERB" not in name]
        files = [file for place in places for file in (place.glob("*.py") if place.is_dir() else [place])]
        sources = "".join(map(text_of, files))
        for symbol in filter(str.isidentifier, named if files else ()):
            source = everywhere if symbol[0].isupper() and not symbol.isupper() else sources
            defined = rf"^\s*(?:(?:def|class) {symbol}\b|[^=\n]*\b{symbol}\b.*=)"
            assert re.search(defined, source, re.MULTILINE), f"{symbol}: {step}"
            checked.add(symbol)
    assert {"METRICS", "ARCHITECTURES", "WRITERS", "SparseAutoencoder"} <= checked


def test_extras_are_installed_from_the_clone() -> None:
    """No registry has our name: what would install from one fails, or installs something else."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    sources = [text_of(path) for path in (*PAGES, *(ROOT / "hiersae_cli").rglob("*.py")) if path.name != "CHANGELOG.md"]
    assert not any("hiersae[" in text for text in sources)
    extras = {
        extra
        for text in sources
        for extra in re.findall(r"(?:-e '\.|\.whl)\[([\w-]+)\]'|install_hint\(['\"]([\w-]+)", text)
    }
    assert {name for pair in extras for name in pair if name} <= set(setup["options.extras_require"])
    assert len(extras) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_is_at_most_120_columns_wide(page: Path) -> None:
    """Tables, pictures and blocks of code may be wider."""
    prose = re.sub(r"^\s*```.*?^\s*```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    wide = [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "!["))]
    assert not wide


# Phrases that a reader stumbles over, and what to write instead.
STUMBLES = {
    "anew": "again",
    "are of": "come from",
    "are told by": "are recognised by",
    "as ever": "as usual",
    "at the least": "at least",
    "beside": "next to",
    "dear": "expensive",
    "dearer": "more expensive",
    "for want of": "if there is no",
    "go on with": "resume",
    "goes on with": "resumes",
    "gone on with": "resumed",
    "hangs below": "is below",
    "in its stead": "instead",
    "is told by": "is recognised by",
    "learnt": "learned",
    "not to be compared": "cannot be compared",
    "so many-th": "N-th",
    "that there are stay": "existing ones stay",
    "thereof": "of it",
    "those that there are": "existing ones",
    "to be had": "available",
    "told apart": "distinguished",
    "unless said": "unless the table says otherwise",
    "what is summed": "the sums",
    "where none is": "if there is none",
    "where there are": "if there are",
    "where there is": "if there is",
    "whereof": "of which",
}


def prose_of(path: Path) -> str:
    """The text of a file in one line, without the marks of comments, so that a phrase may run over two lines."""
    return re.sub(r"\s+", " ", re.sub(r"\n\s*#:?", "\n", text_of(path)))


@pytest.mark.parametrize("phrase", STUMBLES)
def test_phrases_that_were_cleaned_out_stay_out(phrase: str) -> None:
    """In the README, the pages, and comments, docstrings and messages of the code. The changelog keeps its history."""
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    files = [*pages, *sorted((ROOT / "hiersae_cli").rglob("*.py"))]
    pattern = re.compile(rf"\b{re.escape(phrase)}\b", re.IGNORECASE)
    places = [str(path.relative_to(ROOT)) for path in files if pattern.search(prose_of(path))]
    assert not places, f"write {STUMBLES[phrase]!r} instead of {phrase!r}"
