"""Damaged files of the chain, read by ``info`` and by a verb."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.drill.chain import RESUME_LM, RESUME_TRAIN
from tests.drill.outcomes import Budget, Counts
from tests.drill.worker import Worker
from tests.mutations.changes import Change, bytes_of, json_file, safetensors_file, sqlite_file
from tests.mutations.hdf5 import hdf5_file

SECONDS = 20.0  # that a command may take on a damaged file

_CPU = "--device cpu"


@dataclass(frozen=True)
class Case:
    """A file of the chain that is damaged, and what reads it.

    Attributes:
        name: of the kind of file.
        copies: files or folders of the base, by the name that they get in the folder of the trial.
        file: the damaged file.
        changes: the ways to damage it.
        line: the command that reads it; BASE is the folder of the inputs.
        described: what ``info`` is asked about.
    """

    name: str
    copies: Mapping[str, str]
    file: str
    changes: Callable[[Path], Iterator[tuple[str, Change]]]
    line: str
    described: str = ""


def _cache(name: str, source: str, changes: str = "encode BASE/hier acts.h5") -> Case:
    return Case(name, {"acts.h5": source}, "acts.h5", hdf5_file, f"{changes} {_CPU} -o out --overwrite")


_RUN, _STOPPED, _STUDY = {"run": "indexed"}, {"run": "stopped"}, {"study": "rehearsed"}
_ENCODE = f"encode run BASE/acts.h5 {_CPU} -o out.h5 --overwrite"
_PAGES = f"dashboard run --acts BASE/acts.h5 --baseline BASE/flat --model BASE/host {_CPU} -o pages --overwrite"
_TEXT = f"cache text.txt --model host --layer 0 --tokens 300 {_CPU} -o out.h5 --overwrite"
_TRAIN = "train acts.h5 --module transformer.h.1 --widths 4,12 --k 1,2 --tokens 512 --batch 128"
CASES = (
    _cache("cache", "acts.h5", f"{_TRAIN}"),
    _cache("compressed cache", "packed.h5"),
    Case("joined cache", {name: name for name in ("acts.h5", "joined.h5", "part-1.h5", "part-2.h5")}, "joined.h5",
         hdf5_file, f"encode BASE/hier joined.h5 {_CPU} -o out.h5 --overwrite"),
    Case("cache with a truth", {"acts.h5": "known.h5"}, "acts.h5", hdf5_file,
         f"train acts.h5 --widths 4,12 --k 1,2 --tokens 512 --batch 128 {_CPU} -o out --overwrite"),
    Case("codes", {"codes.h5": "codes.h5"}, "codes.h5", hdf5_file, ""),
    Case("run", _RUN, "run/config.json", json_file, _ENCODE, "run"),
    Case("weights", _RUN, "run/model.safetensors", safetensors_file, _ENCODE, "run"),
    Case("configuration of an unfinished run", _STOPPED, "run/config.json", json_file, RESUME_TRAIN, "run"),
    Case("state of train", _STOPPED, "run/state/state.safetensors", safetensors_file, RESUME_TRAIN, "run"),
    Case("metrics", _STOPPED, "run/metrics.jsonl", json_file, RESUME_TRAIN, "run"),
    Case("state of lm", {"host.partial": "started.partial"}, "host.partial/checkpoint.safetensors", safetensors_file,
         RESUME_LM, "host.partial"),
    Case("labels", _RUN, "run/labels.json", json_file, "label run --set a1=x -o out.csv --overwrite"),
    Case("index", _RUN, "run/dashboard.h5", hdf5_file, _PAGES),
    Case("tree", {"tree.json": "tree.json"}, "tree.json", json_file, ""),
    Case("report", {**_RUN, "report.json": "report.json"}, "report.json", json_file, f"{_PAGES} --report report.json"),
    Case("study", _STUDY, "study/study.json", json_file, "study analyze study --simulated --overwrite", "study"),
    Case("items", _STUDY, "study/items.json", json_file, "study analyze study --simulated --overwrite", "study"),
    Case("answers", _STUDY, "study/simulated.sqlite", sqlite_file, "study analyze study --simulated --overwrite"),
    Case("data set", {"data": "data"}, "data/shakespeare_char/data.json", json_file, "", "data/shakespeare_char"),
    Case("host", {"host": "host", "text.txt": "text.txt"}, "host/config.json", json_file, _TEXT, "host"),
    Case("weights of a host", {"host": "host", "text.txt": "text.txt"}, "host/model.safetensors", safetensors_file,
         _TEXT, "host"),
    Case("tokenizer", {"host": "host", "text.txt": "text.txt"}, "host/tokenizer.json", bytes_of, _TEXT, "host"),
    Case("settings of a tokenizer", {"host": "host", "text.txt": "text.txt"}, "host/tokenizer_config.json", json_file,
         _TEXT, "host"),
    Case("text", {"host": "host", "text.txt": "text.txt"}, "text.txt", bytes_of, _TEXT),
    Case("dictionary", {"made": "foreign"}, "made/cfg.json", json_file,
         "convert made --acts BASE/packed.h5 -o out --overwrite"),
    Case("weights of a dictionary", {"made": "foreign"}, "made/sae_weights.safetensors", safetensors_file,
         "convert made --acts BASE/packed.h5 -o out --overwrite"),
)  # fmt: skip


def damage(counts: Counts, budget: Budget, base: Path, work: Path, cases: tuple[Case, ...] = CASES) -> None:
    """Damage files of every kind in turn, and have them read; each command is a trial."""
    ways: dict[str, list[tuple[str, Change]]] = {}
    worker = Worker()
    for number, draw in enumerate(budget.trials()):
        case = cases[(number + budget.seed) % len(cases)]
        folder = work / "damaged" / case.name.replace(" ", "-")
        if folder.exists():
            shutil.rmtree(folder)
        _copy(case, base, folder)
        if case.name not in ways:
            ways[case.name] = list(case.changes(folder / case.file))
        what, change = draw.choice(ways[case.name])
        # Some changes cannot be made: not every number is a text.
        with suppress(TypeError, ValueError, OSError, RuntimeError, ArithmeticError, LookupError):
            change()
        for line in (f"info {case.described or case.file} --verify", case.line):
            if line:
                ended = worker.run(tuple(line.replace("BASE", str(base)).split()), folder, SECONDS)
                counts.add(case.name, ended.outcome, f"{what}, {line.split()[0]}", ended.errors)
    worker.close()


def _copy(case: Case, base: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, source in case.copies.items():
        if (base / source).is_dir():
            shutil.copytree(base / source, folder / name)
        else:
            shutil.copy(base / source, folder / name)
