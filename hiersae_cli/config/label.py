"""Configuration of ``hiersae label``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option, options

LABEL_FORMATS = ("json", "csv", "jsonl")


@dataclass(kw_only=True)
class LabelConfig(Config):
    """Which features of a run are labelled, by a person or by a language model, and where labels are exported."""

    run: str = argument(help="Run folder made by 'hiersae train'.", metavar="RUN")
    set: list[str] = options(
        help="Label a feature. An empty text removes its label. May be given several times.", metavar="ID=TEXT"
    )
    author: str = option("", help="Author of these labels. Default: your user name.", metavar="NAME")
    out: str = option(
        "",
        "--out",
        "-o",
        help="File to export all labels to: .json, .csv, or .jsonl for Neuronpedia.",
        metavar="FILE",
    )
    from_neuronpedia: str = option(
        "", help="Take labels from a file of Neuronpedia's explanations: .jsonl or .jsonl.gz.", metavar="FILE"
    )
    source: str = option(
        "",
        help="Name of the dictionary in Neuronpedia's files. Default: the host's name, the block and the run's name.",
        metavar="MODEL/SOURCE",
    )
    endpoint: str = option(
        "",
        help="Label automatically with the OpenAI-compatible service at this address. Contexts are sent there.",
        metavar="URL",
    )
    llm: str = option("", help="Name of the service's model.", metavar="NAME")
    key_env: str = option("", help="Environment variable that holds the service's API key.", metavar="VARIABLE")
    model: str = option(
        "",
        help="Label automatically with a language model on this machine: a folder, a GGUF file or a Hugging Face id.",
        metavar="MODEL",
    )
    device: str = option("auto", help="Device of --model: cpu, cuda, cuda:1, mps, or auto.")
    index: str = option("", help="Index to take contexts from, made by 'hiersae dashboard'. Default: RUN/dashboard.h5.")
    node: list[str] = options(help="Label only this feature. May be given several times.", metavar="ID")
    descendants: bool = option(False, "--descendants", help="With --node: also label everything below it.")
    most: int = option(50, help="How many features to label automatically, the coarsest and most frequent first.")
    contexts: int = option(
        10, help="Contexts in each prompt. Half as many in which the feature is silent are added to them."
    )
    score: int = option(
        10,
        help="Held-out contexts with the feature, and as many without it, that each label is tested on. 0: no score.",
    )
    relabel: bool = option(False, "--relabel", help="Also label features that have a label.")
    show_prompts: bool = option(False, "--show-prompts", help="Print the prompts and the model's answers.")
    dry_run: bool = option(False, "--dry-run", help="Print the prompts and send nothing.")
    timeout: float = option(60.0, help="Seconds to wait for an answer.")
    overwrite: bool = option(False, help="Replace the output.")

    def check(self) -> None:
        for text in self.set:
            id, equals, _ = text.partition("=")
            self.require(bool(equals and id), "set", "write ID=TEXT, such as --set 'a12=names of rivers'")
        self.require(not (self.set and self.automatic), "set", "is for labels given by hand, without --endpoint")
        self.require(not (self.endpoint and self.model), "model", "give --endpoint or --model, not both")
        for name in ("llm", "key_env"):
            needed = bool(self.endpoint or self.dry_run)
            self.require(needed or not getattr(self, name), name, "is for automatic labels, with --endpoint")
        self.require(bool(self.node) or not self.descendants, "descendants", "name the node with --node")
        self.require(self.score >= 0, "score", "must not be negative")
        exchanged = bool(self.from_neuronpedia) or self.out.lower().endswith(".jsonl")
        self.require(exchanged or not self.source, "source", "is for --from-neuronpedia, and for -o FILE.jsonl")
        model, slash, source = self.source.rpartition("/")
        well_formed = not self.source or bool(slash and model and source)
        self.require(well_formed, "source", "write MODEL/SOURCE, such as gpt2-small/6-hier")
        self.require(not self.endpoint or bool(self.llm), "llm", "name the model that the service should use")
        self.require(
            not self.endpoint or self.endpoint.startswith(("http://", "https://")),
            "endpoint",
            "begin it with http:// or https://, such as http://127.0.0.1:8000/v1",
        )
        for name in ("most", "contexts"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        self.require(self.timeout > 0, "timeout", "must be more than 0")
        self.require(
            not self.out or self.out.rpartition(".")[2].lower() in LABEL_FORMATS,
            "out",
            "must end in .json, .csv or .jsonl",
        )

    @property
    def automatic(self) -> bool:
        """Whether a language model writes labels, or would."""
        return bool(self.endpoint or self.model or self.dry_run)

    @property
    def index_file(self) -> str:
        """The path of the index."""
        return self.index or f"{self.run.rstrip('/')}/dashboard.h5"
