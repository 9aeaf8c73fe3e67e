"""What the page of a feature shows: plain values, no arrays and no HTML, so that every reader gets the same.

A node is named by its id in ``tree.json``, such as ``b480``, a latent of the baseline by its number. Texts (tokens,
labels, names of documents) are as in the corpus or as typed: whoever shows them escapes them. An undefined number is
None. Rates and contexts come from all indexed rows, evidence for edges only from held-out rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hiersae_cli.formats.labels import Label as Label  # as in the run's file


@dataclass(frozen=True)
class Context:
    """Consecutive tokens of one window, with a latent's activation at each.

    Attributes:
        tokens: their texts, or their ids in brackets (``[17]``) without a host model.
        activations: one for each token; 0 where the latent does not fire.
        focus: place of the token that the context was chosen for.
        document: name of the document.
        position: of the focus within its window, counted from 0.
        row: of the focus, numbered through all caches.
        held_out: whether the row is held out.
        source: number of the ``Passage`` with the focus, and the place of the focus among its document's tokens.
    """

    tokens: list[str]
    activations: list[float]
    focus: int
    document: str
    position: int
    row: int
    held_out: bool
    source: tuple[int, int] = (0, 0)

    @property
    def activation(self) -> float:
        """The activation at the focus."""
        return self.activations[self.focus]

    @property
    def starts_window(self) -> bool:
        """Whether its first token is the first that the host model saw."""
        return self.position == self.focus


@dataclass(frozen=True)
class Passage:
    """A part of a document, as far as it is indexed.

    Attributes:
        number: of the passage, counted through all documents.
        document: name of the document.
        part, parts: which part of the document this is, counted from 0, and of how many.
        stretches: consecutive tokens without a gap: the place of the first among the document's indexed tokens, the
            texts, and a latent's activation at each.
    """

    number: int
    document: str
    part: int
    parts: int
    stretches: list[tuple[int, list[str], list[float]]]


@dataclass(frozen=True)
class Neighbour:
    """Another latent of the same dictionary.

    Attributes:
        id: the node.
        label: its label, or None.
        hint: its name if it has no label: a few tokens at which it fires.
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
    """One tenth of a latent's firings, sorted by activation.

    Attributes:
        low, high: smallest and largest activation in the tenth.
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


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """How often a parent and its child, or all its children, fire together in held-out rows.

    Attributes:
        n_rows, n_parent: rows measured, and those in which the parent fires.
        n_child, n_both: firings of the child or the children, and those of them at which the parent fires.
        soft: whether the figures come from the soft firing of a hardened tree, whose hard firing follows from the tree.
    """

    n_rows: int
    n_parent: int
    n_child: int
    n_both: int
    soft: bool

    @property
    def inside(self) -> float | None:
        """Share of the child's firings at which the parent fires; None if it never fires."""
        return self.n_both / self.n_child if self.n_child else None

    @property
    def by_chance(self) -> float:
        """What ``inside`` would be if the two were independent: the parent's firing rate."""
        return self.n_parent / max(self.n_rows, 1)

    @property
    def times(self) -> float | None:
        """``inside`` over ``by_chance``; None if undefined."""
        return self.inside / self.by_chance if self.n_parent and self.inside is not None else None


@dataclass(frozen=True, kw_only=True)
class Edge(Evidence):
    """The evidence that a child belongs to a parent, from held-out rows; see ``metrics.tree``.

    Attributes:
        parent, child: their nodes.
        mi_bits: mutual information, bias-corrected.
        max_mi_bits: its bound: the value if the rarer latent fired only where the other does.
        mi_over_max: ``mi_bits`` over ``max_mi_bits``.
        p_parent_given_child, p_child_given_parent, lift: as ``tree.json`` has them.
    """

    parent: str
    child: str
    mi_bits: float | None
    max_mi_bits: float | None
    mi_over_max: float | None
    p_parent_given_child: float | None
    p_child_given_parent: float | None
    lift: float | None

    @property
    def apart(self) -> bool:
        """Whether the two fire together less often than independent latents would."""
        return self.n_both * self.n_rows < self.n_parent * self.n_child


@dataclass(frozen=True)
class ChildPart:
    """A child as a part of its parent's firing.

    Attributes:
        node: the child.
        share: share of the parent's firings at which the child fires too, over all indexed rows.
        overlap: share of these at which a sibling fires as well; None if there are none.
        edge: evidence for its edge.
        contexts: its strongest contexts; empty for a child whose contexts ``Index.child_contexts`` has.
    """

    node: Neighbour
    share: float
    overlap: float | None
    edge: Edge
    contexts: list[Context]


@dataclass(frozen=True)
class ParentView:
    """How the children of a parent divide its firing.

    Attributes:
        children: sorted by share, largest first.
        together: evidence for all edges: their firings added up.
        alone: share of the parent's firings at which no child fires.
        alone_contexts: its strongest contexts where no child fires.
        child_contexts: its strongest contexts where a child fires.
        children_left_out: number of children that are not listed.
    """

    children: list[ChildPart]
    together: Evidence
    alone: float | None
    alone_contexts: list[Context]
    child_contexts: list[Context]
    children_left_out: int = 0


@dataclass(frozen=True)
class ChildView:
    """Why a node has its parent.

    Attributes:
        edge: evidence for its edge; None for a root child.
        with_parent, without_parent: its strongest contexts in which its parent fires too, and in which it does not.
        siblings: the other children of its parent, sorted by similarity of the decoder row, most similar first.
        next_best: the edges that it would have to other latents of the level above, the most informative first.
    """

    edge: Edge | None
    with_parent: list[Context]
    without_parent: list[Context]
    siblings: list[Neighbour]
    next_best: list[Edge]


@dataclass(frozen=True)
class BaselineMatch:
    """A latent of the flat baseline compared with one of ours, on the same rows.

    Attributes:
        latent: its number in the baseline.
        cosine: of the two decoder rows.
        both: rows in which both fire.
        ours_in_theirs: share of our latent's firings at which the baseline's fires too; None if ours is dead.
        theirs_in_ours: share of the baseline latent's firings at which ours fires too; None if it is dead.
        fate: what became of it in our dictionary.
        contexts: its strongest contexts.
    """

    latent: int
    cosine: float
    both: int
    ours_in_theirs: float | None
    theirs_in_ours: float | None
    fate: BaselineFate
    contexts: list[Context]


@dataclass(frozen=True)
class BaselineFate:
    """What became of a latent of the baseline in our dictionary.

    Attributes:
        verdict: ``kept`` (one of ours fires at the same tokens), ``split`` (several of ours lie within it and divide
            it), ``absorbed`` (it lies within a wider one of ours), ``none`` (none of these) or ``dead``.
        latent: its number.
        parts: our latents that fire most with it; those that the verdict rests on first, then by share x within.
        covered: share of its firings at which a part that the verdict rests on fires.
    """

    verdict: str
    latent: int
    parts: list[FatePart]
    covered: float | None


@dataclass(frozen=True)
class FatePart:
    """A latent of ours that fires with a latent of the baseline.

    Attributes:
        node: our latent.
        share: share of the baseline latent's firings at which ours fires too.
        within: share of our latent's firings at which the baseline's fires too.
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
        contexts: its strongest contexts.
        nearest: our latents with the most similar decoder rows.
        promoted, suppressed: tokens, if a host model was given.
    """

    latent: int
    rate: float
    fate: BaselineFate
    contexts: list[Context]
    nearest: list[Neighbour]
    promoted: list[Token] = field(default_factory=list)
    suppressed: list[Token] = field(default_factory=list)


@dataclass(frozen=True)
class FeaturePage:
    """Everything that is shown about one node.

    Attributes:
        id, level, latent: the node.
        parent: its parent, or None.
        ancestors: from the root down to its parent.
        label: its label, or None.
        label_history: earlier labels, the latest first.
        hint: its name if it has no label: a few tokens at which it fires.
        rate: share of all indexed rows in which it fires: ``firings`` over ``rows``.
        max_activation, mean_activation: over its firings; None if it is dead.
        fvu_increase: how much FVU grows if the latent is removed from every code; None if not measured.
        dead: whether it fires in no indexed row.
        histogram: of its activations; None if it is dead.
        top: its strongest contexts, at most one from a window.
        deciles: tenths of its firings by activation, the strongest first.
        tokens: its most characteristic tokens, the best first; ``value`` is the share of its activation.
        promoted, suppressed: logit lens: tokens and what it adds to their logits; empty without a host model.
        nearest: latents with the most similar decoder rows, the most similar first.
        as_parent: None if it has no children.
        as_child: None for the coarsest level.
        baseline: latents of the baseline with the most similar decoder rows or the most firings in common.
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
