"""Tables of finished runs of the experiment, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hiersae_cli.formats.experiment_run import FinishedRun, interval, titles
from hiersae_cli.metrics.catalogue import metric_of

_HOST = {
    "final_train_loss": "final train loss",
    "best_val_loss": "best val loss",
    "total_train_time": "train seconds",
    "avg_inference_tokens_per_second": "inference tokens/s",
    "host_loss_change": "host's loss after − before",
}
# In three tables, so that each fits on a page.
_METRICS = {
    "Reconstruction": ("fvu", "l0", "dead", "ce_recovered", "kl", "bits_per_token", "bits_per_token_tree"),
    "Tree": ("mi_bits", "mi_over_max", "mi_over_entropy", "p_parent_given_child", "lift", "hierarchy_score"),
    "Concepts": (
        "probe_f1_k1",
        "probe_f1_k5",
        "absorption",
        "absorption_fraction",
        "splitting",
        "concept_score",
        "tpp",
    ),
}
CAUTION = (
    "The hosts are small models of characters. Their activations fill few dimensions (an effective rank of about 15 of "
    "128), so a tree of them means little: these figures measure the code, not what a tree is worth."
)
_KINDS = {"flat": "flat", "hier": "hier", "difference": "hier − flat"}


def markdown(runs: Sequence[FinishedRun], confidence: float) -> str:
    """The tables of every data set; runs with equal figures, for example from the same reused host, share a row."""
    lines = ["| run | tests | configuration |", "| --- | --- | --- |"]
    lines += [f"| {run.name} | {run.tests} | {run.configuration} |" for run in runs]
    lines += ["", f"Mean ± half of Student's {confidence:.0%} interval over seeds (their number in brackets).", ""]
    lines += [CAUTION, ""]
    for title in titles(runs):
        lines += [f"### {title}", "", *_table(runs, title, {"": list(_HOST)}, confidence), ""]
        for section, metrics in _METRICS.items():
            keys = {kind: [f"{metric}_{kind}" for metric in metrics] for kind in _KINDS}
            lines += [f"{section}:", "", *_table(runs, title, keys, confidence), ""]
    return "\n".join(lines).rstrip()


def _table(runs: Sequence[FinishedRun], title: str, keys: dict[str, list[str]], confidence: float) -> Iterator[str]:
    heads = [_head(key) for key in next(iter(keys.values()))]
    columns = ["run", *(["dictionary"] if len(keys) > 1 else []), *heads]
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---' for _ in columns)} |"
    for kind, kind_keys in keys.items():
        rows: dict[tuple[str, ...], list[str]] = {}
        for run in runs:
            if title in run.info:
                cells = tuple(_cell(run, title, key, confidence) for key in kind_keys)
                rows.setdefault(cells, []).append(run.name)
        for cells, names in rows.items():
            yield f"| {' | '.join([', '.join(names), *([_KINDS[kind]] if kind else []), *cells])} |"


def _head(key: str) -> str:
    if key in _HOST:
        return _HOST[key]
    metric = key.rpartition("_")[0]
    return f"`{metric}` {metric_of(metric).arrow}".rstrip()


def _cell(run: FinishedRun, title: str, key: str, confidence: float) -> str:
    values = run.values(title, key)
    middle, half = interval(values, confidence)
    if middle is None:
        return "–"
    spread = "" if half is None else f" ± {half:.2g}"
    return f"{middle:.4g}{spread} ({len(values)})"
