"""Configuration of ``hiersae cache`` and ``hiersae join``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option, options, parse_count
from hiersae_cli.config.lm import TEXTS_HELP
from hiersae_cli.errors import UsageError

DTYPES = ("float32", "float16", "bfloat16")


@dataclass(kw_only=True)
class CacheConfig(Config):
    """Which activations of which model on which text are written, and how."""

    texts: list[str] = argument([], help=TEXTS_HELP, metavar="TEXT")
    model: str = option(help="Causal language model: a Hugging Face folder, a GGUF file or a hub id.", metavar="MODEL")
    out: str = option("acts.h5", "--out", "-o", help="File to write.", recorded=False)
    layer: str = option(
        "",
        help="Transformer blocks whose output is cached, counted from 0: 2, or 1,2. Or hook names of TransformerLens "
        "or nnsight: blocks.2.hook_resid_post.",
        metavar="N[,N]",
    )
    module: list[str] = options(
        help="Path or hook name of any module of the model. May be given several times.", metavar="PATH"
    )
    tokens: int = option(
        0, parse=parse_count, help="Stop after this many tokens. 0 takes the whole text.", metavar="COUNT"
    )
    context: int = option(0, help="Tokens that the model sees at once. 0 takes what the model allows, at most 1024.")
    bos: str = option(
        "auto",
        choices=("auto", "yes", "no"),
        help="Begin every window with the beginning-of-sequence token. auto does what the tokenizer does.",
    )
    document_tokens: int = option(
        2048,
        parse=parse_count,
        help="Longer documents are cut into documents of about this many tokens. 0 keeps them whole.",
    )
    text_field: str = option(
        "text", help="Field that holds the text in .jsonl, .json and .parquet files and in data sets."
    )
    held_out: float = option(0.1, help="Share of the documents that are held out: never trained on, and used by eval.")
    drop_positions: int = option(0, help="Drop this many positions at the beginning of every window.")
    drop_outliers: bool = option(
        True,
        "--drop-outliers/--keep-outliers",
        help="Leave out rows whose norm is over 10 times the median (attention sinks), or keep them.",
    )
    dtype: str = option("auto", choices=("auto", *DTYPES), help="Number type on disk. auto is the model's own.")
    compression: str = option(
        "none",
        choices=("none", "lzf", "gzip"),
        help="Lossless compression. Needs disk space for both forms while it runs.",
    )
    batch: int = option(0, help="Windows per forward pass. 0 chooses by memory.", recorded=False)
    shard: str = option("", help="Write only part i of n (i from 1). 'hiersae join' joins the parts.", metavar="I/N")
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    model_dtype: str = option(
        "auto", choices=("auto", *DTYPES), help="Number type that the model runs in. auto is that of its files."
    )
    revision: str = option("", help="Revision of a model on the hub.")
    seed: int = option(0, help="Seed for choosing the held-out documents.")
    overwrite: bool = option(False, help="Replace the output, finished or not.", recorded=False)

    def check(self) -> None:
        if not self.layer and not self.module:
            raise UsageError(
                "Say what to cache: --layer N for the output of a block, or --module PATH for any module.",
                "A block in the middle is a good start: --layer 2 in a model with 4 layers.",
            )
        for name in ("tokens", "context", "document_tokens", "drop_positions", "batch"):
            self.require(getattr(self, name) >= 0, name, "must not be negative")
        self.require(0 <= self.held_out < 1, "held_out", "must lie in [0, 1)")
        self.layers()
        self.shard_of()

    def layers(self) -> list[int | str]:
        """The block numbers, and names of other tools, that ``--layer`` lists."""
        parts = [part.strip() for part in self.layer.split(",")] if self.layer else []
        if not all("." in part or part.removeprefix("-").isdecimal() for part in parts):
            raise UsageError(f"--layer {self.layer}: write block numbers, such as 2 or 1,2")
        return [part if "." in part else int(part) for part in parts]

    def shard_of(self) -> tuple[int, int]:
        """The part, counted from 0, and the number of parts."""
        return self.part_of("shard")


@dataclass(kw_only=True)
class JoinConfig(Config):
    """Which shards are joined."""

    shards: list[str] = argument(help="The shards of one cache, in any order.", metavar="SHARD")
    out: str = option(
        "acts.h5", "--out", "-o", help="File to write. It refers to the shards, so keep them.", recorded=False
    )
    overwrite: bool = option(False, help="Replace the output.", recorded=False)
