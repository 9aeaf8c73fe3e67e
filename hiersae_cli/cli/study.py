"""``hiersae study``: one short body for each of its parts."""

from __future__ import annotations

from hiersae_cli.config import (
    StudyAnalyzeConfig,
    StudyNewConfig,
    StudyRateConfig,
    StudyServeConfig,
    StudySimulateConfig,
)
from hiersae_cli.console import Console
from hiersae_cli.workflows.advice import command


def new(config: StudyNewConfig, console: Console) -> None:
    """Draw the items of a blinded study. Its design and its pre-registration are written too."""
    from hiersae_cli.workflows.study import new as run

    console.result(run(config, console), "")
    console.next(command("study", "simulate", config.out), command("study", "serve", config.out))


def serve(config: StudyServeConfig, console: Console) -> None:
    """Serve a study to its raters. Each has a private link; an administrator sees the progress."""
    from hiersae_cli.workflows.study import serve as run

    console.result(run(config, console), "")


def analyze(config: StudyAnalyzeConfig, console: Console) -> None:
    """Analyse the answers of a study as registered. Accuracy, differences, agreement, exclusions and times."""
    from hiersae_cli.workflows.study import analyze as run

    console.result(run(config, console), "")


def rate(config: StudyRateConfig, console: Console) -> None:
    """Have a language model answer a study. It is a rater that is reported by itself."""
    from hiersae_cli.workflows.study_rate import rate as run

    console.result(run(config, console), "")


def simulate(config: StudySimulateConfig, console: Console) -> None:
    """Rehearse a study with raters of known ability. Their answers are kept apart."""
    from hiersae_cli.workflows.study import simulate as run

    console.result(run(config, console), "")
    console.next(command("study", "analyze", config.study, "--simulated"))
