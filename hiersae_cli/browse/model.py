"""What pages show: plain values, no arrays and no HTML, so that a server, a static folder and a test read the same.

Nodes go by their id in ``tree.json``, such as ``b480``; latents of the baseline by their number. Texts (tokens,
labels, names of documents) are as they stand in the corpus or were typed: whoever shows them escapes them. A number
that is not defined is None. Rates and contexts are of all rows indexed, evidence for edges of held-out rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hiersae_cli.formats.labels import Label as Label  # as they are in the run's file


@dataclass(frozen=True)
class Context:
    """Some neighbouring tokens of one window, with a latent's activation at each.

    Attributes:
        tokens: their texts, or their ids in brackets (``[17]``) where no host model was given.
        activations: one for each token; 0 where the latent does not fire.
        focus: which of the tokens the context was chosen for.
        document: name of the document.
        position: of the focus within its window, counted from 0.
        row: of the focus in the cache, all caches numbered through.
        held_out: whether the row is held out.
    """

    tokens: list[str]
    activations: list[float]
    focus: int
    document: str
    position: int
    row: int
    held_out: bool

    @property
    def activation(self) -> float:
        """The activation at the focus."""
        return self.activations[self.focus]


@dataclass(frozen=True)
class Neighbour:
    """Another latent of the same dictionary.

    Attributes:
        id: the node.
        label: its label, or None.
        hint: its name where it has no label: a few tokens that it fires at.
        rate: share of the rows in which it fires.
        cosine: of the two decoder rows.
    """

    id: str
    label: str | None
    hint: str
    rate: float
    cosine: float | None = None


@dataclass(frozen=True)
class Token:
    """A token with a number that belongs to it: a logit, or a share of activation."""

    text: str
    value: float


@dataclass(frozen=True)
class Decile:
    """A tenth of a latent's firings, by activation.

    Attributes:
        low, high: least and greatest activation of the tenth.
        count: firings in it.
        contexts: a few, drawn at random by the index's seed.
    """

    low: float
    high: float
    count: int
    contexts: list[Context]


@dataclass(frozen=True)
class Histogram:
    """How many firings have an activation in each bin; ``edges`` is one longer than ``counts``."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Edge:
    """What says that a child belongs to a parent, of held-out rows; see ``metrics.tree``.

    Attributes:
        parent, child: their nodes.
        n_rows, n_parent, n_child, n_both: rows measured, and rows in which they fire.
        mi_bits: mutual information, bias-corrected.
        max_mi_bits: its bound: what it would be if the rarer fired only where the other does.
        mi_over_max: the two's ratio.
        p_parent_given_child, p_child_given_parent, lift: as ``tree.json`` has them.
        soft: whether the figures are of the soft firing of a hardened tree; its hard firing decides them beforehand.
    """

    parent: str
    child: str
    n_rows: int
    n_parent: int
    n_child: int
    n_both: int
    mi_bits: float | None
    max_mi_bits: float | None
    mi_over_max: float | None
    p_parent_given_child: float | None
    p_child_given_parent: float | None
    lift: float | None
    soft: bool

    @property
    def apart(self) -> bool:
        """Whether the two fire together less often than latents that have nothing to do with each other."""
        return self.n_both * self.n_rows < self.n_parent * self.n_child


@dataclass(frozen=True)
class ChildPart:
    """A child as a part of its parent's firing, of all rows indexed.

    Attributes:
        node: the child.
        share: of the parent's firings, those at which the child fires too.
        overlap: of these, those at which a sibling fires as well; None where there are none.
        outside: of the child's firings, those without the parent; None for a dead child.
        mi_over_max: of the edge, or None.
        contexts: its strongest.
    """

    node: Neighbour
    share: float
    overlap: float | None
    outside: float | None
    mi_over_max: float | None
    contexts: list[Context]


@dataclass(frozen=True)
class ParentView:
    """How the children of a parent divide its firing.

    Attributes:
        children: the largest share first.
        alone: share of the parent's firings at which no child fires.
        alone_contexts: its strongest contexts where no child fires.
        children_left_out: children beyond those listed.
    """

    children: list[ChildPart]
    alone: float | None
    alone_contexts: list[Context]
    children_left_out: int = 0


@dataclass(frozen=True)
class ChildView:
    """Why a node hangs where it does.

    Attributes:
        edge: evidence for its edge; None for a root child.
        with_parent, without_parent: its strongest contexts where its parent fires too, and where not.
        siblings: the other children of its parent, those of the most similar decoder row first.
        next_best: what its edge would be to other latents of the level above, the most informative first.
    """

    edge: Edge | None
    with_parent: list[Context]
    without_parent: list[Context]
    siblings: list[Neighbour]
    next_best: list[Edge]


@dataclass(frozen=True)
class BaselineMatch:
    """A latent of the flat baseline beside one of ours, on the same rows.

    Attributes:
        latent: its number in the baseline.
        cosine: of the two decoder rows.
        both: rows in which both fire.
        ours_in_theirs: of our latent's firings, those at which it fires too; None where ours is dead.
        theirs_in_ours: of its firings, those at which ours fires too; None where it is dead.
        fate: what became of it in our dictionary.
        contexts: its strongest.
    """

    latent: int
    cosine: float
    both: int
    ours_in_theirs: float | None
    theirs_in_ours: float | None
    fate: Fate
    contexts: list[Context]


@dataclass(frozen=True)
class Fate:
    """What became of a latent of the baseline in our dictionary.

    Attributes:
        verdict: ``kept`` (one of ours fires at the same tokens), ``split`` (several of ours lie within it and divide
            it), ``absorbed`` (it lies within a wider one of ours), ``none`` (neither) or ``dead``.
        latent: its number.
        parts: ours that fire most with it, the largest share first.
        covered: share of its firings at which one of the parts that the verdict rests on fires.
    """

    verdict: str
    latent: int
    parts: list[FatePart]
    covered: float | None


@dataclass(frozen=True)
class FatePart:
    """One of ours that fires with a latent of the baseline.

    Attributes:
        node: ours.
        share: of the baseline latent's firings, those at which ours fires too.
        within: of our latent's firings, those at which the baseline's fires too.
        counted: whether the verdict rests on it.
    """

    node: Neighbour
    share: float
    within: float
    counted: bool


@dataclass(frozen=True)
class BaselinePage:
    """A latent of the baseline.

    Attributes:
        latent: its number.
        rate: share of the rows in which it fires.
        fate: what became of it.
        contexts: its strongest.
        nearest: ours with the most similar decoder rows.
        promoted, suppressed: tokens, if a host model was given.
    """

    latent: int
    rate: float
    fate: Fate
    contexts: list[Context]
    nearest: list[Neighbour]
    promoted: list[Token] = field(default_factory=list)
    suppressed: list[Token] = field(default_factory=list)


@dataclass(frozen=True)
class FeaturePage:
    """All that is shown of one node.

    Attributes:
        id, level, latent: the node.
        parent: its parent, or None.
        ancestors: from the root down to its parent.
        label: its label, or None.
        label_history: earlier labels, the latest first.
        hint: its name where it has no label: a few tokens that it fires at.
        rate: share of all rows indexed in which it fires; ``firings`` of ``rows``.
        max_activation, mean_activation: over its firings; None where it is dead.
        fvu_increase: how much larger FVU becomes if the latent is taken out of every code; None where not measured.
        dead: whether it fires in no row indexed.
        histogram: of its activations; None where it is dead.
        top: its strongest contexts, one of a window.
        deciles: tenths of its firings by activation, the strongest first.
        tokens: those that tell what it fires at, the most telling first; ``value`` is the share of its activation.
        promoted, suppressed: logit lens: tokens and what it adds to their logits; empty without a host model.
        nearest: latents with the most similar decoder rows, the most similar first.
        as_parent: where it has children.
        as_child: where it is not of the coarsest level.
        baseline: latents of the baseline with the most similar decoder rows or the most common firing.
    """

    id: str
    level: int
    latent: int
    parent: Neighbour | None
    ancestors: list[Neighbour]
    label: Label | None
    label_history: list[Label]
    hint: str
    rows: int
    firings: int
    rate: float
    max_activation: float | None
    mean_activation: float | None
    fvu_increase: float | None
    dead: bool
    histogram: Histogram | None
    top: list[Context]
    deciles: list[Decile]
    tokens: list[Token]
    promoted: list[Token]
    suppressed: list[Token]
    nearest: list[Neighbour]
    as_parent: ParentView | None
    as_child: ChildView | None
    baseline: list[BaselineMatch]


@dataclass(frozen=True)
class ReportSummary:
    """A ``report.json`` as its tables: see ``formats.report_tables``.

    Attributes:
        title: what was measured.
        doubts: what makes the comparison doubtful.
        tables: (title, columns, rows of texts); a row of one cell is the heading of those below it.
        notes: how the tables are to be read.
        rows: the held-out rows measured.
    """

    title: str
    doubts: list[str]
    tables: list[tuple[str, list[str], list[list[str]]]]
    notes: list[str]
    rows: int


@dataclass(frozen=True)
class Overview:
    """The whole tree in columns, one entry a node, ordered by level, then latent: parents before children.

    Attributes:
        level, latent: of each node; its id is made of them.
        parent: place of its parent in these columns, or -1.
        label: or None.
        hint: its name where it has no label.
        rate: share of the rows in which it fires.
        mi_bits, max_mi_bits, mi_over_max: of the edge to its parent; None for roots and where undefined.
        fvu_increase: how much larger FVU becomes without it, or None.
        dead: whether it fires in no row indexed.
        root_child: whether it has no parent though it is not of the coarsest level.
        run: summary of the run: ``name``, ``arch``, ``module``, ``width``, ``widths``, ``hard``.
        host: name of the host model.
        baseline: name of the baseline's run, or None.
        rows, held_out_rows: rows indexed.
        documents: documents that they are of.
        tokens_are_text: whether a host model was given, so that tokens are texts and there is a logit lens.
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
    """A feature that a search found, best first.

    Attributes:
        node: the feature.
        score: 0 to 1; of a search by token F1 of the feature as a detector of it, of one by label how well it fits.
        recall: of the token's (or text's) occurrences, those at which it fires; None in a search by label.
        precision: of its firings, those at the token; None in a search by label.
    """

    node: Neighbour
    score: float
    recall: float | None = None
    precision: float | None = None


@dataclass(frozen=True)
class TokenSearch:
    """Answer to a search by token.

    Attributes:
        query: what was searched.
        occurrences: how often it stands in the rows indexed (a text may span several tokens).
        hits: features that fire at it.
    """

    query: str
    occurrences: int
    hits: list[SearchHit]


@dataclass(frozen=True)
class TextCodes:
    """What fires on a text.

    Attributes:
        tokens: texts of its tokens.
        active: for each token the nodes that fire, coarse before fine and the strongest of a level first, with their
            activations.
        nodes: every node that fires anywhere, by id, the one with the largest sum of activations first.
        cut: how many tokens at the end were left out because the host's context is shorter; 0 where none.
    """

    tokens: list[str]
    active: list[list[tuple[str, float]]]
    nodes: dict[str, Neighbour]
    cut: int = 0
