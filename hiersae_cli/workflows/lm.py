"""``hiersae lm``: text in, a small character-level Hugging Face model out.

While it trains, ``<out>.partial/checkpoint.safetensors`` holds everything that further training depends on: the
weights, the moments of the optimizer, the best weights so far, and (as JSON in the file's header) the step and the
configuration. The same command resumes from there; on a CPU it ends with exactly the same weights, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiersae_cli.config.base import first_difference
from hiersae_cli.config.lm import LMConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, HierSAEError, UsageError
from hiersae_cli.formats import atomic, provenance
from hiersae_cli.formats.fields import require_fields
from hiersae_cli.formats.host import (
    CHECKPOINT,
    CHECKPOINT_FIELDS,
    CHECKPOINT_SCHEMA,
    DESCRIPTION,
    SCHEMA,
    SCHEMA_VERSION,
)
from hiersae_cli.host.text import documents, fingerprints
from hiersae_cli.interrupt import Interrupted, stoppable
from hiersae_cli.locking import exclusive
from hiersae_cli.reading import parse_json, reading

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

_OURS = re.compile(r"hiersae\.json|model.*\.(safetensors|json)|(generation_)?config\.json|(special_)?token.*|vocab.*")
_HINT = "Give --overwrite to start again."
_LOSS_EVERY = 10  # steps between updates of the training loss on the screen: reading it makes a GPU wait
_KINDS = ("model", "best", "step", "exp_avg", "exp_avg_sq")  # of tensors in a checkpoint, of each parameter
_EVALUATION_SEQUENCES = 64  # sequences of one forward pass of the validation


@dataclass
class _State:
    """How far the training is, apart from its tensors."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass
class _Training:
    """A model in training.

    Legend of shapes: N characters.

    Attributes:
        config: the flags.
        model, optimizer: on their device.
        best: the weights of the lowest validation loss so far.
        training_N, validation_N: the characters as numbers; the validation begins one earlier, so that its first
            character is predicted too.
        dtype: of the forward pass.
        checkpoint: the file that training resumes from.
        identity: configuration and text; a checkpoint of another one is refused.
    """

    config: LMConfig
    model: GPT2LMHeadModel
    optimizer: torch.optim.AdamW
    best: dict[str, Tensor]
    training_N: Tensor
    validation_N: Tensor
    dtype: torch.dtype
    checkpoint: Path
    identity: dict[str, Any]
    state: _State = field(default_factory=_State)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)


def run(config: LMConfig, console: Console | None = None) -> dict[str, Any]:
    """Train a character-level GPT on the first part of the text and save it in ``config.out``.

    The best checkpoint is kept, by the loss on a fixed part of the validation text, and measured on all of it at the
    end. The folder is a Hugging Face model with its tokenizer, and ``hiersae.json``: the provenance and the results.
    Returns the results: sizes, ``validation_loss`` in nats per character, ``best_step``, ``seconds``.

    Raises ``UsageError`` for an impossible text or flag, and ``FileError`` if the text is too short, ``out`` exists, or
    the interrupted training in ``<out>.partial`` had another configuration or text. Asked to stop (Ctrl-C, SIGTERM), it
    finishes the step, writes a checkpoint and raises ``Interrupted``.
    """
    console = console or Console.silent()
    out = Path(config.out)
    if out.name in ("", ".."):
        raise UsageError(f"--out {out}: give the name of a folder to make")
    partial = out.with_name(out.name + ".partial")
    _remove_finished(out, partial)
    _check_output(out, config.overwrite)
    text = "\n".join(document.text for document in documents(config.texts, config.text_field))
    inputs = fingerprints(config.texts)
    validation = _validation_characters(len(text), config)

    # From here on it takes seconds: what is wrong with the request has been said.
    with exclusive(partial, wait=False):
        return _train_in(partial, config, text, inputs, validation, console)


def _train_in(
    partial: Path, config: LMConfig, text: str, inputs: dict[str, str], validation: int, console: Console
) -> dict[str, Any]:
    import torch
    from transformers.utils import logging

    from hiersae_cli.device import resolve_device
    from hiersae_cli.host import charlm

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    out = Path(config.out)
    device = resolve_device(config.device)
    tokenizer = charlm.character_tokenizer(text, config.context)
    training = _start(config, text, tokenizer, validation, device, partial / CHECKPOINT)
    if config.overwrite:
        training.checkpoint.unlink(missing_ok=True)
    if training.checkpoint.exists():
        _resume(training)
    # Whether the output can be written shows now, not after the first hundreds of steps.
    _save(training)
    resumed = f"; resuming from step {training.state.step:,}" if training.state.step else ""
    console.say(
        f"{len(training.training_N):,} characters to train on, {validation:,} to validate on; "
        f"{training.parameters:,} parameters on {device}{resumed}"
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _train(training, console)
    results = _results(training, device)
    description = {
        **provenance.header(SCHEMA, SCHEMA_VERSION, config, inputs),
        "text_sha256": training.identity["text_sha256"],
        "unit": "nats per character",
        **results,
        "history": training.state.history,
    }
    _check_output(out, config.overwrite)  # something may have come there in the meantime
    _publish(training.model, tokenizer, description, partial, out)
    console.say(
        f"{out}: {results['parameters']:,} parameters, validation loss {results['validation_loss']:.4f} nats per "
        f"character (best at step {results['best_step']:,}), {results['seconds']:,.0f} s"
    )
    return {"out": str(out), **results}


def _remove_finished(out: Path, partial: Path) -> None:
    """Remove the checkpoint of the finished model in ``out``, after a kill between the two."""
    if not partial.is_dir() or not (out / DESCRIPTION).exists():
        return
    with suppress(FileError, OSError, ValueError, KeyError, TypeError), exclusive(partial, wait=False):
        if not any(partial.iterdir()):
            partial.rmdir()
            return
        finished, unfinished = atomic.read_json(out / DESCRIPTION), _read_checkpoint(partial / CHECKPOINT)[0]
        same = all(finished[key] == unfinished[key] for key in ("config", "text_sha256"))
        if same and unfinished["step"] == unfinished["config"]["steps"]:
            shutil.rmtree(partial)


def _check_output(out: Path, overwrite: bool) -> None:
    atomic.sweep(out)
    atomic.sweep_inside(out)
    if out.is_dir() and not any(out.iterdir()):
        return
    if overwrite and out.exists() and not (out / DESCRIPTION).is_file():
        raise FileError(f"{out}: is not a model that hiersae made, so it is not replaced", "Choose another --out.")
    if out.exists() and not overwrite:
        raise FileError(f"{out}: already exists", "Give --overwrite to replace it, or choose another --out.")
    if out.is_dir() and (others := sorted(file.name for file in out.iterdir() if not _OURS.fullmatch(file.name))):
        raise FileError(
            f"{out}: holds other files too, such as {others[0]}, so it is not replaced",
            "Move them away, or choose another --out.",
        )


def _validation_characters(length: int, config: LMConfig) -> int:
    """How many characters at the text's end are for validation; raises ``FileError`` if a part is too short."""
    validation = max(1, int(length * config.validation))
    training = length - validation
    if training <= config.context or validation < config.context:
        raise FileError(
            f"the text is too short: {training:,} of its {length:,} characters are to train on and {validation:,} to "
            f"validate on, and a sequence has --context {config.context:,}",
            "Give more text, a smaller --context, or another --validation.",
        )
    return validation


def _start(
    config: LMConfig,
    text: str,
    tokenizer: PreTrainedTokenizerFast,
    validation: int,
    device: torch.device,
    checkpoint: Path,
) -> _Training:
    import torch

    from hiersae_cli.device import has_fast_bfloat16
    from hiersae_cli.host import charlm

    model = charlm.character_gpt(
        len(tokenizer),
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        context=config.context,
        dropout=config.dropout,
        seed=config.seed,
        bias=config.bias,
    )
    model.to(device)  # type: ignore[arg-type] # wrongly typed by transformers
    fast = config.dtype == "bfloat16" or (config.dtype == "auto" and has_fast_bfloat16(device))
    tokens_N = charlm.encode(tokenizer, text)
    return _Training(
        config,
        model,
        charlm.adamw(model, config.lr, config.weight_decay),
        _copy(model),
        tokens_N[:-validation].to(device),
        tokens_N[-validation - 1 :],
        torch.bfloat16 if fast else torch.float32,
        checkpoint,
        {"config": config.recorded(), "text_sha256": hashlib.sha256(text.encode()).hexdigest()},
    )


def _train(training: _Training, console: Console) -> None:
    from hiersae_cli.device import compiled_by_torch
    from hiersae_cli.host import charlm

    config, model, state = training.config, training.model, training.state
    forward = compiled_by_torch(model) if config.compile else model
    losses: dict[str, str] = {}
    started = time.monotonic() - state.seconds
    with stoppable() as asked_to_stop, console.progress("lm", config.steps, "steps", done=state.step) as progress:
        while state.step < config.steps:
            loss = charlm.training_step(
                model,
                training.optimizer,
                *charlm.random_windows(training.training_N, config.batch, config.context, config.seed, state.step),
                lr=charlm.learning_rate(state.step, peak=config.lr, warmup=config.warmup, steps=config.steps),
                clip=config.clip,
                dropout_seed=charlm.dropout_seed(config.seed, state.step),
                dtype=training.dtype,
                forward=forward,
            )
            state.step += 1
            if state.step % config.eval_every == 0 or state.step == config.steps:
                _validate(training, loss.item())
                losses["val"] = f"{state.history[-1]['validation_loss']:.4f}"
                state.seconds = time.monotonic() - started
                _save(training)
            if state.step % _LOSS_EVERY == 0:
                losses["train"] = f"{loss.item():.4f}"
            progress.advance(1, **losses)
            if asked_to_stop():
                state.seconds = time.monotonic() - started
                _save(training)
                raise Interrupted(f"stopped after step {state.step:,} of {config.steps:,}")


def _validate(training: _Training, loss: float) -> None:
    state = training.state
    validation_loss = _validation_loss(training, training.config.eval_tokens)
    if not (math.isfinite(validation_loss) and math.isfinite(loss)):
        raise HierSAEError(
            f"the training broke down: at step {state.step:,} the loss is not a finite number",
            f"Give a lower --lr (it was {training.config.lr:g}) and --overwrite.",
        )
    state.history.append({"step": state.step, "training_loss": loss, "validation_loss": validation_loss})
    if state.best_loss is None or validation_loss < state.best_loss:
        state.best_loss, state.best_step = validation_loss, state.step
        training.best = _copy(training.model)


def _results(training: _Training, device: torch.device) -> dict[str, Any]:
    """Sizes, and the loss of the best weights on all of the validation text; the model keeps these weights."""
    started, state = time.monotonic(), training.state
    for name, parameter in training.model.named_parameters():
        parameter.data.copy_(training.best[name])
    return {
        "parameters": training.parameters,
        "vocabulary": training.model.config.vocab_size,
        "characters": len(training.training_N),
        "validation_characters": len(training.validation_N) - 1,
        "validation_loss": _validation_loss(training),
        "best_step": state.best_step,
        "steps": state.step,
        "seconds": round(state.seconds + time.monotonic() - started, 1),
        "device": str(device),
        "dtype": str(training.dtype).removeprefix("torch."),
    }


def _validation_loss(training: _Training, limit: int = 0) -> float:
    """In nats per character, over about ``limit`` characters of the validation text, or with 0 over all of it."""
    from hiersae_cli.host import charlm

    return charlm.mean_loss(
        training.model,
        training.validation_N,
        context=training.config.context,
        batch=_EVALUATION_SEQUENCES,
        dtype=training.dtype,
        limit=limit,
    )


def _copy(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _save(training: _Training) -> None:
    from hiersae_cli.formats.tensors import save_tensors

    tensors = {f"best/{name}": tensor for name, tensor in training.best.items()}
    for name, parameter in training.model.named_parameters():
        tensors[f"model/{name}"] = parameter.detach()
        for key, value in training.optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = value
    schema = {"schema": CHECKPOINT_SCHEMA, "schema_version": SCHEMA_VERSION}
    described = {**schema, **training.identity, **asdict(training.state)}
    metadata = {"hiersae": json.dumps(described, allow_nan=False)}
    save_tensors(training.checkpoint, tensors, metadata, checked=True)


def _resume(training: _Training) -> None:
    """Put ``training`` where its checkpoint says; leave it at its start if nothing had been trained yet."""
    path, identity = training.checkpoint, training.identity
    described, tensors = _read_checkpoint(path)
    provenance.check_schema(path, described, CHECKPOINT_SCHEMA, SCHEMA_VERSION)
    require_fields(path, described, CHECKPOINT_FIELDS, _HINT)
    if described["step"] == 0:
        return
    difference = first_difference(described["config"], identity["config"])
    if difference is None and described["text_sha256"] != identity["text_sha256"]:
        difference = "the text has changed"
    if difference:
        raise FileError(
            f"{path.parent}: an unfinished training of another configuration: {difference}",
            "Give --overwrite to start again, the old flags to resume, or another --out.",
        )
    parameters = dict(training.model.named_parameters())
    with reading(path, _HINT):
        _require_tensors(tensors, parameters)
        for place, tensor in tensors.items():
            kind, _, name = place.partition("/")
            if kind == "model":
                parameters[name].data.copy_(tensor)
            elif kind == "best":
                training.best[name].copy_(tensor)
            else:  # a moment of the optimizer, or its count of steps
                training.optimizer.state[parameters[name]][kind] = tensor.to(parameters[name].device)
    training.state = _State(**{key: described[key] for key in asdict(training.state)})


def _require_tensors(tensors: dict[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Raise ``KeyError`` or ``ValueError`` unless there are exactly the tensors of a checkpoint."""
    like = {f"{kind}/{name}": parameter for name, parameter in parameters.items() for kind in _KINDS}
    for place in like.keys() | tensors.keys():
        tensor, parameter = tensors[place], like[place]
        if tensor.shape != (() if place.startswith("step/") else parameter.shape) or tensor.dtype != parameter.dtype:
            raise ValueError(f"{place} is {tensor.dtype} of the shape {tuple(tensor.shape)}")


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a checkpoint says of its training, and its tensors."""
    from hiersae_cli.formats.tensors import opened_tensors, read_tensors, require_numbers

    with opened_tensors(path, _HINT) as file:
        described = parse_json((file.metadata() or {}).get("hiersae", "null"))
    tensors = read_tensors(path, _HINT)
    require_numbers(path, tensors, _HINT)
    return described, tensors


def _publish(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    description: dict[str, Any],
    partial: Path,
    out: Path,
) -> None:
    """Write the finished folder, and remove the partial one."""
    from hiersae_cli.formats.tensors import naming_full_disk

    with atomic.replacing_folder(out) as finished, naming_full_disk(out):
        model.save_pretrained(finished)
        tokenizer.save_pretrained(finished)
        atomic.write_json(finished / DESCRIPTION, description)
    shutil.rmtree(partial)
