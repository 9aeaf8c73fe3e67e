"""What the overview, searches and the text page show, as plain values. The feature's own page is in ``model.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hiersae_cli.browse.model import Neighbour


@dataclass(frozen=True)
class ReportSummary:
    """The tables of a ``report.json``, see ``render.report_tables``.

    Attributes:
        title: what was measured.
        doubts: what makes the comparison doubtful.
        tables: (title, columns, rows of texts); a row with one cell is a heading for the rows below it.
        notes: how to read the tables.
        rows: number of held-out rows measured.
    """

    title: str
    doubts: list[str]
    tables: list[tuple[str, list[str], list[list[str]]]]
    notes: list[str]
    rows: int


@dataclass(frozen=True)
class Overview:
    """The whole tree in columns, one entry per node, ordered by level, then latent: parents before children.

    Attributes:
        level, latent: of each node; they make its id.
        parent: place of its parent in these columns, or -1.
        label: or None.
        hint: its name if it has no label.
        rate: share of the rows in which it fires.
        mi_bits, max_mi_bits, mi_over_max, lift, p_parent_given_child: of the edge to its parent; None for roots and if
            undefined.
        share, overlap, alone: see ``browse.division``; None if undefined.
        fvu_increase: how much FVU grows without it, or None.
        dead: whether it fires in no indexed row.
        root_child: whether it has no parent although it is not on the coarsest level.
        run: summary of the run: ``name``, ``arch``, ``module``, ``width``, ``widths``, ``hard``.
        host: name of the host model.
        baseline: name of the baseline's run, or None.
        rows, held_out_rows: number of indexed rows, and of those that are held out.
        documents: number of documents that the rows come from.
        tokens_are_text: whether there is a host model, so that tokens are texts and the logit lens works.
        can_encode: whether ``Index.encode_text`` works here.
        fates: number of the baseline's latents by verdict; empty without a baseline.
        report: the report, if one was given.
        warnings: what makes the activations doubtful.
    """

    level: list[int]
    latent: list[int]
    parent: list[int]
    label: list[str | None]
    hint: list[str]
    rate: list[float]
    mi_bits: list[float | None]
    max_mi_bits: list[float | None]
    mi_over_max: list[float | None]
    lift: list[float | None]
    p_parent_given_child: list[float | None]
    share: list[float | None]
    overlap: list[float | None]
    alone: list[float | None]
    fvu_increase: list[float | None]
    dead: list[bool]
    root_child: list[bool]
    run: dict[str, Any]
    host: str
    baseline: str | None
    rows: int
    held_out_rows: int
    documents: int
    tokens_are_text: bool
    can_encode: bool
    fates: dict[str, int]
    report: ReportSummary | None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SearchHit:
    """A feature that a search found.

    Attributes:
        node: the feature.
        score: 0 to 1; in a search by token, F1 of the feature as a detector of it; by label, how well the label fits.
        recall: share of the token's (or text's) occurrences at which it fires; None in a search by label.
        precision: share of its firings at the token; None in a search by label.
    """

    node: Neighbour
    score: float
    recall: float | None = None
    precision: float | None = None


@dataclass(frozen=True)
class TokenSearch:
    """The answer to a search by token.

    Attributes:
        query: the text searched for.
        occurrences: how often it occurs in the indexed rows (a text may span several tokens).
        hits: features that fire at it, the best first.
    """

    query: str
    occurrences: int
    hits: list[SearchHit]


@dataclass(frozen=True)
class TextCodes:
    """What fires on a text.

    Attributes:
        tokens: texts of its tokens.
        active: for each token the nodes that fire, with their activations: coarse levels before fine ones, and the
            strongest node of a level first.
        nodes: every node that fires anywhere, and every node above it, by id, sorted by its summed activation, largest
            first.
        cut: how many tokens at the end were left out because the text is longer than the host's context.
        most: the strongest activation of each of these nodes in the indexed rows; 0 for a dead node.
        unmeasured: how many tokens at the beginning are at positions that the cache leaves out, so that the dictionary
            has not learned them.
    """

    tokens: list[str]
    active: list[list[tuple[str, float]]]
    nodes: dict[str, Neighbour]
    cut: int = 0
    most: dict[str, float] = field(default_factory=dict)
    unmeasured: int = 0
