"""The folder of a host model: a Hugging Face model with its tokenizer, and ``hiersae.json`` if ``hiersae lm`` made it.
Also what ``hiersae info`` says of a GGUF file.

Specified in ``docs/file-formats.md``. Nothing here imports PyTorch until a model is verified: ``hiersae lm`` checks
its flags before it does.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import read_json
from hiersae_cli.formats.described import Described
from hiersae_cli.formats.fields import COMMON, COUNT, Kind, require_fields
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.reading import parse_json

SCHEMA = "hiersae.host"
CHECKPOINT_SCHEMA = "hiersae.host.checkpoint"
GGUF = "gguf"  # in place of the schema of a GGUF file
SCHEMA_VERSION = 1
DESCRIPTION = "hiersae.json"  # next to the model's own files
CHECKPOINT = "checkpoint.safetensors"  # of an unfinished training
_HINT = "Make the model again."
CHECKPOINT_FIELDS: dict[str, Kind] = {  # of an unfinished training, in the metadata of its tensors
    "config": {"steps": COUNT},
    "text_sha256": str,
    "step": COUNT,
    "best_step": COUNT,
    "best_loss": (float, None),
    "seconds": float,
    "history": [{"step": COUNT, "training_loss": float, "validation_loss": float}],
}
_TRAINING = ("validation_loss", "unit", "steps", "best_step")  # what is described of a training by ``hiersae lm``


def describe(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of a host model's folder, of any tool.

    Raises ``FileError`` if it has no weights in safetensors, or damaged ones. Verified, the model is loaded.
    """
    config, header = read_json(path / "config.json"), {}
    require_fields(path / "config.json", config, {"model_type": str, "text_config?": dict}, _HINT)
    if (path / DESCRIPTION).exists():
        header = read_json(path / DESCRIPTION)
        check_schema(path / DESCRIPTION, header, SCHEMA, SCHEMA_VERSION)
        require_fields(path / DESCRIPTION, header, {**COMMON, "validation_loss?": float, "unit?": str}, _HINT)
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise FileError(
            f"{path}: no weights in safetensors", "Convert the model, or make one: hiersae lm TEXT -o host."
        )
    parameters = sum(map(_parameters, files))
    tokenizer = any((path / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
    details = {
        "model_type": config["model_type"],
        "layers": _setting(config, "num_hidden_layers", "n_layer"),
        "width": _setting(config, "hidden_size", "n_embd"),
        "vocabulary": _setting(config, "vocab_size"),
        "parameters": parameters,
        "tokenizer": tokenizer,
        "fingerprint": _fingerprint(path) if verify else "",
    } | {name: header[name] for name in _TRAINING if name in header}
    lines = [_model_line(details)]
    if "validation_loss" in details:
        lines.append(("validation", f"loss {details['validation_loss']:.4f} {details.get('unit', '')}".strip()))
    if not tokenizer:
        lines.append(("tokenizer", "none in this folder"))
    if verify:
        lines.append(("fingerprint", details["fingerprint"]))
    verified = "the model and its tokenizer load" if verify else ""
    return Described("host model", header, details, lines, verified=verified)


def describe_checkpoint(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of the folder in which ``hiersae lm`` trains; verified, its tensors are read."""
    from hiersae_cli.formats.tensors import opened_tensors, read_tensors

    checkpoint = path / CHECKPOINT
    with opened_tensors(checkpoint, _HINT) as file:
        header = parse_json((file.metadata() or {}).get("hiersae", "null"))
    check_schema(checkpoint, header, CHECKPOINT_SCHEMA, SCHEMA_VERSION)
    require_fields(checkpoint, header, CHECKPOINT_FIELDS, _HINT)
    if verify:
        read_tensors(checkpoint, _HINT)
    step, steps = header["step"], header["config"]["steps"]
    header = {key: header[key] for key in ("schema", "schema_version", "config")}
    unfinished = f"training is at step {step:,} of {steps:,}"
    verified = "the tensors have their checksum" if verify else ""
    return Described("host model", header, {"step": step, "steps": steps}, [], unfinished, "hiersae lm", verified)


def describe_gguf(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of a host model in a GGUF file; raises as ``host.gguf.read_metadata`` does."""
    from hiersae_cli.host.gguf import converted_folder, read_metadata

    fields, parameters, stored = read_metadata(path)
    kind = fields.get("general.architecture")
    folder = converted_folder(path)
    details = {
        "model_type": kind,
        "layers": fields.get(f"{kind}.block_count"),
        "width": fields.get(f"{kind}.embedding_length"),
        "vocabulary": fields.get(f"{kind}.vocab_size", fields.get("tokenizer.ggml.tokens")),
        "parameters": parameters,
        "tokenizer": "tokenizer.ggml.tokens" in fields,
        "stored_as": stored,
        "converted": str(folder) if folder else None,
    }
    lines = [
        _model_line(details),
        ("stored", f"mostly as {stored}"),
        ("converted", str(folder or "not yet: the first command that takes it with --model does that")),
    ]
    return Described("host model in a GGUF file", {}, details, lines)


def _model_line(details: dict[str, Any]) -> tuple[str, str]:
    return (
        "model",
        f"{details['model_type']}, {details['layers']} layers of width {details['width']}, "
        f"vocabulary {details['vocabulary']}, {details['parameters']:,} parameters",
    )


def _fingerprint(path: Path) -> str:
    import torch

    from hiersae_cli.host.model import Host

    return Host.load(str(path), torch.device("cpu")).fingerprint


def _setting(config: dict[str, Any], *names: str) -> Any:
    """The value of the first of ``names`` that is set; multimodal models keep theirs in ``text_config``."""
    inner = {**config, **config.get("text_config", {})}
    return next((inner[name] for name in names if name in inner), None)


def _parameters(file: Path) -> int:
    """How many numbers a safetensors file holds."""
    from hiersae_cli.formats.tensors import opened_tensors

    with opened_tensors(file, _HINT) as opened:
        shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118 (not a mapping)
    return sum(map(prod, shapes))
