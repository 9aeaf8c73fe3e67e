"""The card of a run on the Hugging Face hub: what it is, its figures, some families, how to load it, its licence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hiersae_cli.metrics.catalogue import METRICS
from hiersae_cli.version import __version__

_FIGURES = ("fvu", "l0", "ce_recovered", "dead", "containment", "bits_per_token_tree", "hierarchy_score", "lift")
_TRAINING = ("fvu", "l0", "dead")


def card(
    name: str,
    repository: str,
    header: Mapping[str, Any],
    last: Mapping[str, Any],
    figures: Mapping[str, Any],
    families: Sequence[str],
    license: str,
    host_license: str,
) -> str:
    """The text of ``README.md``.

    Args:
        name: of the run.
        header: its ``config.json``.
        last: the last line of its metrics.
        figures: its figures in a report, empty without one.
        families: lines of families of its tree, empty without one.
        license: of the repository, "" if it is not known.
        host_license: of the host model, "" if it is not known.
    """
    config, host = header["config"], header["host"]
    widths, k = config["widths"], config["k"]
    kind = "A tree of features" if len(widths) > 1 and config["arch"] == "hier" else "A flat dictionary"
    parts = [
        _front_matter(host, license),
        f"# {name}",
        f"{kind} for the activations of `{host['name']}` at `{header['module']}`: a sparse autoencoder trained with "
        f"HierSAE {header['hiersae_version']}.",
        _table(
            ("", "Value"),
            [
                ("architecture", config["arch"]),
                ("latents", " + ".join(f"{width:,}" for width in widths)),
                ("active latents per token (k)", " + ".join(map(str, k))),
                ("width of the activations", f"{header['width']:,}"),
                *([("trained on", f"{config['tokens']:,} activations")] if "tokens" in config else []),
            ],
        ),
        "## Figures",
        _measured(figures) if figures else _trained(last),
    ]
    if families:
        parts += [
            "## Some families",
            "A parent, how often it fires, and its largest children. Each is named after the tokens that tell best "
            "what it fires at.",
            "```text\n" + "\n".join(families) + "\n```",
        ]
    load = f'import hiersae\n\nrun = hiersae.load_run("hf://{repository}")\nencoded = run.encode_text("The old king")'
    parts += [
        "## Use",
        "With HierSAE installed:",
        f"```python\n{load}\n```",
        f"```sh\nhiersae info hf://{repository}\n"
        f"hiersae eval hf://{repository} --acts acts.h5 --model {host['name']}\n```",
        "The weights act on activations as the host gives them: there is no scale to apply.",
        "## Licence",
        _license(host, license, host_license),
        "## Training",
        "```json\n" + json.dumps(config, indent=1) + "\n```",
        f"Card written by HierSAE {__version__}.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(host: Mapping[str, Any], license: str) -> str:
    lines = ["---", "library_name: hiersae"]
    lines += [f"license: {json.dumps(license)}"] if license else []
    if len(str(host.get("fingerprint"))) == 40:  # a commit: the host is a model of the hub
        lines.append(f"base_model: {json.dumps(host['name'])}")
    return "\n".join([*lines, "tags:", "- sparse-autoencoder", "- interpretability", "- hiersae", "---"])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _measured(figures: Mapping[str, Any]) -> str:
    labels = {metric.name: metric.label for metric in METRICS}
    rows = []
    for metric in _FIGURES:
        figure = figures.get(metric, {})
        if figure.get("value") is None:
            continue
        low, high = figure.get("low"), figure.get("high")
        interval = "" if low is None or high is None else f"{low:.4g} to {high:.4g}"
        rows.append((labels.get(metric, metric), f"{figure['value']:.4g}", interval))
    return "On held-out rows:\n\n" + _table(("", "Value", "Interval"), rows)


def _trained(last: Mapping[str, Any]) -> str:
    rows = []
    for name in _TRAINING:
        if name in last:
            values = last[name] if isinstance(last[name], list) else [last[name]]
            rows.append((name, " + ".join(f"{value:.4g}" for value in values)))
    return "On the last training batches, not on held-out rows:\n\n" + _table(("", "Value"), rows)


def _license(host: Mapping[str, Any], license: str, host_license: str) -> str:
    of_host = (
        f"The host `{host['name']}` has the licence `{host_license}`"
        if host_license
        else (f"The licence of the host `{host['name']}` is not known here: look it up before you use this")
    )
    own = f" This repository has the licence `{license}`." if license else ""
    return f"{of_host}. Its activations, and so these weights, were made with it.{own}"
