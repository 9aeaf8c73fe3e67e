"""A tiny chain of every verb that writes files, from a text to a study."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.drill.outcomes import run
from tests.fixtures_chain import sentences
from tests.helpers import hiersae, start
from tests.test_experiment import PLAN

PATIENCE = 600.0  # seconds that an undisturbed command may take

_CPU = "--device cpu"
_LM = f"lm BASE/text.txt --layers 2 --width 32 --heads 2 --context 32 --batch 4 --eval-tokens 256 {_CPU} -o host"
_CACHE = f"cache BASE/text.txt --model BASE/host --tokens 4k --document-tokens 256 --held-out 0.2 {_CPU} -o acts.h5"
_TRAIN = f"train BASE/acts.h5 --module transformer.h.1 --batch 128 --log-every 5 {_CPU} -o run"
_HIER = f"{_TRAIN} --widths 8,56 --k 2,4 --tokens 4k"
_INPUTS = "--acts BASE/acts.h5 --model BASE/host"
_EVAL = f"eval BASE/hier --baseline BASE/flat {_INPUTS} --loss-tokens 512 --resamples 100 --no-controls"
_STUDY = f"{_INPUTS} --baseline BASE/flat --most-marks 0.99 --tasks child,edge,label --sets 1 {_CPU} -o study"
_PAGES = f"dashboard run {_INPUTS} --baseline BASE/flat {_CPU}"
RESUME_TRAIN = f"{_HIER} --checkpoint-seconds 0"
RESUME_LM = f"{_LM} --steps 8 --eval-every 2"


@dataclass(frozen=True)
class Verb:
    """A command as it is tried.

    Attributes:
        name: what the tables call it.
        line: its words; BASE is the folder of the inputs.
        copies: files or folders of the base that it changes, by the name that they get in its folder.
        random: names of files whose content is drawn anew each time.
    """

    name: str
    line: str
    copies: Mapping[str, str] = field(default_factory=dict)
    random: frozenset[str] = frozenset()

    def prepare(self, base: Path, folder: Path) -> None:
        """Make ``folder`` with what the command needs there."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in self.copies.items():
            if (base / source).is_dir():
                shutil.copytree(base / source, folder / name)
            else:
                shutil.copy(base / source, folder / name)

    def args(self, base: Path) -> tuple[str, ...]:
        """The arguments of ``hiersae``."""
        return tuple(word.replace("BASE", str(base)) for word in self.line.split())


_RUN = {"run": "hier"}
_INDEXED = {"run": "indexed"}
VERBS = (
    Verb("lm", f"{_LM} --steps 16 --eval-every 4"),
    Verb("lm --overwrite", f"{_LM} --steps 12 --eval-every 4 --seed 1 --overwrite", {"host": "host"}),
    Verb("cache", f"{_CACHE} --layer 0,1"),
    Verb("cache --compression", f"{_CACHE} --layer 1 --compression gzip"),
    Verb("cache --overwrite", f"{_CACHE} --layer 1 --seed 3 --overwrite", {"acts.h5": "acts.h5"}),
    Verb("join", "join BASE/part-1.h5 BASE/part-2.h5 -o acts.h5"),
    Verb("synth", f"synth toy --rows 4k {_CPU} -o acts.h5"),
    Verb("train", f"{_HIER} --checkpoint-seconds 0"),
    Verb("train, one checkpoint", _HIER),
    Verb("train row-adam", f"{_HIER} --optimizer row-adam --harden --relevel --checkpoint-seconds 0"),
    Verb("train batchtopk", f"{_TRAIN} --arch batchtopk --widths 64 --k 6 --tokens 4k --checkpoint-seconds 0"),
    Verb("train jumprelu", f"{_TRAIN} --arch jumprelu --widths 64 --k 6 --tokens 4k --checkpoint-seconds 0"),
    Verb("train --overwrite", f"{_HIER} --seed 1 --checkpoint-seconds 0 --overwrite", _RUN),
    Verb("train --synth", f"train --synth toy --widths 4,12 --k 1,2 --tokens 4k --batch 128 {_CPU} -o run"),
    Verb(
        "eval",
        f"{_EVAL} {_CPU} --edges edges.csv --html page.html --markdown page.md --plots plots -o report.json",
    ),
    Verb("encode", f"encode BASE/hier BASE/acts.h5 {_CPU} -o codes.h5"),
    Verb("encode --overwrite", f"encode BASE/hier BASE/acts.h5 --compression gzip --overwrite {_CPU} -o codes.h5",
         {"codes.h5": "codes.h5"}),
    Verb("export-tree", f"export-tree BASE/hier {_INPUTS} {_CPU} -o tree.json"),
    Verb("export-tree csv", f"export-tree BASE/hier {_INPUTS} {_CPU} -o tree.csv"),
    Verb("dashboard, its index", f"{_PAGES} --neuronpedia features", _RUN),
    Verb("dashboard -o", f"{_PAGES} --report BASE/report.json -o pages", _INDEXED),
    Verb("dashboard --overwrite", f"{_PAGES} --rebuild --overwrite -o pages", {**_INDEXED, "pages": "pages"}),
    Verb("label", "label run --set a0=kings --set b3=rivers --author Ada -o labels.csv --overwrite", _RUN),
    Verb("study new", f"study new BASE/indexed {_STUDY} --raters 3",
         random=frozenset({"links.json"})),
    Verb("study simulate", "study simulate study --raters 4", {"study": "study"}),
    Verb("study analyze", "study analyze study --simulated", {"study": "rehearsed"}),
    Verb("convert --to", "convert BASE/flat --to sae-lens -o made"),
    Verb("convert", "convert BASE/foreign --acts BASE/packed.h5 -o run"),
    Verb("data get", "data get shakespeare_char --from BASE/play.txt --prefix"),
    Verb("experiment", "experiment run --out_dir run_1 --plan plan.toml", {"plan.toml": "plan.toml", "data": "data"}),
)  # fmt: skip

_BASE = (  # how the inputs are made, in this order; KILL ends a command at a place of tests/kills.py
    f"{_LM} --steps 8 --eval-every 4",
    f"{_CACHE} --layer 0,1",
    f"{_CACHE.replace('acts.h5', 'part-1.h5')} --layer 1 --batch 8 --shard 1/2",
    f"{_CACHE.replace('acts.h5', 'part-2.h5')} --layer 1 --batch 8 --shard 2/2",
    f"{_CACHE.replace('acts.h5', 'packed.h5')} --layer 1 --compression gzip",
    "join part-1.h5 part-2.h5 -o joined.h5",
    f"synth toy --rows 2k {_CPU} -o known.h5",
    f"{_HIER.replace('-o run', '-o hier')}",
    f"{_TRAIN.replace('-o run', '-o flat')} --arch batchtopk --widths 64 --k 6 --tokens 4k",
    f"encode BASE/hier BASE/acts.h5 {_CPU} -o codes.h5",
    f"{_EVAL} {_CPU} -o report.json",
    f"export-tree BASE/hier {_INPUTS} {_CPU} -o tree.json",
    "COPY hier indexed",
    f"dashboard BASE/indexed {_INPUTS} --baseline BASE/flat {_CPU} -o pages",
    "label BASE/indexed --set a0=kings --author Ada",
    f"study new BASE/indexed {_STUDY} --raters 4",
    "COPY study rehearsed",
    "study simulate rehearsed --raters 4",
    "convert BASE/flat --to sae-lens -o foreign",
    "data get shakespeare_char --from play.txt --prefix",
    f"KILL os.rename:state.safetensors:5 {RESUME_TRAIN.replace('-o run', '-o stopped')}",
    f"KILL os.rename:checkpoint.safetensors:3 {RESUME_LM.replace('-o host', '-o started')}",
)


def make_base(base: Path) -> None:
    """Make the inputs of every verb in ``base``, except those that are there already."""
    base.mkdir(parents=True, exist_ok=True)
    (base / "text.txt").write_text(sentences(20_000))
    (base / "play.txt").write_text(("First Citizen:\n" + sentences(6000))[:6000])
    (base / "plan.toml").write_text(PLAN)
    with open(base / "made", "a+") as made:
        made.seek(0)
        done = made.read().splitlines()
        for line in _BASE:
            if line not in done:
                _make(base, line.replace("BASE", str(base)).split())
                print(line, file=made, flush=True)


def _make(base: Path, words: list[str]) -> None:
    if words[0] == "COPY":
        shutil.copytree(base / words[1], base / words[2])
    elif words[0] == "KILL":
        killed = start(*words[2:], env={"HIERSAE_KILL_AT": words[1]}, cwd=base)
        errors = killed.communicate()[1]
        assert killed.wait() == -signal.SIGKILL, f"{words}: {errors}"
    else:
        made = hiersae(*words, cwd=base)
        assert made.returncode == 0, f"{words}: {made.stderr}"


def undisturbed(verb: Verb, base: Path, folder: Path, env: Mapping[str, str] | None = None) -> float:
    """Run a command in ``folder`` as it should go; returns its seconds."""
    verb.prepare(base, folder)
    ended = run(verb.args(base), folder, PATIENCE, env)
    assert ended.code == 0, f"{verb.name}: {ended.errors}"
    return ended.seconds
