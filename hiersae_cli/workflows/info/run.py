"""``hiersae info``: what a file of the chain is, what it was made of, and whether it is complete and valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from hiersae_cli.config.info import InfoConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats import codes, index, labels, report, study, tree
from hiersae_cli.formats.activations import Activations, ActivationSet, writer
from hiersae_cli.formats.activations.writer import partial_path
from hiersae_cli.formats.atomic import human_bytes, read_json
from hiersae_cli.formats.hdf5 import attributes
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.formats.run import SCHEMA as RUN_SCHEMA
from hiersae_cli.formats.run import RunFolder, load_run
from hiersae_cli.host.model import Host
from hiersae_cli.workflows import lm
from hiersae_cli.workflows.cache.summary import SPLITS, row_uses, summary_of
from hiersae_cli.workflows.common import outliers
from hiersae_cli.workflows.info.describe import (
    HEADER_FILE,
    Described,
    describe_codes,
    describe_index,
    describe_labels,
    describe_partial,
    describe_study,
    hdf5_schema,
)

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TOLERANCE = 1e-6  # of statistics: sums may be taken in another order elsewhere
_LABEL_WIDTH = 12
_KINDS = "a cache, codes, a run folder, host model, report.json, tree.json, labels.json, an index or a study"

Lines = list[tuple[str, str]]


def run(config: InfoConfig, console: Console | None = None) -> tuple[dict[str, Any], str]:
    """Describe a file: as data (what ``--json`` prints) and as text.

    An unfinished file is no error: ``complete`` is False, and the text says how to finish it. Raises ``UsageError``
    where there is nothing, ``FileError`` where it is damaged or not ours, ``VersionError`` for another version.
    """
    answer, lines = _describe(Path(config.path), config.verify)
    return answer, "\n".join([answer["file"], *(f"  {label:<{_LABEL_WIDTH}} {text}" for label, text in lines)])


def _describe(path: Path, verify: bool) -> tuple[dict[str, Any], Lines]:
    if not path.exists():
        if partial_path(path).exists():
            return _describe(partial_path(path), verify)
        raise UsageError(f"{path}: no such file", "Check the path.")
    if path.is_dir():
        return _folder(path, verify)
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        raise FileError(f"{path}: the file is empty", f"info describes {_KINDS}.")
    if start.startswith(_HDF5):
        schema = hdf5_schema(path)
        if schema == codes.SCHEMA:
            return _described(path, describe_codes(path, verify))
        return _described(path, describe_index(path)) if schema == index.SCHEMA else _cache(path, verify)
    if start.lstrip()[:1] != b"{":
        raise FileError(f"{path}: not a file of ours", f"info describes {_KINDS}.")
    data = read_json(path)
    schema = data.get("schema")
    if schema == report.SCHEMA:
        return _report(path, data)
    if schema == tree.SCHEMA:
        return _tree(path)
    if schema == labels.SCHEMA:
        return _described(path, describe_labels(path, data))
    if schema == study.STUDY:
        return _described(path, describe_study(path))
    if schema in (RUN_SCHEMA, lm.SCHEMA):
        return _folder(path.parent, verify)
    raise FileError(f"{path}: not a file of ours (it is of schema {schema!r})", f"info describes {_KINDS}.")


def _described(path: Path, found: Described) -> tuple[dict[str, Any], Lines]:
    finish = "run the same 'hiersae dashboard' command again"
    return _answer(path, found.kind, found.header, found.details, found.lines, found.unfinished, finish, found.verified)


def _cache(path: Path, verify: bool) -> tuple[dict[str, Any], Lines]:
    with Activations(path, allow_unfinished=True) as acts:
        complete = bool(acts.fingerprint) and acts.rows_committed == acts.rows
        header = _required(path, acts.header, ("config", "inputs", "host"))
        split = acts.column("split")
        splits = {name: int((split == value).sum()) for name, value in SPLITS.items()}
        modules = {name: {"width": acts.width(name), "dtype": acts.dtype(name)} for name in acts.modules}
        if complete:
            modules = summary_of(acts)["modules"]
        details: dict[str, Any] = {
            "rows": acts.rows,
            "rows_committed": acts.rows_committed,
            "documents": acts.documents,
            "splits": splits,
            "modules": modules,
            "host": header["host"],
            "shards": header.get("shards", []),
            "fingerprint": acts.fingerprint,
        }
        lines: Lines = [("rows", f"{acts.rows:,} of {acts.documents:,} documents")]
        if not complete:
            lines.append(("", ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in splits.items())))
        for name, module in modules.items():
            lines.append(("module", f"{name}, width {module['width']:,}, {module['dtype']}"))
            if complete:
                lines.append(("", f"{row_uses(module, splits['dropped'])}; median norm {module['median_norm']:.4g}"))
                warning = module["warning"] = _warning(path, name)
                lines += [("warning", warning)] * bool(warning)
        lines.append(("host", _host_name(header["host"])))
        if acts.truth is not None:
            truth = {"features": len(acts.truth), "edges": int((acts.truth.parent_N >= 0).sum())}
            details["truth"] = truth
            lines.append(("truth", f"{truth['features']:,} features, {truth['edges']:,} of them with a parent"))
        if details["shards"]:
            lines.append(("shards", ", ".join(details["shards"])))
        if complete:
            lines.append(("fingerprint", acts.fingerprint))
            if verify:
                _verify_cache(acts)
        header = {**attributes(acts.file), **header}
    unfinished = "" if complete else f"{details['rows_committed']:,} of {details['rows']:,} rows are written"
    kind = "cache, joined" if details["shards"] else "cache"
    return _answer(
        path,
        kind,
        header,
        details,
        lines,
        unfinished,
        "run the same 'hiersae cache' command again",
        verified="the content has the fingerprint and the statistics that the file says" if verify and complete else "",
    )


def _warning(path: Path, module: str) -> str:
    acts = ActivationSet([str(path)], module)
    try:
        return outliers.warning(acts)
    finally:
        acts.close()


def _verify_cache(acts: Activations) -> None:
    """Compare what the file says of its content with what its content gives."""
    for name, found in writer.summarise(acts.path).items():
        said = acts.file[name][()]
        if name == "fingerprint":
            same = said == found[()]
        else:
            same = np.allclose(said, found, rtol=_TOLERANCE, atol=_TOLERANCE * float(np.abs(found).max()))
        if not same:
            raise FileError(
                f"{acts.path}: damaged: its {name} is not that of its content", "Make it again with 'hiersae cache'."
            )


def _folder(path: Path, verify: bool) -> tuple[dict[str, Any], Lines]:
    if (path / HEADER_FILE).exists():
        return _described(path, describe_partial(path))
    if (path / lm.CHECKPOINT).exists() and not (path / "config.json").exists():
        return _host_in_training(path)
    if (path / study.DESIGN_FILE).exists():
        return _describe(path / study.DESIGN_FILE, verify)
    if not (path / "config.json").exists():
        raise FileError(f"{path}: no config.json in this folder; not a folder of ours", f"info describes {_KINDS}.")
    header = read_json(path / "config.json")
    if isinstance(header, dict) and "model_type" in header and "schema" not in header:
        return _host(path, header, verify)
    return _run(path, verify)


def _run(path: Path, verify: bool) -> tuple[dict[str, Any], Lines]:
    folder = RunFolder(path)
    header = _required(folder.config_file, folder.read_header(), ("config", "inputs", "module", "width", "host"))
    converted = header.get("converted")
    needed = ("arch", "widths", "k") if converted else ("arch", "widths", "k", "tokens", "batch")
    config = _required(folder.config_file, header["config"], needed)
    done, planned = folder.progress()
    if not converted:
        # A run that has no weights yet says what it will take in its configuration alone.
        planned = planned or max(1, config["tokens"] // config["batch"])
    last = _last_metrics(folder)
    if verify and folder.model_file.exists():
        weights = load_run(path).model.state_dict()
        bad = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor.float()).all())]
        if bad:
            raise FileError(f"{folder.model_file}: damaged: {bad[0]} is not finite", "Train the run again.")
    details = {
        "arch": config["arch"],
        "widths": config["widths"],
        "k": config["k"],
        "hard": folder.is_hard(),
        "module": header["module"],
        "width": header["width"],
        "host": header["host"],
        "step": done,
        "steps": planned,
        "last_metrics": last,
        "converted": converted,
    }
    lines: Lines = [
        (
            "model",
            f"{config['arch']}, {' + '.join(f'{width:,}' for width in config['widths'])} latents, "
            f"L0 {' + '.join(map(str, config['k']))}{', hardened tree' if details['hard'] else ''}",
        ),
        ("module", f"{header['module']}, width {header['width']:,}"),
        ("host", _host_name(header["host"])),
        _origin(converted) if converted else ("training", f"step {done:,} of {planned:,}, {config['tokens']:,} tokens"),
    ]
    if last:
        shown = [f"{name} {last[name]:.4g}" for name in ("fvu", "dead") if name in last]
        lines.append(("last figures", f"step {last['step']:,}: {', '.join(shown)} (on training batches)"))
    return _answer(
        path,
        "run",
        header,
        details,
        lines,
        "" if folder.is_complete() else f"training is at step {done:,} of {planned:,}",
        "run the same 'hiersae train' command again",
        verified="the weights load and are finite" if verify and folder.model_file.exists() else "",
    )


def _origin(converted: dict[str, Any]) -> tuple[str, str]:
    """Where a dictionary of another tool comes from."""
    of = " ".join(part for part in (converted["module"], converted["model"]) if part)
    tool = f"{converted['tool']} {converted['version']}".strip()
    return "converted", f"from {tool}: {converted['architecture']}{f', trained on {of}' if of else ''}"


def _last_metrics(folder: RunFolder) -> dict[str, Any]:
    if not folder.metrics_file.exists():
        return {}
    lines = folder.metrics_file.read_text(encoding="utf-8").splitlines()
    try:
        # A run that was killed may have left half a line; going on drops it.
        return next((json.loads(line) for line in reversed(lines) if line.endswith("}")), {})
    except json.JSONDecodeError as error:
        raise FileError(f"{folder.metrics_file}: damaged ({error})", "Train the run again.") from None


def _host(path: Path, config: dict[str, Any], verify: bool) -> tuple[dict[str, Any], Lines]:
    header: dict[str, Any] = {}
    if (path / lm.DESCRIPTION).exists():
        header = read_json(path / lm.DESCRIPTION)
        check_schema(path / lm.DESCRIPTION, header, lm.SCHEMA, lm.SCHEMA_VERSION)
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise FileError(
            f"{path}: no weights in safetensors", "Convert the model, or make one: hiersae lm TEXT -o host."
        )
    sizes = [_count(file) for file in files]
    tokenizer = any((path / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
    details = {
        "model_type": config["model_type"],
        "layers": _first(config, "num_hidden_layers", "n_layer"),
        "width": _first(config, "hidden_size", "n_embd"),
        "vocabulary": _first(config, "vocab_size"),
        "parameters": sum(sizes),
        "tokenizer": tokenizer,
        "fingerprint": "",
    } | {name: header[name] for name in ("validation_loss", "unit", "steps", "best_step") if name in header}
    if verify:
        details["fingerprint"] = Host.load(str(path), torch.device("cpu")).fingerprint
    lines: Lines = [
        (
            "model",
            f"{details['model_type']}, {details['layers']} layers of width {details['width']}, "
            f"vocabulary {details['vocabulary']}, {details['parameters']:,} parameters",
        )
    ]
    if "validation_loss" in details:
        lines.append(("validation", f"loss {details['validation_loss']:.4f} {details.get('unit', '')}".strip()))
    if not tokenizer:
        lines.append(("tokenizer", "none in this folder"))
    if verify:
        lines.append(("fingerprint", details["fingerprint"]))
    verified = "the model and its tokenizer load" if verify else ""
    return _answer(path, "host model", header, details, lines, "", "", verified)


def _host_in_training(path: Path) -> tuple[dict[str, Any], Lines]:
    checkpoint = path / lm.CHECKPOINT
    header = json.loads(_metadata(checkpoint).get("hiersae", "null"))
    check_schema(checkpoint, header, lm.CHECKPOINT_SCHEMA, lm.SCHEMA_VERSION)
    _required(checkpoint, header, ("step", "config"))
    step, steps = header["step"], header["config"].get("steps", 0)
    details = {"step": step, "steps": steps}
    unfinished = f"training is at step {step:,} of {steps:,}"
    header = {key: header[key] for key in ("schema", "schema_version", "config") if key in header}
    return _answer(
        path, "host model", header, details, [], unfinished, "run the same 'hiersae lm' command again", verified=""
    )


def _report(path: Path, data: dict[str, Any]) -> tuple[dict[str, Any], Lines]:
    # What is shown of a report is the same in all versions.
    check_schema(path, data, report.SCHEMA, 1, 2, 3, report.SCHEMA_VERSION)
    _required(path, data, ("config", "inputs", "runs", "paired"))
    details = {"runs": {name: sorted(found) for name, found in data["runs"].items()}, "paired": sorted(data["paired"])}
    lines: Lines = []
    for name, found in data["runs"].items():
        shown = (
            f"{metric} {found[metric]['value']:.4g}"
            for metric in ("fvu", "l0", "ce_recovered", "mi_bits")
            if metric in found and found[metric].get("value") is not None
        )
        lines.append(("run", f"{name}: {', '.join(shown)}"))
    if data["paired"]:
        lines.append(("compared", ", ".join(data["paired"])))
    return _answer(path, "report", data, details, lines, "", "", verified="")


def _tree(path: Path) -> tuple[dict[str, Any], Lines]:
    found = tree.load_tree(path)
    header = _required(path, found.header, ("config", "inputs", "run", "sample"))
    levels: dict[int, int] = {}
    for node in found.nodes:
        levels[node.level] = levels.get(node.level, 0) + 1
    details = {
        "nodes": len(found),
        "levels": [levels[level] for level in sorted(levels)],
        "roots": len(found.roots()),
        "edges": sum(node.parent is not None for node in found.nodes),
        "dead": sum(bool(node.statistics.get("dead")) for node in found.nodes),
        "run": header["run"],
        "sample": header["sample"],
    }
    lines: Lines = [
        (
            "features",
            f"{details['nodes']:,} ({' + '.join(f'{n:,}' for n in details['levels'])}), "
            f"{details['edges']:,} with a parent; {details['dead']:,} never fire in the rows measured",
        ),
        ("run", f"{header['run']['name']} ({header['run']['arch']}), {header['run']['module']}"),
        ("measured on", f"{header['sample']['rows_held_out']:,} held-out rows"),
    ]
    return _answer(path, "tree", header, details, lines, "", "", verified="")


def _answer(
    path: Path,
    kind: str,
    header: dict[str, Any],
    details: dict[str, Any],
    lines: Lines,
    unfinished: str,
    finish: str,
    verified: str,
) -> tuple[dict[str, Any], Lines]:
    """What all kinds say in the same words, around what one of them says."""
    made = {key: header.get(key) for key in ("schema", "schema_version", "hiersae_version", "created")}
    answer = {
        "file": str(path),
        "kind": kind,
        **made,
        "bytes": _size(path),
        "complete": not unfinished,
        "valid": True,
        "verified": bool(verified),
        **details,
        "inputs": header.get("inputs", {}),
        "config": header.get("config", {}),
    }
    first: Lines = [("kind", f"{kind}, {human_bytes(answer['bytes'])}")]
    if made["schema"]:
        versions = f"{made['schema']} version {made['schema_version']}"
        first.append(("format", versions + (f", hiersae {made['hiersae_version']}" if made["hiersae_version"] else "")))
    if made["created"]:
        first.append(("made", str(made["created"])))
    for name, fingerprint in answer["inputs"].items():
        first.append(("from", f"{name} ({str(fingerprint)[:12]}…)"))
    state = f"incomplete: {unfinished}; to finish, {finish}" if unfinished else "complete"
    last: Lines = [("state", state)]
    if verified:
        last.append(("verified", verified))
    return answer, [*first, *lines, *last]


def _host_name(host: dict[str, Any]) -> str:
    return f"{host.get('name', '?')} ({str(host.get('fingerprint', ''))[:12]}…)"


def _required(path: Path, data: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """``data``, if it is an object that holds all of ``names``."""
    missing = [name for name in names if not isinstance(data, dict) or name not in data]
    if missing:
        raise FileError(f"{path}: damaged: {missing[0]!r} is missing", "Make it again.")
    return dict(data)


def _first(config: dict[str, Any], *names: str) -> Any:
    """The value under the first of ``names`` that there is; multimodal models keep theirs in ``text_config``."""
    inner = {**config, **config.get("text_config", {})}
    return next((inner[name] for name in names if name in inner), None)


def _count(file: Path) -> int:
    """How many numbers a safetensors file holds."""
    try:
        with safe_open(file, "pt") as opened:
            shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise FileError(f"{file}: damaged ({str(error).splitlines()[0]})", "Make the model again.") from None
    return sum(int(torch.Size(shape).numel()) for shape in shapes)


def _metadata(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}
    except SafetensorError as error:
        raise FileError(f"{file}: damaged ({str(error).splitlines()[0]})", "Make the model again.") from None


def _size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )
