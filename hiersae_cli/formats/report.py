"""The report (``report.json``): specified in ``docs/file-formats.md``, made by ``workflows.evaluate``."""

from __future__ import annotations

import re

from hiersae_cli.formats.tree_writers import SOFT

SCHEMA = "hiersae.report"
SCHEMA_VERSION = 4

# In the order of the tables, by their sections: whether more is better, None where neither is. Figures of one level
# (``l0_level_1``), of a hardened tree's soft firing (``fvu_soft``) and of control trees (``lift_shuffled``) are named
# after those of the whole.
SECTIONS: dict[str, dict[str, bool | None]] = {
    "Reconstruction": {
        "fvu": False,
        "ev": True,
        "l0": None,
        "dead": False,
        "ce_recovered": True,
        "ce_recovered_mean": True,
        "kl": False,
    },
    "Tree": {
        "mi_bits": True,
        "mi_over_max": True,
        "mi_over_entropy": True,
        "p_parent_given_child": True,
        "p_child_given_parent": None,
        "lift": True,
        "beyond_shift": None,
        "or_distance": False,
        "hierarchy_score": True,
        "sibling_overlap": None,
        "sibling_cosine": None,
        "stability": None,
        "stability_shuffled": None,
        "stability_latents": None,
    },
    "Description length": {
        "bits_per_token": False,
        "bits_per_token_tree": False,
        "bits_per_token_chow_liu": False,
    },
    "Recovery of the truth": {
        "mcc": True,
        "uniqueness": True,
        "precision": True,
        "recall": True,
        "f1": True,
        "edge_precision": True,
        "edge_recall": True,
        "edge_f1": True,
        "ancestor_precision": True,
        "ancestor_recall": True,
        "ancestor_f1": True,
    },
    "Probes for concepts": {
        "probe_f1_k1": True,
        "probe_f1_k2": True,
        "probe_f1_k5": True,
        "probe_f1_k16": True,
        "probe_f1_reconstruction": True,
        "probe_accuracy_k1": True,
        "probe_accuracy_k2": True,
        "probe_accuracy_k5": True,
        "probe_accuracy_k16": True,
        "probe_accuracy_reconstruction": True,
    },
    "Hierarchy of concepts": {
        "concept_score": True,
        "detector_depth": None,
        "splitting": None,
        "absorption": None,
        "absorption_fraction": None,
    },
    "Interventions": {
        "tpp": True,
        "tpp_level_0": None,
        "tpp_level_1": None,
        "steering_parent": True,
        "steering_child": True,
        "steering_child_by_parent": None,
    },
}
MORE_IS_BETTER = {metric: better for section in SECTIONS.values() for metric, better in section.items()}

# Trees of a run, by what is added to a metric's name: its own (learned, or the most informative parents of a flat
# dictionary), the best that its firings allow, and the own one with its parents shuffled.
OWN, CHOW_LIU, SHUFFLED = "", "_chow_liu", "_shuffled"
TREES = {OWN: "own", CHOW_LIU: "Chow–Liu", SHUFFLED: "shuffled"}

# The plots by file name, in the order of the page.
PLOTS = {
    "frontier": "Reconstruction error against sparsity",
    "information": "Information of each edge against the most that its rates allow",
    "containment": "How far children fire within their parents",
    "calibration": "P(child | parent): as fitted on training rows, and in held-out rows",
    "firing-rates": "How often latents fire",
}


def of_the_whole(metric: str) -> str:
    """``l0`` for ``l0_level_1``, ``fvu`` for ``fvu_soft``, ``lift`` for ``lift_shuffled``."""
    if metric in MORE_IS_BETTER:
        return metric
    return re.sub(rf"(_level_\d+|{SOFT}|{CHOW_LIU}|{SHUFFLED})$", "", metric)


def verdict(metric: str, difference: float | None, p: float | None, level: float) -> str:
    """``better``, ``worse`` or ``no evidence``, by a corrected p-value; empty where more is neither."""
    more_is_better = MORE_IS_BETTER[of_the_whole(metric)]
    if more_is_better is None or difference is None or p is None:
        return ""
    if p >= level:
        return "no evidence"
    return "better" if (difference > 0) == more_is_better else "worse"
