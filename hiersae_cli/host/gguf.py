"""Host models in GGUF files, the format of llama.cpp: converted once to a Hugging Face folder in the user's cache.

The folder holds float32 weights in safetensors, so it does not matter whether the file or the folder is named later:
both have the fingerprint of the folder. No code from the file is executed.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, HierSAEError, UsageError, install_hint
from hiersae_cli.hashing import sha256_file
from hiersae_cli.host import gguf_check
from hiersae_cli.locking import exclusive
from hiersae_cli.user_cache import user_cache

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_NAME_DIGITS = 16  # of the file's sha256, in the name of its folder
_BYTES_A_WEIGHT = 4  # float32
_CACHE_HINT = "set XDG_CACHE_HOME to a folder on another disk"


def is_gguf(name: str) -> bool:
    """Whether ``name`` is a file that is GGUF by its name or its first bytes."""
    path = Path(name)
    return path.is_file() and (path.suffix.lower() == SUFFIX or _has_magic(path))


def converted(file: Path, console: Console) -> Path:
    """The Hugging Face folder of a GGUF file, which is made if it is not in the user's cache yet.

    Raises ``UsageError`` if a package is missing, ``FileError`` if the file is unusable or the disk too small.
    """
    if not _has_magic(file):
        raise FileError(f"{file}: not a GGUF file", "Download it again.")
    _require_whole(file)
    cache = user_cache()
    if cache is None:
        raise FileError(
            f"{file}: there is no cache folder for the converted model that only you can write to",
            "Set XDG_CACHE_HOME to a folder of your own.",
        )
    folder = _folder(cache, file)
    if not folder.exists():
        _require_packages(file, "gguf", "accelerate")
        console.say(f"converting {file} once, to {folder}")
        folder.parent.mkdir(exist_ok=True)
        with exclusive(folder.parent):
            if not folder.exists():  # another command may have made it meanwhile
                _make(file, folder)
    return folder


def converted_folder(file: Path) -> Path | None:
    """The folder that the file is converted to; None if it is not converted."""
    cache = user_cache()
    if cache is None or not (cache / "hosts").exists():
        return None
    folder = _folder(cache, file)
    return folder if folder.exists() else None


def read_metadata(file: Path) -> tuple[dict[str, Any], int, str]:
    """What a GGUF file says of its model, its number of weights, and the type that most of them are stored in.

    Lists, such as that of the tokens, are given as their lengths. Raises ``UsageError`` if the package is missing,
    ``FileError`` if the file is damaged.
    """
    _require_packages(file, "gguf")
    _require_whole(file)
    from gguf import GGUFReader, GGUFValueType

    try:
        reader = GGUFReader(file)
        fields = {
            name: len(field.data) if field.types[:1] == [GGUFValueType.ARRAY] else field.contents()
            for name, field in reader.fields.items()
        }
        weights: dict[str, int] = {}
        for tensor in reader.tensors:
            kind = tensor.tensor_type.name
            weights[kind] = weights.get(kind, 0) + int(tensor.n_elements)
    except Exception as error:
        raise FileError(f"{file}: damaged GGUF file ({_reason(error)})", "Download it again.") from None
    return fields, sum(weights.values()), max(weights, key=lambda kind: weights[kind], default="")


def _folder(cache: Path, file: Path) -> Path:
    return cache / "hosts" / sha256_file(file)[:_NAME_DIGITS]


def _make(file: Path, folder: Path) -> None:
    """Make ``folder``, which is there only when it is complete."""
    for leftover in folder.parent.glob(f".{folder.name}*"):  # of a command that was killed
        shutil.rmtree(leftover)
    _require_space(file, folder)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}") as temporary:
        _convert(file, Path(temporary))
        complete = Path(temporary) / "model"
        for path in [*complete.iterdir(), complete]:  # on the disk before it gets its name
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        complete.rename(folder)


def _has_magic(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(_MAGIC)) == _MAGIC


def _require_whole(file: Path) -> None:
    try:
        gguf_check.require_whole(file)
    except ValueError as error:
        raise FileError(f"{file}: damaged GGUF file ({error})", "Download it again.") from None


def _require_packages(file: Path, *packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(f"{file}: GGUF files need the package '{package}'", install_hint("gguf"))


def _require_space(file: Path, folder: Path) -> None:
    from gguf import GGUFReader

    try:
        needed = _BYTES_A_WEIGHT * sum(int(tensor.n_elements) for tensor in GGUFReader(file).tensors)
    except Exception as error:
        raise _unreadable(file, error) from None
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise FileError(
            f"{folder}: the converted model needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free",
            f"Free some space, or {_CACHE_HINT}.",
        )


def _convert(file: Path, temporary: Path) -> None:
    """Write the folder ``model`` into ``temporary``."""
    # transformers would also read the tokenizer and adapters of other models in the file's own folder.
    (temporary / "source").mkdir()
    link = temporary / "source" / "model.gguf"
    link.symlink_to(file.resolve())
    try:
        model, tokenizer = _read(link)
    except HierSAEError as error:
        raise FileError(f"{file}: {error.message}", error.hint) from None
    except Exception as error:
        raise _unreadable(file, error) from None
    try:
        model.save_pretrained(temporary / "model")
        tokenizer.save_pretrained(temporary / "model")
    except Exception as error:  # safetensors has its own exception for a full disk
        raise FileError(
            f"{temporary.parent}: the converted model cannot be written ({_reason(error)})",
            f"Free some space, or {_CACHE_HINT}.",
        ) from None


def _read(link: Path) -> tuple[Any, Any]:
    """The model, without its quantization, and its tokenizer."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"gguf_file": link.name, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(link.parent, **options)
    if hasattr(transformers, "GgufConfig"):  # these versions can also keep the weights quantized
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that transformers cannot switch off
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            link.parent, dtype=torch.float32, output_loading_info=True, **options
        )
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise FileError(
            f"lacks {len(missing)} of the model's weights, such as {missing[0]}",
            "If the model comes in several files, merge them first: llama-gguf-split --merge FIRST.gguf ALL.gguf",
        )
    settings = {name: value for name, value in model.config.to_dict().items() if name != "quantization_config"}
    with torch.device("meta"):  # the weights are not copied
        plain = AutoModelForCausalLM.from_config(type(model.config)(**settings))
    plain.load_state_dict(model.state_dict(), assign=True)
    return plain, tokenizer


def _unreadable(file: Path, error: Exception) -> FileError:
    return FileError(
        f"{file}: transformers cannot read this model ({_reason(error)})",
        "If the download is complete, name the original model instead: its folder or its hub id.",
    )


def _reason(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
