"""Every kind of file: how a small one is made, and what reads it."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hiersae_cli import Activations, Codes, load_run
from hiersae_cli.browse.index import summary
from hiersae_cli.concepts import labels_file
from hiersae_cli.config.cache import JoinConfig
from hiersae_cli.config.encode import EncodeConfig
from hiersae_cli.config.info import InfoConfig
from hiersae_cli.config.study import StudyAnalyzeConfig, StudySimulateConfig
from hiersae_cli.console import Console
from hiersae_cli.formats import datasets, experiment_run, explanations, host, plan, sweep_plan
from hiersae_cli.formats.codes import SCHEMA as CODES
from hiersae_cli.formats.codes import writing_codes
from hiersae_cli.formats.dictionaries import read_dictionary
from hiersae_cli.formats.index import IndexFile, IndexWriter
from hiersae_cli.formats.labels import Labels
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.report import load_report
from hiersae_cli.formats.run import SCHEMA_VERSION, RunFolder
from hiersae_cli.formats.study import REHEARSAL_FILE, Links, load_study
from hiersae_cli.formats.tensors import save_tensors
from hiersae_cli.formats.tree import load_tree
from hiersae_cli.host import files
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.reading import reading, require_regular
from hiersae_cli.study import from_file
from hiersae_cli.workflows import info
from hiersae_cli.workflows.cache import join
from hiersae_cli.workflows.study.run import analyze, simulate
from tests import caches
from tests.fake_study import make_study
from tests.foreign import saelens_folder
from tests.mutations.changes import (
    Change,
    bytes_of,
    csv_file,
    json_file,
    numbers_of,
    packed_file,
    safetensors_file,
    sqlite_file,
    toml_file,
)
from tests.mutations.hdf5 import hdf5_file
from tests.test_experiment import PLAN

DATA = Path(__file__).parent.parent / "data"


@dataclass(frozen=True)
class Kind:
    """A kind of file: how a small one is made in a folder, the file in it that is damaged, and how it is read."""

    make: Callable[[Path], None]
    file: str
    changes: Callable[[Path], Iterator[tuple[str, Change]]]
    readers: tuple[Callable[[Path], object], ...]


def _read_cache(path: Path) -> None:
    with Activations(path, allow_unfinished=True) as acts:
        acts.document_names()
        if acts.truth is not None:
            acts.true_features(np.flatnonzero(acts.column("split") == 1)[:3])
        for module in acts.modules:
            acts.statistics(module), acts.norms(module), acts.read(module, 0, min(3, acts.rows))


def _read_codes(path: Path) -> None:
    with Codes(path) as codes:
        codes.read()


def _read_run(path: Path) -> None:
    run = load_run(path.parent)
    run.model.encode(torch.zeros(2, run.model.width))


def _read_labels(path: Path) -> None:
    Labels(path.parent, "0").history()


def _described(path: Path) -> None:
    info.run(InfoConfig(path=str(path), verify=path.name != "hiersae.json"))


def _described_folder(path: Path) -> None:
    info.run(InfoConfig(path=str(path.parent), verify=True))


def _make_joined(folder: Path) -> None:
    content = caches.content(70)
    spans = ((0, 28), (28, 70))
    shards = [caches.write(folder / f"{n}.h5", content, span=span, shard=f"{n}/2") for n, span in enumerate(spans, 1)]
    join.run(JoinConfig(shards=[str(path) for path in shards], out=str(folder / "joined.h5")))


def _make_codes(folder: Path) -> None:
    described = {"run": {"name": "run", "arch": "topk", "module": "h.0"}, "host": {"name": "host", "fingerprint": "0"}}
    head = {**header(CODES, 1, EncodeConfig(run="run", acts=["acts.h5"]), {"run": "0"}), **described}
    with writing_codes(folder / "codes.h5", head, (2, 3)) as writer:
        writer.add(Firings.of(torch.tensor([[1, 0, 2, 0, 3], [0, 0, 0, 4, 0.0]])))


def _make_index(folder: Path) -> None:
    rows, latents = 9, {"run": 5, "baseline": 4}
    run = {"name": "run", "arch": "hier", "module": "h.0", "width": 3, "widths": [2, 3], "hard": False}
    made_of = {"run": "0", "acts": ["1"], "baseline": "2", "host": None, "rows": rows, "seed": 0}
    head = {
        "schema": "hiersae.index", "schema_version": 2, "hiersae_version": "0", "created": "", "config": {},
        "inputs": {"run": "0"}, "made_of": made_of, "run": run, "baseline": {**run, "widths": [4]},
        "host": {"name": "host", "fingerprint": "0"}, "tokens": "text",
    }  # fmt: skip
    writer = IndexWriter(folder / "index.h5", head, latents, {})
    for name, count in latents.items():
        writer.append(name, Firings(rows, count, np.arange(0, rows * count, 2), np.ones(-(-rows * count // 2), "<f4")))
    writer.commit(rows)
    columns = {name: np.zeros(rows, int) for name in ("cache_row", "token", "document", "position", "split")}
    ours = {name: np.zeros(5, int) for name in ("active", "both")} | {"parent": np.array([-1, -1, 0, 1, -1])}
    ours |= {"fvu_increase": np.zeros(5, "<f4"), "own_tokens": np.zeros((5, 5), "<i4")}
    ours |= {"own_shares": np.zeros((5, 5), "<f4")}
    theirs = {"verdict": np.zeros(4, "u1"), "covered": np.zeros(4, "<f4"), "part": np.zeros((4, 8), "<i4")}
    theirs |= {"share": np.zeros((4, 8), "<f4"), "within": np.zeros((4, 8), "<f4"), "counted": np.zeros((4, 8), "u1")}
    tables = {f"run/{name}": value for name, value in ours.items()}
    tables |= {f"baseline/{name}": value for name, value in theirs.items()}
    writer.finish(columns, ["text"], lambda lists: (tables, {0: "a", 5: "\0"}))


def _make_run(folder: Path) -> None:
    shutil.copytree(DATA / "run-v2", folder, dirs_exist_ok=True)
    label = {"text": "king", "author": "Ada", "time": "2026-01-02T03:04:05+00:00"}
    labels = {"schema": "hiersae.labels", "schema_version": 2, "created": "2026", "run": "0", "labels": {"b1": [label]}}
    (folder / "labels.json").write_text(json.dumps(labels))
    figures = {"tokens": 500, "loss": 0.5, "fvu": 0.25, "l0": [1.5], "dead": 0.0}
    for step in (1, 2):
        RunFolder(folder).append_metrics({"step": step, **figures})
    # Only training that this release started has a state.
    RunFolder(folder).write_header({**RunFolder(folder).read_header(), "schema_version": SCHEMA_VERSION})
    RunFolder(folder).write_state({"step": torch.tensor(3), "W": torch.ones(2, 3)})


def _make_tree(folder: Path) -> None:
    node = {"latent": 0, "statistics": {"rate": 0.5, "dead": False, "lift": None}, "label": None}
    evidence = {
        "contexts": [{"activation": 1.5, "activations": [0.0, 1.5], "before": ["a"], "token": "b", "after": []}]
    }
    evidence |= {"tokens": [{"token": "b", "id": 1, "share": 0.5}]}
    roots = {**node, "id": "a0", "parent": None, "level": 0, "evidence": {}}
    child = {**node, "id": "b0", "parent": "a0", "level": 1, "evidence": evidence}
    tree = {
        "schema": "hiersae.tree", "schema_version": 2, "config": {}, "inputs": {"run": "0"},
        "run": {"name": "run", "arch": "hier", "module": "h.0"}, "sample": {"rows": 9, "rows_held_out": 3},
        "tokens": "text", "nodes": [roots, child],
    }  # fmt: skip
    (folder / "tree.json").write_text(json.dumps(tree))


def _make_report(folder: Path) -> None:
    figures = {"fvu": {"value": 0.25, "low": 0.2, "high": 0.3}, "mi_bits": {"value": None, "low": None}}
    tested = {"fvu": {"value": -0.1, "low": -0.2, "high": 0.0, "p_holm": 0.01, "verdict": "better"}}
    seeds = {"seeds": [0], "init_seeds": [0], "order_seeds": [0]}
    groups = {name: {"figures": figures, "subjects": [name], **seeds} for name in ("hier", "flat")}
    subject = {"tree": "learned", "steps": 9, "tokens_per_latent": 0.5, "pca_fvu": 0.5}
    report = {
        "schema": "hiersae.report", "schema_version": 4, "config": {}, "inputs": {"acts.h5": "0"},
        "runs": {name: figures for name in groups}, "groups": groups, "paired": {"flat": tested},
        "mismatches": {"flat": []}, "control_trees": {"hier": {}}, "subjects": {name: subject for name in groups},
        "sample": {"rows": 9, "documents": 2, "module": "h.0"}, "warnings": ["few rows"],
        "tests": {"level": 0.05, "correction": "Holm"},
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))


def _shown(path: Path) -> None:
    with reading(path, "hint"):
        summary(load_report(path).data)


def _make_study(folder: Path) -> None:
    make_study(folder, sets=1, checks=1)


def _make_data(folder: Path) -> None:
    (folder / "text.txt").write_text("hello")
    files = {"text.txt": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}
    described = {"schema": "hiersae.data", "schema_version": 1, "name": "text8", "title": "text8", "files": files}
    (folder / "data.json").write_text(json.dumps({**described, "parts": {"training": 4, "validation": 1}}))


def _make_host(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "vocab_size": 5}))
    described = {"schema": "hiersae.host", "schema_version": 1, "config": {}, "inputs": {"t.txt": "0"}}
    (folder / "hiersae.json").write_text(json.dumps({**described, "validation_loss": 1.5, "unit": "nats"}))
    save_tensors(folder / "model.safetensors", {"w": torch.ones(3)}, {"format": "pt"})


def _make_checkpoint(folder: Path) -> None:
    at = {"step": 3, "training_loss": 1.5, "validation_loss": 1.5}
    described = {"schema": host.CHECKPOINT_SCHEMA, "schema_version": 1, "config": {"steps": 5}, "text_sha256": "0"}
    described |= {"step": 3, "best_step": 3, "best_loss": 1.5, "seconds": 0.5, "history": [at]}
    save_tensors(folder / host.CHECKPOINT, {"model/w": torch.ones(3)}, {"hiersae": json.dumps(described)}, checked=True)


def _make_dictionary(folder: Path) -> None:
    tensors = {"W_enc": torch.ones(3, 5), "b_enc": torch.ones(5), "W_dec": torch.ones(5, 3), "b_dec": torch.ones(3)}
    saelens_folder(folder / "made", tensors, architecture="topk", k=2, apply_b_dec_to_input=True)
    for file in (folder / "made").iterdir():
        file.rename(folder / file.name)
    (folder / "made").rmdir()


def _make_answers(folder: Path) -> None:
    make_study(folder, sets=1, checks=1)
    simulate(StudySimulateConfig(study=str(folder), raters=2))


def _analysed(path: Path) -> None:
    analyze(StudyAnalyzeConfig(study=str(path.parent), simulated=True, overwrite=True, resamples=100), Console.silent())


def _make_plan(folder: Path) -> None:
    (folder / "plan.toml").write_text(PLAN)


def _make_experiment(folder: Path) -> None:
    unit = folder / "text8" / "seed-0"
    (unit / "hier-0").mkdir(parents=True)
    (unit / "host").mkdir()
    described = {"schema": experiment_run.SCHEMA, "schema_version": 1, "tests": "all", "configuration": "cpu"}
    (folder / experiment_run.DESCRIPTION).write_text(json.dumps({**described, "data": {"text8": "Text"}}))
    (unit / "host" / "hiersae.json").write_text(json.dumps({"history": [{"step": 3, "validation_loss": 1.5}]}))
    (unit / "hier-0" / "metrics.jsonl").write_text(json.dumps({"step": 1, "tokens": 64, "fvu": 0.5}) + "\n")
    values = {"fvu_seeds": [0.5, 0.25], "loss": [None]}
    (folder / "final_info.json").write_text(json.dumps({"Text": {"means": {"fvu": 0.5}, "final_info_dict": values}}))


def _make_csv(folder: Path) -> None:
    (folder / "labels.csv").write_text("document,start,end,label\na.txt,0,3,verb/past\na.txt,2,9,noun\n")


def _make_sweep(folder: Path) -> None:
    (folder / "sweep.toml").write_text(
        'seeds = [0, 1]\n[train]\nacts = "acts.h5"\nwidths = [4, 12]\nk = [1, 2]\n[grid]\nbatch = [64, 128]\n'
        '[[runs]]\nname = "a"\nlr = 0.1\n[eval]\nresamples = 100\n'
    )


def _make_explanations(folder: Path) -> None:
    row = {"modelId": "m", "layer": "0-x", "index": "3", "description": "kings", "typeName": "x", "notes": "node a3"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")


def _make_items(folder: Path) -> None:
    excerpts = [[{"tokens": ["a", "b"], "activations": [0.5, 1.0]}] for _ in range(2)]
    item = {"task": "example", "condition": "ours", "set": 0, "options": excerpts, "key": 0}
    described = {"schema": from_file.SCHEMA, "schema_version": 1, "conditions": ["ours"], "items": [item]}
    (folder / "items.json").write_text(json.dumps(described))


def _make_lines(folder: Path) -> None:
    (folder / "text.jsonl").write_text('{"text": "one"}\n{"text": "two", "more": [1, {"x": null}]}\n')


def _make_packed(folder: Path) -> None:
    (folder / "text.txt.gz").write_bytes(gzip.compress(b"one two three " * 100))


def _make_parquet(folder: Path) -> None:
    from pyarrow import parquet, table

    parquet.write_table(table({"text": ["one", "two"], "n": [1, 2]}), folder / "text.parquet")


def _make_gguf(folder: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(folder / "model.gguf", "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(4)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", np.ones((2, 4), "<f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_text(path: Path) -> None:
    require_regular(path)
    for _ in files.read(str(path), "text"):
        pass


def _read_items(path: Path) -> None:
    from_file.read_items(path, 0)


def _plotted(folder: Path) -> None:
    run = experiment_run.read(folder)
    for title in experiment_run.titles([run]):
        for values in run.info[title]["final_info_dict"].values():
            experiment_run.interval(values, 0.95)


_INFO = (_described,)
KINDS: dict[str, Kind] = {
    "cache": Kind(
        lambda folder: caches.write(folder / "acts.h5", caches.content(40)) and None,
        "acts.h5", hdf5_file, (_read_cache, *_INFO),
    ),
    "compressed cache": Kind(
        lambda folder: caches.write(folder / "acts.h5", caches.content(40, "bfloat16"), "bfloat16", compression="gzip")
        and None,
        "acts.h5", hdf5_file, (_read_cache, *_INFO),
    ),
    "joined cache": Kind(_make_joined, "joined.h5", hdf5_file, (_read_cache, *_INFO)),
    "truth": Kind(
        lambda folder: shutil.copy(DATA / "acts-v2.h5", folder / "acts.h5") and None,
        "acts.h5", hdf5_file, (_read_cache, *_INFO),
    ),
    "codes": Kind(_make_codes, "codes.h5", hdf5_file, (_read_codes, *_INFO)),
    "index": Kind(_make_index, "index.h5", hdf5_file, (IndexFile, *_INFO)),
    "run": Kind(_make_run, "config.json", json_file, (_read_run, _described_folder)),
    "weights": Kind(_make_run, "model.safetensors", safetensors_file, (_read_run, _described_folder)),
    "metrics": Kind(
        _make_run, "metrics.jsonl", json_file,
        (lambda path: RunFolder(path.parent).keep_metrics_until(10), _described_folder),
    ),
    "state": Kind(
        _make_run, "state/state.safetensors", safetensors_file,
        (lambda path: RunFolder(path.parent.parent).read_state(), lambda path: _described_folder(path.parent)),
    ),
    "labels": Kind(_make_run, "labels.json", json_file, (_read_labels, *_INFO)),
    "tree": Kind(_make_tree, "tree.json", json_file, (load_tree, *_INFO)),
    "report": Kind(_make_report, "report.json", json_file, (_shown, *_INFO)),
    "study": Kind(_make_study, "study.json", json_file, (lambda path: load_study(path.parent), *_INFO)),
    "items": Kind(_make_study, "items.json", json_file, (lambda path: load_study(path.parent), _described_folder)),
    "links": Kind(_make_study, "links.json", json_file, (lambda path: Links(path.parent).raters,)),
    "answers": Kind(_make_answers, REHEARSAL_FILE, sqlite_file, (_analysed,)),
    "plan": Kind(_make_plan, "plan.toml", toml_file, (lambda path: plan.load(path, "run_3", "cpu"),)),
    "experiment": Kind(_make_experiment, experiment_run.DESCRIPTION, json_file, (lambda path: _plotted(path.parent),)),
    "results": Kind(_make_experiment, "final_info.json", json_file, (lambda path: _plotted(path.parent),)),
    "curves": Kind(
        _make_experiment, "text8/seed-0/hier-0/metrics.jsonl", json_file, (lambda path: _plotted(path.parents[3]),)
    ),
    "losses": Kind(
        _make_experiment, "text8/seed-0/host/hiersae.json", json_file, (lambda path: _plotted(path.parents[3]),)
    ),
    "sweep": Kind(_make_sweep, "sweep.toml", toml_file, (lambda path: sweep_plan.load(path, path.parent / "out"),)),
    "explanations": Kind(
        _make_explanations, "rows.jsonl", json_file,
        (lambda path: explanations.read_explanations(str(path), ["a0", "b0", "b1", "b2"], {"b0": "a0"}, "", "0"),),
    ),
    "items of another tool": Kind(_make_items, "items.json", json_file, (_read_items,)),
    "lines of text": Kind(_make_lines, "text.jsonl", json_file, (_read_text,)),
    "packed text": Kind(_make_packed, "text.txt.gz", packed_file, (_read_text,)),
    "table of texts": Kind(_make_parquet, "text.parquet", bytes_of, (_read_text,)),
    "GGUF": Kind(_make_gguf, "model.gguf", numbers_of, (*_INFO,)),
    "labels of a user": Kind(_make_csv, "labels.csv", csv_file, (lambda path: labels_file.read(str(path)),)),
    "data": Kind(_make_data, "data.json", json_file, (lambda path: datasets.read(path.parent),)),
    "host": Kind(_make_host, "hiersae.json", json_file, _INFO),
    "host in training": Kind(_make_checkpoint, host.CHECKPOINT, safetensors_file, (_described_folder,)),
    "dictionary": Kind(_make_dictionary, "cfg.json", json_file, (lambda path: read_dictionary(path.parent),)),
    "weights of a dictionary": Kind(
        _make_dictionary, "sae_weights.safetensors", safetensors_file, (lambda path: read_dictionary(path.parent),)
    ),
}  # fmt: skip
