"""Configuration of ``hiersae study`` and its parts: new, serve, analyze, rate, simulate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from hiersae_cli.config.base import Config, argument, option, options, parse_count

STUDY_TASKS = ("example", "child", "edge", "label")
MOST_SETS = 20  # drawn unless --sets says otherwise


def parse_tasks(text: str) -> tuple[str, ...]:
    """A comma-separated list of tasks: ``example,edge``."""
    tasks = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [task for task in tasks if task not in STUDY_TASKS]
    if unknown or not tasks:
        raise ValueError(f"{', '.join(unknown) or 'nothing'} is not one of {', '.join(STUDY_TASKS)}")
    return tasks


@dataclass(kw_only=True)
class StudyNewConfig(Config):
    """What a study asks, how many raters, and about which runs. Decided before the first answer."""

    run: str = argument("", help="Run folder of the hierarchy. Not needed with --items.", metavar="RUN")
    items: str = option(
        "", help="Items made by another tool, of any dictionaries, instead of items of runs.", metavar="FILE.json"
    )
    acts: list[str] = options(help="Cache to take contexts from.", metavar="ACTS")
    baseline: str = option("", help="Run of a flat dictionary. It gets a post-hoc tree.", metavar="RUN")
    model: str = option("", help="Host model, for the text of tokens.", metavar="MODEL")
    out: str = option("study", "--out", "-o", help="Folder to write the study to.", metavar="DIR", recorded=False)
    tasks: tuple[str, ...] = option(
        STUDY_TASKS, parse=parse_tasks, metavar="LIST", help="Tasks of the study: example, child, edge, label."
    )
    sets: int | None = option(
        None,
        help="Matched sets per task. A set has an item in every condition. Default: as many as can be drawn, up to 20.",
    )
    raters: int = option(10, help="Planned number of raters. Each gets a private link.")
    sets_per_rater: int = option(0, help="Sets of each task that a rater gets. 0: all.")
    checks: int = option(4, help="Attention checks per session.")
    consent: str = option(
        "", help="What raters are told and agree to: who asks, contact, payment, withdrawal.", metavar="FILE.md"
    )
    most_marks: float = option(
        0.2, help="Leave out latents that mark a larger share of the tokens of their texts: nobody can read them."
    )
    effect: float = option(0.15, help="Difference between two conditions that the study should find, as a share.")
    power: float = option(0.8, help="Probability with which the study should find it.")
    confidence: float = option(0.95, help="Level of the intervals.")
    resamples: int = option(2000, help="Bootstrap resamples.")
    seed: int = option(0, help="Seed of items, sessions and resamples. Links are never drawn from it.")
    index: str = option(
        "",
        help="Index to take contexts from. Default: RUN/dashboard.h5. Built if it does not exist.",
        metavar="FILE",
    )
    tokens: int | None = option(
        None,
        parse=parse_count,
        metavar="COUNT",
        help="Rows to index. Default: as many as the existing index has; 1M for a new one.",
    )
    batch: int = option(4096, help="Rows per batch.", recorded=False)
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.", recorded=False)
    overwrite: bool = option(False, help="Replace a study that nobody has answered yet.", recorded=False)

    def check(self) -> None:
        if self.items:
            for name in ("run", "acts", "baseline", "model", "index", "sets", "tokens"):
                self.require(not getattr(self, name), name, "has no effect with --items: the file holds the items")
            self.require(self.tasks == STUDY_TASKS, "tasks", "has no effect with --items: the file names the tasks")
        else:
            self.require(bool(self.run), "run", "name the run folder of the hierarchy, or give --items FILE.json")
            self.require(len(self.acts) > 0, "acts", "name the cache to take contexts from: --acts acts.h5")
            self.require(bool(self.baseline), "baseline", "name the flat run to compare with: --baseline RUN")
        for name in ("sets", "raters", "tokens", "batch"):
            value = getattr(self, name)
            self.require(value is None or value >= 1, name, "must be at least 1")
        for name in ("sets_per_rater", "checks", "seed"):
            self.require(getattr(self, name) >= 0, name, "must not be negative")
        most = self.sets or MOST_SETS
        self.require(bool(self.items) or self.sets_per_rater <= most, "sets_per_rater", f"there are only {most} sets")
        self.require(self.resamples >= 100, "resamples", "must be at least 100")
        for name in ("effect", "power", "confidence", "most_marks"):
            self.require(0 < getattr(self, name) < 1, name, "must lie between 0 and 1")


@dataclass(kw_only=True)
class _AnswersConfig(Config):
    """What the commands that read or write answers share."""

    study: str = argument(help="Folder made by 'hiersae study new'.", metavar="STUDY")
    database: str = option(
        "", help="URL of the database of answers, as in SQLAlchemy. Default: STUDY/answers.sqlite.", metavar="URL"
    )


@dataclass(kw_only=True)
class StudyServeConfig(_AnswersConfig):
    """Where raters answer."""

    host_address: str = option(
        "127.0.0.1", help="Address to serve at. The default can be reached only from this machine."
    )
    port: int = option(8701, help="Port to serve at. 0 takes a free one.")
    public_url: str = option(
        "", help="Address that raters open, if a proxy with TLS is in front of the server.", metavar="URL"
    )
    raters: int = option(0, help="Number of private rater links. Existing links are kept. 0: as planned.")
    completion_code: str = option(
        "", help="Code that raters see at the end, to be paid. Default: another one for each rater.", metavar="CODE"
    )
    return_url: str = option(
        "",
        help="Page that raters go back to at the end, such as a crowd platform's. {code} stands for the code.",
        metavar="URL",
    )

    def check(self) -> None:
        self.require(
            re.fullmatch(r"[\w-]{0,40}", self.completion_code, re.ASCII) is not None,
            "completion_code",
            "give at most 40 letters, digits, - and _",
        )
        self.require(
            not self.return_url or re.match(r"https?://[^/\s?#@]+([/?#]\S*)?$", self.return_url) is not None,
            "return_url",
            "give https:// and a host, such as https://app.prolific.com/submissions/complete?cc={code}",
        )
        self.require(0 <= self.port <= 65535, "port", "must lie between 0 and 65535")
        self.require(self.raters >= 0, "raters", "must not be negative")
        self.require(
            not self.public_url or _is_address(self.public_url),
            "public_url",
            "give https:// and a host, such as https://study.example.org or https://example.org/study",
        )


def _is_address(text: str) -> bool:
    """Whether this is an address that pages can be below: http or https, a host, and perhaps a port and a path."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return bool(
        parts.scheme in ("https", "http")
        and parts.hostname
        and "@" not in parts.netloc
        and not (parts.query or parts.fragment)
        and re.fullmatch(r"[\w./~-]*", parts.path, re.ASCII)
        and "//" not in parts.path
    )


@dataclass(kw_only=True)
class StudyAnalyzeConfig(_AnswersConfig):
    """What is computed from the answers, and where it is written."""

    out: str = option("", "--out", "-o", help="Folder to write results to. Default: STUDY/analysis.", metavar="DIR")
    simulated: bool = option(False, "--simulated", help="Analyse the rehearsal of 'hiersae study simulate'.")
    confidence: float = option(0.0, help="Level of the intervals. 0: as registered.")
    resamples: int = option(0, help="Bootstrap resamples. 0: as registered.")
    keep_all: bool = option(False, "--keep-all", help="Exclude nobody. This departs from the registered rules.")
    overwrite: bool = option(False, help="Overwrite existing results.")

    def check(self) -> None:
        self.require(0 <= self.confidence < 1, "confidence", "must lie between 0 and 1")
        self.require(self.resamples == 0 or self.resamples >= 100, "resamples", "must be at least 100")
        self.require(not (self.simulated and self.database), "simulated", "reads its own file, so leave out --database")


@dataclass(kw_only=True)
class StudyRateConfig(_AnswersConfig):
    """Which language model answers the items."""

    endpoint: str = option(
        help="URL of an OpenAI-compatible service. Texts of the items are sent there.", metavar="URL"
    )
    llm: str = option(help="Name of the service's model.", metavar="NAME")
    key_env: str = option("", help="Environment variable that holds the service's API key.", metavar="VARIABLE")
    rater: int = option(0, help="Number of the rater whose session the model gets. Also numbers the model's runs.")
    timeout: float = option(60.0, help="Seconds to wait for an answer.")

    def check(self) -> None:
        self.require(
            self.endpoint.startswith(("http://", "https://")),
            "endpoint",
            "begin it with http:// or https://, such as http://127.0.0.1:8000/v1",
        )
        self.require(bool(self.llm), "llm", "name the model that the service should use")
        self.require(self.rater >= 0, "rater", "must not be negative")
        self.require(self.timeout > 0, "timeout", "must be more than 0")


@dataclass(kw_only=True)
class StudySimulateConfig(Config):
    """Raters of known ability, whose answers go to a separate file."""

    study: str = argument(help="Folder made by 'hiersae study new'.", metavar="STUDY")
    raters: int = option(0, help="Number of raters. 0: as planned.")
    skill: float = option(0.5, help="Logit of knowing the answer, for an average rater and item.")
    hierarchy: float = option(0.0, help="What the condition hierarchy adds to this logit.")
    flat: float = option(0.0, help="What the condition flat adds to this logit.")
    shuffled: float = option(-4.0, help="What the condition shuffled adds to this logit.")
    logit: list[str] = options(
        "--logit", help="The same for any condition, such as the ones of --items.", metavar="CONDITION=VALUE"
    )
    lapse: float = option(0.05, help="Share of answers that are guessed.")
    careless: int = option(0, help="Number of raters who guess everything.")
    seed: int = option(0, help="Seed of raters and answers.")
    overwrite: bool = option(False, help="Replace an earlier rehearsal.")

    def check(self) -> None:
        self.require(0 <= self.lapse <= 1, "lapse", "must lie between 0 and 1")
        self.effects()
        for name in ("raters", "careless", "seed"):
            self.require(getattr(self, name) >= 0, name, "must not be negative")

    def effects(self) -> dict[str, float]:
        """What each condition adds to the logit; raises ``UsageError`` if --logit is not understood."""
        effects = {"hierarchy": self.hierarchy, "flat": self.flat, "shuffled": self.shuffled}
        for text in self.logit:
            name, _, value = text.rpartition("=")
            self.require(
                bool(name) and re.fullmatch(r"[+-]?\d+(\.\d*)?", value) is not None,
                "logit",
                "give a condition and a number, such as ours=0.5",
            )
            effects[name] = float(value)
        return effects
