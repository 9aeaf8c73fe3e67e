"""``hiersae label``: labels of a run's features, by hand or by a language model -> labels.json."""

from __future__ import annotations

import csv
import getpass
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hiersae_cli.browse.index import Index
from hiersae_cli.config.label import LabelConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.atomic import refuse_existing, write_json, write_text
from hiersae_cli.formats.explanations import read_explanations, write_explanations
from hiersae_cli.formats.index import IndexFile
from hiersae_cli.formats.labels import Label, Labels
from hiersae_cli.formats.run import Run, load_run
from hiersae_cli.formats.text import cell, visible
from hiersae_cli.levels import parse_id
from hiersae_cli.workflows.common.chat_local import open_chat
from hiersae_cli.workflows.labelling.automatic import Labeller, rehearse
from hiersae_cli.workflows.labelling.detection import LEAST


def run(config: LabelConfig, console: Console | None = None) -> dict[str, Any]:
    """Set, import, propose, score, show or export labels; returns the summary that ``--json`` prints.

    Raises ``UsageError`` and ``FileError`` if the run, the index or a node is missing, ``HierSAEError`` if a service
    does not answer; earlier labels are kept.
    """
    console = console or Console.silent()
    if config.out:
        refuse_existing(config.out, config.overwrite)
    trained = load_run(config.run)
    labels = Labels(config.run, trained.sha256)
    labels.current()
    summary: dict[str, Any] = {}
    if config.set:
        _set(config, trained, labels)
    if config.from_neuronpedia:
        _import(config, trained, labels, console)
    if config.automatic:
        summary = _propose(config, trained, labels, console)
        if config.dry_run:
            return summary
    current = _ordered(labels.current())
    if config.out:
        _export(config, trained, current)
    if not (config.set or config.automatic or config.out or config.from_neuronpedia):
        _show(trained.name, current, console)
    console.say(f"{labels.path}: {len(current):,} labels" + (f"; written to {config.out}" if config.out else ""))
    return {"file": str(labels.path), "labels": {id: label.as_json() for id, label in current.items()}, **summary}


def _show(name: str, labels: dict[str, Label], console: Console) -> None:
    columns = ["node", "label", "author", "time"]
    rows = [[id, visible(label.text), visible(label.author), label.time] for id, label in labels.items()]
    if any(label.score for label in labels.values()):
        columns.append("score")
        for row, label in zip(rows, labels.values(), strict=True):
            row.append(label.score.in_words if label.score else "")
    console.table(f"Labels of {name}", columns, rows)


def default_author() -> str:
    """The user's name on this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no such user, as in some containers
        return "unknown"


def _set(config: LabelConfig, trained: Run, labels: Labels) -> None:
    texts = dict(text.split("=", 1) for text in config.set)
    _require_latents(config, trained, texts)
    labels.set(texts, config.author or default_author())


def _require_latents(config: LabelConfig, trained: Run, ids: Iterable[str]) -> None:
    levels = trained.model.levels
    if missing := [id for id in ids if id not in levels]:
        raise UsageError(f"{missing[0]}: {config.run} has no such node", f"It has {levels}.")


def _propose(config: LabelConfig, trained: Run, labels: Labels, console: Console) -> dict[str, Any]:
    """Let a model label and score the chosen features, or only print the prompts; returns the part of the summary."""
    _require_latents(config, trained, config.node)
    index = _open_index(config, trained, labels)
    if config.dry_run:
        prompts, cost = rehearse(config, index, console)
        return {"prompts": prompts, "estimate": cost}
    chat = open_chat(config.endpoint, config.llm, config.key_env, config.timeout, config.model, config.device, console)
    try:
        work = Labeller(config, index, labels, chat, console).run()
    finally:  # a service that fails has cost something too
        console.say(f"{chat.name}: {chat.cost.in_words}")
    if work.too_few:
        console.warn(f"{work.too_few:,} labels have no score: their features fire in fewer than {LEAST} held-out rows")
    return {"written": work.written, "scored": work.scored, "cost": chat.cost.as_json()}


def _import(config: LabelConfig, trained: Run, labels: Labels, console: Console) -> None:
    """Take labels from a file of Neuronpedia's explanations; features that have a label keep it."""
    levels = trained.model.levels
    texts = read_explanations(config.from_neuronpedia, levels.ids, _parents(trained), config.source, trained.sha256)
    current = labels.current()
    new = {id: pair for id, pair in texts.items() if config.relabel or id not in current}
    for author in sorted({author for _, author in new.values()}):
        labels.set({id: text for id, (text, by) in new.items() if by == author}, author)
    kept = len(texts) - len(new)
    console.say(
        f"{config.from_neuronpedia}: {len(new):,} labels"
        + (f"; {kept:,} features keep the label that they have" if kept else "")
    )


def _parents(trained: Run) -> dict[str, str]:
    """The parent of each node that has one."""
    levels, parent_F = trained.model.levels, trained.model.tree_F
    ids = (levels.parent_id(int(parent)) for parent in parent_F)
    return {id: parent for id, parent in zip(levels.ids, ids, strict=True) if parent is not None}


def _open_index(config: LabelConfig, trained: Run, labels: Labels) -> Index:
    path = config.index_file
    if not Path(path).exists():
        raise FileError(f"{path}: no such index", f"Build it first: hiersae dashboard {config.run} --acts ACTS …")
    file = IndexFile(path)
    file.check()
    if file.header["made_of"]["run"] != trained.sha256:
        raise FileError(f"{path}: the index of another run, not of {config.run}", "Name the right one with --index.")
    if not file.token_texts:
        raise FileError(
            f"{path}: holds no text of tokens", "Build it with the host: hiersae dashboard --model MODEL --rebuild."
        )
    return Index(file, trained.model.W_dec_FD.detach().float().numpy(), labels)


def _ordered(labels: dict[str, Label]) -> dict[str, Label]:
    return dict(sorted(labels.items(), key=lambda item: parse_id(item[0])))


def _export(config: LabelConfig, trained: Run, labels: dict[str, Label]) -> None:
    path = config.out
    ending = path.rpartition(".")[2].lower()
    if ending == "json":
        write_json(path, {id: label.as_json() for id, label in labels.items()})
    elif ending == "jsonl":
        levels, source = trained.model.levels, config.source or default_source(trained)
        write_explanations(path, labels, levels.ids, _parents(trained), source, trained.sha256)
    else:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["id", "label", "author", "time", "score", "scorer"])
        writer.writerows([id, *_row(label)] for id, label in labels.items())
        write_text(path, text.getvalue())


def _row(label: Label) -> list[Any]:
    score = label.score
    scored = [score.balanced_accuracy, cell(score.scorer)] if score else ["", ""]
    return [cell(label.text), cell(label.author), label.time, *scored]


def default_source(trained: Run) -> str:
    """What Neuronpedia could call a run: its host, then the number of its block and its name."""
    block = next(iter(re.findall(r"(?:^|\.)(\d+)(?=\.|$)", trained.module)), "0")
    return f"{Path(trained.header['host']['name']).name}/{block}-{trained.name}"
