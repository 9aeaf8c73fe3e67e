"""Load a host's model and tokenizer from files or the hub, and say what is wrong with them."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from hiersae_cli.errors import FileError, HierSAEError, UsageError
from hiersae_cli.hashing import sha256_file
from hiersae_cli.host import gguf
from hiersae_cli.reading import parse_json, read_utf8, reading, require_regular

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")  # names in configurations


def load_model(name: str, dtype: str = "auto", revision: str = "") -> tuple[Any, Any, list[str]]:
    """A causal language model, its tokenizer, and the names of weights that its files lack.

    Raises as ``Host.load`` does, before the weights are read if the configuration or the tokenizer is to blame.
    """
    _quieten()
    from transformers import AutoModelForCausalLM

    _require_plausible(name, Path(name))
    _require_causal_class(name, revision)
    tokenizer = _tokenizer(name, revision)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **_options(revision),
        )
    except Exception as error:
        raise _load_error(name, error) from None
    model, loading = loaded
    return model, tokenizer, sorted(loading["missing_keys"])


def load_tokenizer(name: str, revision: str = "") -> Any:
    """The tokenizer of a model; raises as ``Host.load`` does."""
    _quieten()
    _require_plausible(name, Path(name))
    return _tokenizer(name, revision)


def _tokenizer(name: str, revision: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **_options(revision))
        tokenizer("a", verbose=False)  # damage to its settings shows only now
    except Exception as error:
        raise _load_error(name, error) from None
    if tokenizer.unk_token is not None and tokenizer.unk_token not in tokenizer.get_vocab():
        raise FileError(  # transformers would look for its id without end
            f"{name}: the tokenizer's unk_token {tokenizer.unk_token!r} is not in its vocabulary",
            "Correct tokenizer_config.json, or download the model again.",
        )
    return tokenizer


def _options(revision: str) -> dict[str, Any]:
    # Without trust_remote_code=False, transformers would ask on the terminal whether to run the model's code.
    return {"trust_remote_code": False, **({"revision": revision} if revision else {})}


def _require_plausible(name: str, folder: Path) -> None:
    if folder.is_dir() and not (folder / "config.json").exists():
        raise FileError(
            f"{name}: no config.json in this folder; not a Hugging Face model", "Make one: hiersae lm TEXT -o host."
        )
    for file in folder.iterdir() if folder.is_dir() else ():
        require_regular(file)  # the libraries would wait for a pipe
        if file.suffix == ".json":
            with reading(file, "Download or make the model again."):
                read_utf8(file)  # the libraries would read gigabytes of a file with holes
    _require_plausible_layers(folder)
    if folder.exists() and not folder.is_dir():
        raise FileError(
            f"{name}: a file; a Hugging Face model is a folder",
            "Give a folder or a GGUF file, or make a model: hiersae lm TEXT -o host.",
        )
    if not folder.exists() and name.lower().endswith(gguf.SUFFIX):
        raise UsageError(f"--model {name}: no such file", "Check the path.")
    if not folder.exists() and (name.count("/") > 1 or name.startswith((".", "/", "~"))):
        raise UsageError(f"--model {name}: no such folder", "Make one: hiersae lm TEXT -o host.")


def _require_plausible_layers(folder: Path) -> None:
    """Raise ``FileError`` if a folder's configuration names more layers than there are tensors.

    transformers would make them all before it looks for their weights.
    """
    tensors = layers = 0
    with suppress(Exception):  # transformers says better what is wrong with a file
        config = parse_json(read_utf8(folder / "config.json"))
        settings = {**config, **config.get("text_config", {})}
        layers = max(settings[name] for name in _LAYERS if isinstance(settings.get(name), int))
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt") as opened:
                tensors += len(opened.keys())
    if layers > tensors > 0:
        raise FileError(
            f"{folder}: {layers:,} layers in config.json, but only {tensors:,} tensors", "Download it again."
        )


def _require_causal_class(name: str, revision: str) -> None:
    """Raise ``FileError`` if transformers has no version of the architecture that predicts the next token."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(name, **_options(revision))
    except Exception as error:
        raise _load_error(name, error) from None
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise not_causal(name, config, "this architecture has no causal language model")


def not_causal(name: str, config: Any, reason: str) -> FileError:
    """The error for a model that does not predict the next token."""
    kind = ", ".join(getattr(config, "architectures", None) or [config.model_type])
    return FileError(
        f"{name}: not a causal language model ({kind}): {reason}",
        "Give a model that predicts the next token, such as GPT-2, Llama, Gemma or Mamba.",
    )


def _load_error(name: str, error: Exception) -> HierSAEError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if Path(name).is_dir():
        return FileError(
            f"{name}: this model cannot be loaded ({reason})", "It must be a causal language model in safetensors."
        )
    if "gated repo" in reason:
        return UsageError(
            f"--model {name}: the hub gives this model only to users who have accepted its licence",
            f"Accept it on https://huggingface.co/{name}, then log in with 'hf auth login', or set HF_TOKEN.",
        )
    return UsageError(
        f"--model {name}: neither a folder here nor a model on the hub ({reason})",
        "Check the name and the network, or make a model: hiersae lm TEXT -o host.",
    )


def fingerprint_of(name: str, model: Any) -> str:
    """Of a folder the sha256 of configuration and weights, by name and content; of the hub the commit."""
    folder = Path(name)
    if not folder.is_dir():
        return str(getattr(model.config, "_commit_hash", "") or "")
    digest = hashlib.sha256()
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


def _quieten() -> None:
    """Keep the libraries' banners and bars off the user's terminal; errors still arrive as exceptions."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
