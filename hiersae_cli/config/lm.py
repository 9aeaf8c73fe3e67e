"""Configuration of ``hiersae lm``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option, parse_count

TEXTS_HELP = (
    "Text, .jsonl, .json or .parquet files, compressed or not, folders, globs, data sets as hf:NAME or "
    "hf:NAME:CONFIG@SPLIT, or - for standard input. "
    "Default: the reference documentation that Python carries."
)


@dataclass(kw_only=True)
class LMConfig(Config):
    """A small character-level GPT, its training, and where it is written."""

    texts: list[str] = argument([], help=TEXTS_HELP, metavar="TEXT")
    out: str = option("host", "--out", "-o", help="Folder to write the Hugging Face model to.", recorded=False)
    layers: int = option(4, help="Transformer blocks.")
    width: int = option(256, help="Width of the residual stream.")
    heads: int = option(0, help="Attention heads. 0 takes width/64 (at least 1).")
    context: int = option(128, help="Longest sequence, in characters.")
    steps: int = option(1800, parse=parse_count, help="Optimizer steps.")
    batch: int = option(16, help="Sequences per step.")
    lr: float = option(2e-3, help="Peak learning rate. A cosine schedule lowers it to a tenth.")
    warmup: int = option(100, help="Steps of linear warm-up.")
    weight_decay: float = option(0.1, help="AdamW weight decay, on matrices only.")
    dropout: float = option(0.0, help="Dropout rate.")
    bias: bool = option(True, "--bias/--no-bias", help="Train biases of linear layers and norms, or keep them at 0.")
    clip: float = option(1.0, help="Largest gradient norm. 0 switches clipping off.")
    validation: float = option(0.1, help="Share of the text, at its end, that is used for validation.")
    eval_every: int = option(200, help="Steps between validations and checkpoints.")
    eval_tokens: int = option(
        65_536, parse=parse_count, help="Validation characters for the regular checks. The last check takes all."
    )
    text_field: str = option(
        "text", help="Field that holds the text in .jsonl, .json and .parquet files and in data sets."
    )
    seed: int = option(0, help="Seed of initialisation and batches.")
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    dtype: str = option(
        "auto",
        choices=("auto", "float32", "bfloat16"),
        help="Autocast type of the products. auto takes bfloat16 if the machine has units for it.",
    )
    compile: bool = option(
        False,
        "--compile/--no-compile",
        help="Compile the training step with torch.compile: a minute at the start, then faster steps, mostly on a GPU.",
    )
    overwrite: bool = option(
        False, help="Replace a finished model, or start an unfinished one from the beginning.", recorded=False
    )

    def check(self) -> None:
        for name in ("layers", "width", "context", "steps", "batch", "eval_every", "eval_tokens"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        self.require(self.heads >= 0, "heads", "must not be negative")
        self.heads = self.heads or max(1, self.width // 64)
        self.require(self.width % self.heads == 0, "width", f"must be a multiple of the {self.heads} heads")
        self.require(0 < self.validation < 1, "validation", "must lie between 0 and 1")
        self.require(0 <= self.dropout < 1, "dropout", "must lie in [0, 1)")
        self.require(self.lr > 0, "lr", "must be positive")
        for name in ("warmup", "weight_decay", "clip", "seed"):
            self.require(getattr(self, name) >= 0, name, "must not be negative")
