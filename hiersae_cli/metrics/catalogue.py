"""The catalogue of all figures of a report: name, label, unit and range, which way is better, and definition.

This is the only place for these facts: reports, tables, pages, exports and ``hiersae eval --explain`` read them here.
It imports nothing heavy, so that help and explanations are fast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf, isfinite
from textwrap import fill
from typing import Any

from hiersae_cli.errors import UsageError

# Endings of a metric's name, for soft firing instead of hard firing, and for trees other than the dictionary's own.
SOFT, CHOW_LIU, SHUFFLED = "_soft", "_chow_liu", "_shuffled"
_ENDINGS = {
    SOFT: "before the tree is hardened",
    CHOW_LIU: "under the Chow–Liu tree of the same latents",
    SHUFFLED: "with the parents of the tree shuffled",
}

SHARE = (0.0, 1.0)
POSITIVE = (0.0, inf)
ANY = (-inf, inf)


@dataclass(frozen=True)
class Metric:
    """A figure that a report may hold.

    Attributes:
        name: its key in ``report.json``.
        label: its name for people, at most 24 characters.
        section: the heading above it in tables.
        better: whether more is better; None if neither more nor less is better.
        unit: "1" for shares and ratios, else "bits", "nats", "latents" or "levels".
        range: smallest and largest possible value.
        of_edge: whether it is a mean over the edges of a tree.
        definition: its meaning in plain sentences.
    """

    name: str
    label: str
    section: str
    better: bool | None
    unit: str
    range: tuple[float, float]
    of_edge: bool
    definition: str

    @property
    def arrow(self) -> str:
        """An arrow that points to the better values; empty if neither more nor less is better."""
        return {True: "↑", False: "↓", None: ""}[self.better]

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON: infinite ends of the range are null."""
        return {**vars(self), "range": [end if isfinite(end) else None for end in self.range]}

    def clip(self, value: float | None, difference: bool = False) -> float | None:
        """``value`` clipped to the range of the figure, or of the ``difference`` of two such figures."""
        low, high = self.range
        if difference:
            low, high = low - high, high - low
        return None if value is None else min(max(value, low), high)


RECONSTRUCTION, TREE, LENGTH = "Reconstruction", "Tree", "Description length"
STABILITY = "Stability between seeds"
TRUTH, PROBES, CONCEPTS = "Recovery of the truth", "Probes for concepts", "Hierarchy of concepts"
INTERVENTIONS = "Interventions"


def _metrics(
    section: str, *rows: tuple[str, str, bool | None, str, tuple[float, float], str], of_edge: bool = False
) -> list[Metric]:
    return [
        Metric(name, label, section, better, unit, range_, of_edge, definition)
        for name, label, better, unit, range_, definition in rows
    ]


_PROBE_LATENTS = (1, 2, 5, 16)

# In the order of the tables.
METRICS: tuple[Metric, ...] = (
    *_metrics(
        RECONSTRUCTION,
        ("fvu", "variance not explained", False, "1", POSITIVE,
         "Share of the activations' variance that the reconstruction misses: squared errors over squared distances "
         "from the mean, summed over all rows. 0 is perfect, 1 is no better than the mean."),
        ("ev", "variance explained", True, "1", (-inf, 1.0), "1 minus the share of the variance that is missed."),
        ("l0", "active latents per row", None, "latents", POSITIVE,
         "How many latents fire in a row, on average. A fair comparison has the same on both sides."),
        ("dead", "dead latents", False, "1", SHARE, "Share of the latents that never fire in the sample."),
        ("start_cosine", "cosine with the start", None, "1", SHARE,
         "Cosine, without sign, of a live latent's decoder row with the most similar of the random rows that training "
         "started from. Median over latents. For F latents of width d, about sqrt(2 ln F / d) is chance."),
        ("lazy", "hardly trained latents", None, "1", SHARE,
         "Share of the live latents with a cosine above 0.8 with one of the rows that training started from."),
        ("ce_recovered", "loss recovered", True, "1", ANY,
         "How much of the model's next-token loss survives when the reconstruction replaces the activations. 1 is the "
         "untouched model, 0 is the model with the activations set to zero."),
        ("ce_recovered_mean", "loss recovered from mean", True, "1", ANY,
         "As ce_recovered, but 0 is the model with the activations set to their mean, which is harder to beat."),
        ("kl", "KL of the next token", False, "nats", POSITIVE,
         "How far the model's next-token distribution moves when the reconstruction replaces the activations: the KL "
         "divergence per token from the untouched model."),
    ),
    *_metrics(
        TREE,
        ("mi_bits", "information of an edge", True, "bits", ANY,
         "Mutual information of a child's and its parent's firing, corrected for the size of the sample (Miller-Madow) "
         "so that unrelated latents have 0 on average. Mean over edges."),
        ("mi_over_max", "information / its bound", True, "1", SHARE,
         "Information of an edge over the most that the two firing rates allow. 1 means that the child fires only "
         "when its parent does; 0 means no association, or that the two avoid each other. Mean over edges."),
        ("mi_over_entropy", "information / entropy", True, "1", SHARE,
         "Share of the uncertainty about a child's firing that its parent removes. A rare child stays low even if "
         "it fires only when its parent does. Mean over edges."),
        ("p_parent_given_child", "child inside its parent", True, "1", SHARE,
         "Share of a child's firings at which its parent fires too, called containment. A parent that always fires "
         "has 1, so read it with lift. Mean over edges."),
        ("p_child_given_parent", "parent's firings shared", None, "1", SHARE,
         "Share of a parent's firings at which the child fires too. Mean over edges."),
        ("lift", "lift of an edge", True, "1", POSITIVE,
         "How many times as often a child fires when its parent fires as it does overall. 1 is chance; a parent that "
         "nearly always fires has a lift near 1. Mean over edges."),
        of_edge=True,
    ),
    *_metrics(
        TREE,
        ("beyond_shift", "edges beyond a shift", None, "1", SHARE,
         "Share of edges whose two latents fire together more often than under a null in which one of them is shifted "
         "within its document, by more than 3 standard deviations. Topics that drift pass too, so it proves no "
         "hierarchy."),
        ("or_distance", "distance from an OR", False, "1", SHARE,
         "How far a parent is from the logical OR of its children: rows in which only one side fires over rows in "
         "which either does. Mean over parents."),
        ("hierarchy_score", "hierarchy score", True, "1", SHARE,
         "Share of edges whose parent and child both have decoder directions among the 5 nearest to a linear probe "
         "for the child's firing. Compare it with its value for shuffled parents."),
        ("sibling_overlap", "overlap of siblings", None, "1", SHARE,
         "Share of the children's firings that come in addition to a sibling's. 0 means that siblings exclude each "
         "other."),
        ("nested_firings", "firings inside a parent", None, "1", SHARE,
         "Share of all firings that belong to a child whose parent fires too. It says how much of the code the tree "
         "describes: the edges of a tree of rare children can be true and say little."),
        ("sibling_cosine", "cosine of siblings", None, "1", (-1.0, 1.0),
         "Mean cosine of the decoder directions of two siblings, mean over families."),
    ),
    *_metrics(
        STABILITY,
        ("stability_cosine", "best cosine, same level", None, "1", SHARE,
         "Cosine, without sign, of a live latent's decoder row with the most similar live row of the same level in "
         "another seed. Mean over latents and pairs of seeds. Compare it with stability_cosine_chance."),
        ("stability_cosine_chance", "the same by chance", None, "1", SHARE,
         "As stability_cosine, for as many random directions that fill the same dimensions as the decoder rows."),
        ("stability_cosine_any", "best cosine, any level", None, "1", SHARE,
         "As stability_cosine, with the most similar live row of any level."),
        ("stability_cosine_any_chance", "any level by chance", None, "1", SHARE,
         "As stability_cosine_any, for random directions."),
        ("stability_live", "live latents found again", None, "1", SHARE,
         "Share of the live latents that another seed has too: a one-to-one match with a cosine of 0.7 or more."),
        ("stability_live_chance", "found again by chance", None, "1", SHARE,
         "As stability_live, for random directions. In few dimensions random directions match too."),
        ("stability_live_edges", "edges of found latents", None, "1", SHARE,
         "Of the edges whose two latents are live and found again, the share that the tree of another seed has too."),
        ("stability_live_edges_shuffled", "these edges by chance", None, "1", SHARE,
         "As stability_live_edges, but with the parents of one of the two trees shuffled."),
        ("stability", "edges found again", None, "1", SHARE,
         "Share of all edges, also those of dead latents, that the tree of another seed has too, mean over pairs of "
         "seeds."),
        ("stability_shuffled", "edges found by chance", None, "1", SHARE,
         "As stability, but with the parents of one of the two trees shuffled."),
        ("stability_latents", "latents found again", None, "1", SHARE,
         "As stability_live, but of all latents, also dead ones."),
    ),
    *_metrics(
        LENGTH,
        ("bits_per_token", "bits per token", False, "bits", POSITIVE,
         "Bits to encode which latents fire in a row, each latent with its own rate. Activations are not counted."),
        ("bits_per_token_tree", "bits with the tree", False, "bits", POSITIVE,
         "As bits_per_token, but the code of a child knows whether its parent in the dictionary's own tree fires."),
        ("bits_per_token_chow_liu", "bits with Chow–Liu tree", False, "bits", POSITIVE,
         "As bits_per_token_tree, with the tree that shortens the code most: Chow and Liu's, fitted on training "
         "rows."),
    ),
    *_metrics(
        TRUTH,
        ("mcc", "match with true features", True, "1", SHARE,
         "Mean cosine of latents and true features in the best one-to-one matching. Only for synthetic activations."),
        ("uniqueness", "different features", True, "1", SHARE,
         "How many different true features are nearest to some latent, over the number of latents."),
        ("precision", "precision of latents", True, "1", SHARE,
         "Of a latent's firings, the share at which its nearest true feature is on. Mean over all latents."),
        ("recall", "recall of latents", True, "1", SHARE,
         "Of the rows in which a latent's nearest true feature is on, the share at which the latent fires. Mean over "
         "all latents."),
        ("f1", "F1 of latents", True, "1", SHARE,
         "Harmonic mean of a latent's precision and recall as a detector of its nearest true feature. Mean over all "
         "latents."),
        ("edge_precision", "edges that are true", True, "1", SHARE,
         "Share of the tree's edges that match a true edge from parent to child."),
        ("edge_recall", "true edges found", True, "1", SHARE,
         "Share of the true edges within the dictionary's reach that the tree has."),
        ("edge_f1", "F1 of edges", True, "1", SHARE, "Harmonic mean of edge_precision and edge_recall."),
        ("ancestor_precision", "edges to true ancestors", True, "1", SHARE,
         "As edge_precision, but any true ancestor counts as a parent."),
        ("ancestor_recall", "true ancestors found", True, "1", SHARE,
         "As edge_recall, but any true ancestor counts as a parent."),
        ("ancestor_f1", "F1 of ancestors", True, "1", SHARE,
         "Harmonic mean of ancestor_precision and ancestor_recall."),
    ),
    *_metrics(
        PROBES,
        *((f"probe_f1_k{k}", f"probe F1, {k} latent{'s' * (k > 1)}", True, "1", SHARE,
           f"F1 of a probe for a concept that sees only its {k} best latent{'s' * (k > 1)}. Mean over concepts.")
          for k in _PROBE_LATENTS),
        ("probe_f1_reconstruction", "probe F1, reconstructed", True, "1", SHARE,
         "F1 of the probe that was fitted on the activations, applied to the reconstruction. Mean over concepts."),
        *((f"probe_accuracy_k{k}", f"accuracy, {k} latent{'s' * (k > 1)}", True, "1", SHARE,
           f"Balanced accuracy of a probe for a concept that sees only its {k} best latent{'s' * (k > 1)}; 0.5 is "
           "chance. Mean over concepts.")
          for k in _PROBE_LATENTS),
        ("probe_accuracy_reconstruction", "accuracy, reconstructed", True, "1", SHARE,
         "Balanced accuracy of the probe that was fitted on the activations, applied to the reconstruction."),
    ),
    *_metrics(
        CONCEPTS,
        ("concept_score", "concepts joined as edges", True, "1", (-1.0, 1.0),
         "Whether the tree joins the best latents for a concept and for its parent concept, weighted by how well "
         "these latents detect them. Mean over pairs of concepts."),
        ("concept_score_ancestors", "joined at any depth", True, "1", SHARE,
         "As concept_score, but the latent for a concept may lie anywhere below the latent for its parent concept. "
         "Compare it with concept_score_chance."),
        ("concept_score_chance", "joined by chance", None, "1", SHARE,
         "As concept_score_ancestors, but for wrong pairs: each concept with parents that it does not belong to. A "
         "tree that follows the concepts is above it."),
        ("detector_shared", "same latent for both", None, "1", SHARE,
         "Share of pairs whose parent and child have the same best latent. They count as not joined."),
        ("detector_phi_parents", "phi, parent concepts", True, "1", (-1.0, 1.0),
         "Correlation of a concept and the firing of its best latent, mean over concepts with others below them."),
        ("detector_phi_children", "phi, child concepts", True, "1", (-1.0, 1.0),
         "Correlation of a concept and the firing of its best latent, mean over concepts below others."),
        ("detector_depth", "level of the detectors", None, "levels", POSITIVE,
         "The level of the tree that holds the best latents for the concepts of one level, counted from 0."),
        ("splitting", "latents per concept", None, "latents", (1.0, inf),
         "Number of latents over which a concept is spread: each raises the F1 of its probe by more than 0.03."),
        ("absorption", "absorbed rows", None, "1", SHARE,
         "Share of a concept's detected rows in which its main latents are silent and another latent carries it."),
        ("absorption_fraction", "absorbed fraction", None, "1", SHARE,
         "How much of a concept's direction is carried by latents other than its main ones. Mean over its detected "
         "rows."),
    ),
    *_metrics(
        INTERVENTIONS,
        ("tpp", "targeted ablation", True, "1", (-2.0, 2.0),
         "Accuracy that a concept's probe loses when its 5 strongest latents are removed, minus the loss of the probes "
         "for other concepts."),
        ("tpp_level_0", "ablation, wide ones", None, "1", (-2.0, 2.0),
         "As tpp, only for concepts with other concepts below them."),
        ("tpp_level_1", "ablation, narrow ones", None, "1", (-2.0, 2.0),
         "As tpp, only for concepts below other concepts."),
        ("steering_parent", "steering by parents", True, "1", ANY,
         "How much adding a parent's direction raises the tokens that follow its firings, in nats per nat of damage."),
        ("steering_child", "steering by children", True, "1", ANY,
         "How much adding a child's direction raises the tokens that follow its firings, in nats per nat of damage."),
        ("steering_child_by_parent", "child's tokens by parent", None, "1", ANY,
         "Effect of the parent's direction on the tokens of its child. If it equals steering_child, the child steers "
         "no more precisely than its parent."),
    ),
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}
SECTIONS = tuple(dict.fromkeys(metric.section for metric in METRICS))
OF_EDGE = tuple(metric.name for metric in METRICS if metric.of_edge)


def base_name(name: str) -> str:
    """A name without its ending: ``l0`` for ``l0_level_1``, ``lift`` for ``lift_soft`` or ``lift_shuffled``."""
    return name if name in BY_NAME else re.sub(rf"(_level_\d+|{SOFT}|{CHOW_LIU}|{SHUFFLED})$", "", name)


def metric_of(name: str) -> Metric:
    """The metric of a figure; an ending for a level, for soft firing or for a control tree is ignored.

    Raises ``KeyError`` for an unknown name.
    """
    return BY_NAME[base_name(name)]


@dataclass(frozen=True)
class Term:
    """A figure as pages show it: its ``name`` in the report, its ``label`` in words, and its ``definition``."""

    name: str
    label: str
    definition: str


def term(name: str) -> Term:
    """The term of a figure; raises ``KeyError`` for an unknown name."""
    metric = metric_of(name)
    label = metric.label[0].upper() + metric.label[1:]  # capitalize() would make Kl of KL
    return Term(name, label + _condition(name), metric.definition)


def _condition(name: str) -> str:
    ending = name.removeprefix(metric_of(name).name)
    return f", {_ENDINGS.get(ending) or ending.removeprefix('_').replace('_', ' ')}" if ending else ""


def explain(name: str) -> str:
    """A few lines of text about a figure; raises ``KeyError`` for an unknown name."""
    metric = metric_of(name)
    better = {True: "more is better", False: "less is better", None: "neither more nor less is better"}[metric.better]
    unit = [] if metric.unit == "1" else [f"in {metric.unit}"]
    facts = ", ".join([better, *unit, *_range_in_words(*metric.range), f"section {metric.section}"])
    return f"{name}: {metric.label}{_condition(name)}\n{fill(metric.definition, 72)}\n({facts})"


def explained(name: str) -> tuple[dict[str, Any], str]:
    """A figure's definition as data and as text; for ``all``, the names and labels of all figures.

    A label may be given instead of a name. Raises ``UsageError`` for an unknown name.
    """
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


def _range_in_words(low: float, high: float) -> list[str]:
    if low > -inf and high < inf:
        return [f"from {low:g} to {high:g}"]
    return [f"{low:g} or more"] if low > -inf else [f"at most {high:g}"] if high < inf else []


def names_like(text: str) -> list[str]:
    """Names of metrics that resemble ``text``, best first; a label counts as a name."""
    from difflib import get_close_matches

    known = {metric.name: metric.name for metric in METRICS} | {metric.label: metric.name for metric in METRICS}
    near = get_close_matches(text.lower(), known, n=5, cutoff=0.5)
    inside = [name for key, name in known.items() if text.lower() in key]
    return list(dict.fromkeys([*(known[key] for key in near), *inside]))[:5]
