"""Configuration of ``hiersae cache`` and ``hiersae join``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option, options, parse_count
from hiersae_cli.config.lm import TEXTS_HELP
from hiersae_cli.errors import UsageError

DTYPES = ("float32", "float16", "bfloat16")


@dataclass(kw_only=True)
class CacheConfig(Config):
    """Which activations of which model over which text are written, and how."""

    texts: list[str] = argument([], help=TEXTS_HELP, metavar="TEXT")
    model: str = option(help="Hugging Face causal language model: a folder or a hub id.", metavar="MODEL")
    out: str = option("acts.h5", "--out", "-o", help="File to write.", recorded=False)
    layer: str = option(
        "", help="Transformer blocks whose output is cached, counted from 0: 2, or 1,2.", metavar="N[,N]"
    )
    module: list[str] = options(help="Any module of the model by its path; may be given several times.", metavar="PATH")
    tokens: int = option(
        0, parse=parse_count, help="Stop after so many tokens; 0 takes the whole text.", metavar="COUNT"
    )
    context: int = option(0, help="Tokens the model sees at once; 0 takes what the model allows, at most 1024.")
    bos: str = option(
        "auto",
        choices=("auto", "yes", "no"),
        help="Begin every window with the beginning-of-sequence token; auto does as the tokenizer does.",
    )
    document_tokens: int = option(
        2048,
        parse=parse_count,
        help="Longer documents are cut into parts of about so many tokens, each a document; 0 keeps them whole.",
    )
    text_field: str = option("text", help="Field of the text in .jsonl, .json and .parquet files and data sets.")
    held_out: float = option(0.1, help="Share of the documents marked as held out: never trained on, used by eval.")
    drop_positions: int = option(0, help="Mark the first so many positions of every window as not to be used.")
    drop_outliers: bool = option(
        True,
        "--drop-outliers/--keep-outliers",
        help="Leave out rows whose norm is over 10 x the median (attention sinks), or keep them.",
    )
    dtype: str = option("auto", choices=("auto", *DTYPES), help="Type of the numbers on disk; auto is the model's own.")
    compression: str = option(
        "none",
        choices=("none", "lzf", "gzip"),
        help="Lossless compression; needs room for both forms while it runs.",
    )
    batch: int = option(0, help="Windows a forward pass; 0 chooses by memory.", recorded=False)
    shard: str = option(
        "", help="Write only part i of n (i from 1), to be put together by 'hiersae join'.", metavar="I/N"
    )
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    model_dtype: str = option(
        "auto", choices=("auto", *DTYPES), help="Type the model runs in; auto is the one its files are in."
    )
    revision: str = option("", help="Revision of a model on the hub.")
    seed: int = option(0, help="Seed of the choice of held-out documents.")
    overwrite: bool = option(False, help="Replace the output, finished or not.", recorded=False)

    def check(self) -> None:
        if not self.layer and not self.module:
            raise UsageError(
                "Say what to cache: --layer N for the output of a block, or --module PATH for any module.",
                "A block in the middle is a good start: --layer 2 of a model of 4 layers.",
            )
        for name in ("tokens", "context", "document_tokens", "drop_positions", "batch"):
            self.require(getattr(self, name) >= 0, name, "must not be negative")
        self.require(0 <= self.held_out < 1, "held_out", "must lie in [0, 1)")
        self.layer_numbers()
        self.shard_of()

    def layer_numbers(self) -> list[int]:
        """The block numbers that ``--layer`` lists."""
        try:
            return [int(part) for part in self.layer.split(",")] if self.layer else []
        except ValueError:
            raise UsageError(f"--layer {self.layer}: write block numbers, such as 2 or 1,2") from None

    def shard_of(self) -> tuple[int, int]:
        """Which part, counted from 0, of how many."""
        if not self.shard:
            return 0, 1
        part, _, count = self.shard.partition("/")
        valid = part.isdigit() and count.isdigit() and 1 <= int(part) <= int(count)
        self.require(valid, "shard", "write part/parts, counted from 1: --shard 1/4 … --shard 4/4")
        return int(part) - 1, int(count)


@dataclass(kw_only=True)
class JoinConfig(Config):
    """Which shards are put together."""

    shards: list[str] = argument(help="The shards of one cache, in any order.", metavar="SHARD")
    out: str = option(
        "acts.h5", "--out", "-o", help="File to write; it refers to the shards, so keep them beside it.", recorded=False
    )
    overwrite: bool = option(False, help="Replace the output.", recorded=False)
