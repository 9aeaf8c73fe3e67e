"""``hiersae eval``."""

from __future__ import annotations

from typing import Any

from hiersae_cli.config import EvalConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import UsageError
from hiersae_cli.metrics.catalogue import METRICS, SECTIONS, explain, metric_of, names_like


def evaluate(config: EvalConfig, console: Console) -> None:
    """Measure a run, alone or against baselines. On held-out rows, with paired intervals and tests."""
    if config.explain:
        console.result(*_explained(config.explain))
        return
    from hiersae_cli.workflows import advice
    from hiersae_cli.workflows.evaluate import run

    report = run(config, console)
    console.result(report, "")
    console.next(advice.after_eval(config, report))


def _explained(name: str) -> tuple[dict[str, Any], str]:
    """What a figure is, as data and as text; of ``all``, the names and labels of all figures."""
    if name == "all":
        lines = []
        for section in SECTIONS:
            lines += [section, *(f"  {m.name:31} {m.label}" for m in METRICS if m.section == section)]
        return {metric.name: metric.as_json() for metric in METRICS}, "\n".join(lines)
    key = next((metric.name for metric in METRICS if metric.label == name.lower()), name)
    try:
        metric = metric_of(key)
    except KeyError:
        near = names_like(name)
        hint = f"Did you mean {' or '.join(near)}?" if near else "hiersae eval --explain all lists them."
        raise UsageError(f"--explain {name}: no such figure", hint) from None
    return {key: metric.as_json()}, explain(key)
