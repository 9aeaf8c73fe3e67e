"""The host model that a run or a cache names: load it, and check that it is the same model and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hiersae_cli.console import Console
from hiersae_cli.errors import FileError
from hiersae_cli.host import gguf
from hiersae_cli.host.loading import load_tokenizer
from hiersae_cli.host.model import Host
from hiersae_cli.host.tokenizer import decoded
from hiersae_cli.host.tokenizer import fingerprint as tokenizer_fingerprint

_LONGEST_SAMPLE = 40  # characters of a text in a message


def load_recorded_host(
    path: str | Path, header: dict[str, Any], device: torch.device, name: str = "", console: Console | None = None
) -> Host:
    """The host model of the run at ``path`` with this ``header``.

    Args:
        name: a folder, a GGUF file or a hub id. Without it, the name in the header.

    Raises ``FileError`` if the run was trained on another host or with another tokenizer, and as ``Host.load`` does.
    """
    name, recorded = name or _recorded_name(path, header), header["host"]
    host = Host.load(name, device, recorded.get("dtype") or "auto", console=console)
    loaded = {"name": name, "fingerprint": host.fingerprint}
    if host.fingerprint != recorded["fingerprint"]:
        raise FileError(
            f"{in_words(loaded)}: not the model that {path} was trained on, which is {in_words(recorded)}",
            "Give that model with --model.",
        )
    require_tokenizer(host.name, host.tokenizer, host.tokenizer_fingerprint, path, header)
    return host


def load_recorded_tokenizer(path: str | Path, header: dict[str, Any], name: str = "") -> Any:
    """The tokenizer of the cache at ``path``; arguments and errors are those of ``load_recorded_host``."""
    name = name or _recorded_name(path, header)
    folder = str(gguf.converted(Path(name), Console.silent())) if gguf.is_gguf(name) else name
    tokenizer = load_tokenizer(folder)
    require_tokenizer(name, tokenizer, tokenizer_fingerprint(tokenizer), path, header)
    return tokenizer


def require_tokenizer(name: str, tokenizer: Any, fingerprint: str, path: str | Path, header: dict[str, Any]) -> None:
    """Raise ``FileError`` if a run or cache has another tokenizer; older files do not name theirs."""
    expected = header["host"].get("tokenizer")
    if expected in (None, fingerprint):
        return
    reason = "it cuts text differently"
    if sample := header.get("sample"):
        text = decoded(tokenizer, sample["tokens"])
        if text != sample["text"]:
            reason = f"it reads {text[:_LONGEST_SAMPLE]!r}, but the text is {sample['text'][:_LONGEST_SAMPLE]!r}"
    raise FileError(
        f"{name}: its tokenizer is not the one that {path} was made with: {reason}",
        "Put the model's own tokenizer back, or cache the text again with this one.",
    )


def in_words(host: dict[str, str]) -> str:
    """Name and fingerprint, because two models may have the same name."""
    return f"{host['name']} ({host['fingerprint'][:12]})"


def _recorded_name(path: str | Path, header: dict[str, Any]) -> str:
    if header["host"].get("dtype") is None:
        raise FileError(
            f"{path}: its activations are synthetic, so it has no host model", "Use a run on a model's cache."
        )
    return str(header["host"]["name"])
