"""Every page of the dashboard as HTML, on demand: one renderer for the server and for the static folder.

The two differ in their links (``/feature/a1`` or ``#/feature/a1``) and in what needs a running program.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode

from markupsafe import Markup

from hiersae_cli.browse.family import TOGETHER
from hiersae_cli.browse.index import Index
from hiersae_cli.browse.model import Context, FeaturePage, Neighbour
from hiersae_cli.browse.tree_model import Overview, SearchHit, TokenSearch
from hiersae_cli.levels import Levels
from hiersae_cli.pages import cards, charts, evidence, scripts, text
from hiersae_cli.pages.environment import environment
from hiersae_cli.pages.families import Families
from hiersae_cli.pages.lists import ROWS, NodeList, level_name, node_lists
from hiersae_cli.pages.report_page import headlines

VERDICTS = {
    "kept": "one latent of the tree fires at more than half of its tokens, and mostly at them",
    "split": "several latents of the tree fire mostly at its tokens, and together at half of them or more",
    "absorbed": "a wider latent of the tree fires at more than half of its tokens",
    "none": "no latent of the tree matches it",
    "dead": "it fires in none of the indexed rows",
}
# Only our own scripts and styles, from the page's folder; a browser calls a folder on a disk ``file:``.
POLICY = (
    "default-src 'none'; script-src 'self'{file}; style-src 'self'{file}; img-src 'self'{file} data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'"
)
ASSETS = {
    "card.js": "text/javascript",
    "colours.js": "text/javascript",
    "dashboard.css": "text/css",
    "drawing.js": "text/javascript",
    "early.js": "text/javascript",
    "family.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "layout.js": "text/javascript",
    "list.js": "text/javascript",
    "map.js": "text/javascript",
    "page.js": "text/javascript",
    "text.js": "text/javascript",
    "theme.js": "text/javascript",
}


@dataclass(frozen=True)
class Page:
    """A page without its frame.

    Attributes:
        title: of the window.
        body: HTML.
        view: the entry of the navigation that it belongs to.
        status: of the HTTP answer.
    """

    title: str
    body: Markup
    view: str = "tree"
    status: int = 200


class Pages:
    """The pages of an index.

    Attributes:
        served: whether a program answers, so that labels can be edited and texts encoded.
        author: author of new labels, unless the form names another.
        token: secret that every form must send.

    Args:
        index: the answers.
        lines: makes the lines of a list of contexts; a folder has shorter ones than a server.
    """

    def __init__(
        self,
        index: Index,
        *,
        served: bool,
        author: str = "",
        token: str = "",
        lines: Callable[[Iterable[Context], float | None], Markup] = text.contexts,
    ):
        self.index = index
        self.served, self.author, self.token = served, author, token
        self.policy = POLICY.format(file="" if served else " file:")
        self._tree = index.overview()
        self._levels = Levels.of(self._tree.run["widths"])
        self._environment = environment()
        self._environment.globals.update(
            pages=self,
            contexts=lines,
            link=self.link,
            parent_sentence=evidence.parent_sentence,
            child_sentence=evidence.child_sentence,
            edge_words=evidence.edge_words,
            fewest=evidence.FEWEST,
            together=TOGETHER,
            level_name=level_name,
            verdicts=VERDICTS,
        )
        self._card_data: dict[int, str] = {}
        self._versions: dict[str, str] = {}

    def link(self, *path: object, **query: object) -> str:
        """The address of a page, such as ``link("feature", "a1")``."""
        address = "/" + "/".join(quote(str(part), safe="") for part in path)
        query_text = urlencode({name: value for name, value in query.items() if value})
        return ("" if self.served else "#") + address + (f"?{query_text}" if query_text else "")

    def asset(self, name: str) -> str:
        """The address of a style sheet, a script or a drawing. A server's has a version, unless the text may change."""
        if not self.served:
            return f"assets/{name}"
        version = self.version(name)
        return f"/assets/{name}?{version}" if version else f"/assets/{name}"

    def lasting(self, name: str) -> str:
        """What is at the address of an asset, if it stays the same while the pages are served; else empty."""
        return self.tree_data if name == "tree.js" else text.asset_text(name) if name in ASSETS else ""

    def version(self, name: str) -> str:
        """A digest of a lasting asset, with which browsers may keep it; empty for any other."""
        if name not in self._versions:
            content = self.lasting(name)
            self._versions[name] = hashlib.sha256(content.encode()).hexdigest()[:16] if content else ""
        return self._versions[name]

    @property
    def tree(self) -> Overview:
        """The overview with its current labels."""
        labels = {id: label.text for id, label in self.index.labels().items()}
        return replace(self._tree, label=[labels.get(id) for id in self._levels.ids])

    @cached_property
    def children(self) -> list[list[int]]:
        """The places of the children of every place in the tree, those that fire most first."""
        children: list[list[int]] = [[] for _ in self._levels.ids]
        for place, parent in enumerate(self._tree.parent):
            if parent >= 0:
                children[parent].append(place)
        for siblings in children:
            siblings.sort(key=lambda place: -self._tree.rate[place])
        return children

    @cached_property
    def groups(self) -> dict[str, NodeList]:
        """The lists below the map, by name."""
        return node_lists(self._tree)

    def nodes(self, places: list[int]) -> list[Neighbour]:
        """The nodes at some places of the tree."""
        tree, labels = self._tree, self.index.labels()
        nodes = []
        for place in places:
            label = labels.get(self._levels.ids[place])
            label_text = label.text if label else None
            nodes.append(Neighbour(self._levels.ids[place], label_text, tree.hint[place], tree.rate[place]))
        return nodes

    def label_and_hint(self, id: str) -> tuple[str | None, str]:
        """Label and hint of a node."""
        node = self.nodes([self._levels.latent(id)])[0]
        return node.label, node.hint

    @property
    def deepest(self) -> int:
        """The finest level."""
        return max(self._tree.level, default=0)

    def prepare(self) -> None:
        """Compute in advance what all visits share: a second or two for a tree of 100,000 features."""
        _ = self.groups, self.children, self.tree_data
        # The first page of a feature reads decoders and tokens, which takes a quarter of a second.
        self.feature(self._levels.ids[0])

    def overview(self) -> Page:
        """The map of the tree, next to a summary of the report."""
        return self._page("overview", self._tree.run["name"], "tree", headlines=headlines(self._tree.report))

    def last_page(self, name: str) -> int:
        """The number of the last page of a list, counted from 1; raises ``KeyError`` for an unknown list."""
        return max(1, -(-len(self.groups[name].places) // ROWS))

    def listing(self, name: str, page: int = 1) -> Page:
        """A page of a list of nodes; raises ``KeyError`` for an unknown list or page."""
        group, last = self.groups[name], self.last_page(name)
        if not 1 <= page <= last:
            raise KeyError(page)
        places = group.places[(page - 1) * ROWS : page * ROWS]
        parents = [self._tree.parent[place] for place in places]
        above = dict(zip(parents, self.nodes(parents), strict=True))
        rows = [
            {
                "place": place,
                "node": node,
                "parent": above[parent] if parent >= 0 else None,
                "children": len(self.children[place]),
            }
            for place, parent, node in zip(places, parents, self.nodes(places), strict=True)
        ]
        return self._page(
            "list",
            group.title,
            "tree",
            group=group,
            rows=rows,
            page=page,
            last=last,
            some_have_parents=any(self._tree.parent[place] >= 0 for place in group.places),
            some_have_children=any(self.children[place] for place in group.places),
        )

    def feature(self, id: str) -> Page:
        """Everything about a node; raises ``KeyError`` for an unknown id."""
        return self._feature(self.index.feature(id))

    def children_part(self, id: str, part: int) -> Page:
        """Contexts of a node's children, to be put into its page; raises ``KeyError`` if there are none."""
        children = self.index.child_contexts(id, part)
        if not children:
            raise KeyError(part)
        return self._page("children_part", id, "tree", children=children)

    def later_children(self, id: str) -> dict[str, Page]:
        """The parts that a folder's page of a node loads later, by address."""
        parts = range(1, -(-len(self.children[self._levels.latent(id)]) // TOGETHER))
        pages = {}
        for part in parts:
            with contextlib.suppress(KeyError):  # a page has not more children than it can show
                pages[f"feature/{id}/children/{part}"] = self.children_part(id, part)
        return pages

    def document_part(self, number: int, id: str = "", at: int = -1) -> Page:
        """A part of a document; raises ``KeyError`` if there is none.

        Args:
            id: the node whose activations are marked.
            at: place of a token, among the document's indexed tokens, that is framed.
        """
        passage = self.index.passage(number, id)
        most = max((value for _, _, values in passage.stretches for value in values), default=0.0)
        node = self.nodes([self._levels.latent(id)])[0] if id else None
        return self._page("document_part", passage.document, "tree", passage=passage, node=node, most=most, at=at)

    def compare(self, id: str) -> Page:
        """A node next to the nearest latents of the baseline; raises ``KeyError`` for an unknown id."""
        return self._compare(self.index.feature(id))

    def feature_and_compare(self, id: str) -> tuple[Page, Page]:
        """``feature`` and ``compare`` with a single question to the index, which takes the longest."""
        feature = self.index.feature(id)
        return self._feature(feature), self._compare(feature)

    def _feature(self, feature: FeaturePage) -> Page:
        id = feature.id
        place = self._levels.latent(id)
        around = [] if feature.parent is None else self.children[self._levels.latent(feature.parent.id)]
        if feature.parent is None:
            around = self.groups["root-children" if self._tree.root_child[place] else f"level-{feature.level}"].places
        at = around.index(place) if place in around else 0
        neighbours = {
            "previous": self._levels.ids[around[at - 1]] if at > 0 else None,
            "next": self._levels.ids[around[at + 1]] if at + 1 < len(around) else None,
            "below": self._levels.ids[self.children[place][0]] if self.children[place] else None,
        }
        figure = Markup(self.picture(id)) if self.children[place] else None
        title = f"{id} {name_of(feature)}"
        return self._page("feature", title, "tree", feature=feature, neighbours=neighbours, figure=figure, place=place)

    def picture(self, id: str) -> str:
        """The figure of a node and everything below it, as SVG; raises ``KeyError`` for an unknown id."""
        return charts.subtree(self.tree, self._levels.latent(id))

    def fates(self, verdict: str = "") -> Page:
        """What became of the baseline's latents; raises ``KeyError`` for an unknown verdict."""
        if verdict and verdict not in VERDICTS:
            raise KeyError(verdict)
        chosen = verdict or next((name for name in VERDICTS if self._tree.fates.get(name)), "kept")
        latents = self.index.fates(chosen) if self._tree.baseline else []
        return self._page("fates", "Baseline", "baseline", chosen=chosen, latents=latents)

    def baseline(self, latent: int) -> Page:
        """A latent of the baseline; raises ``KeyError`` for an unknown number."""
        page = self.index.baseline(latent)
        return self._page("baseline", f"{self._tree.baseline} {latent}", "baseline", page=page)

    def search(self, query: str = "", by: str = "") -> Page:
        """The form and the hits; without a query, or in a folder, only the form."""
        by = by if by in ("token", "label") else ""
        named: list[SearchHit] = []
        firing: TokenSearch | None = None
        if query and self.served:
            if by != "token":
                named = self.index.search_label(query, 50 if by else 8)
            if by != "label":
                firing = self.index.search_token(query)
        return self._page("search", "Search", "search", query=query, by=by, named=named, firing=firing)

    def text(self, typed: str = "") -> Page:
        """The form and what fires on the text, or on an example if there is none."""
        can_type = self.served and self._tree.can_encode
        is_typed = bool(typed.strip()) and can_type
        codes = self.index.encode_text(typed) if is_typed else self.index.example()
        families = Families(codes, self._levels, self._tree.parent) if codes else None
        shown = typed if is_typed else "".join(codes.tokens) if codes else ""
        title = "What fires on a text"
        return self._page("text", title, "text", typed=shown, is_typed=is_typed, can_type=can_type, families=families)

    def report(self) -> Page:
        """Every table of the report."""
        report = self._tree.report
        return self._page("report", "Report", "report", report=report, headlines=headlines(report))

    def message(self, title: str, explanation: str, status: int = 404) -> Page:
        """A page that says what went wrong and what to do."""
        body = self._environment.get_template("message.html.jinja").render(
            title=title, explanation=explanation, status=status
        )
        return Page(title, Markup(body), "", status)

    def document(self, page: Page) -> str:
        """A page in its frame: a whole HTML document."""
        return self._environment.get_template("document.html.jinja").render(page=page, tree_name=self._tree.run["name"])

    @cached_property
    def tree_data(self) -> str:
        """The script with the tree for the map. Labels change, so they are in ``label_data``."""
        return scripts.tree(self._tree, self._levels.widths, self.card_order)

    @cached_property
    def card_order(self) -> list[int]:
        """The number of every place in the files of contexts."""
        return cards.order(self._tree.parent, self._tree.rate)

    @property
    def card_files(self) -> int:
        """The number of files of contexts."""
        return -(-len(self.card_order) // cards.CARDS)

    def card_data(self, file: int) -> str:
        """The script with the contexts of some nodes, by place; raises ``KeyError`` for an unknown file."""
        if not 0 <= file < self.card_files:
            raise KeyError(file)
        if file not in self._card_data:
            numbers = range(file * cards.CARDS, (file + 1) * cards.CARDS)
            places = [place for place, number in enumerate(self.card_order) if number in numbers]
            contexts = {place: cards.contexts(self.index, place) for place in places}
            self._card_data[file] = scripts.script("cards", contexts, merge=True)
        return self._card_data[file]

    def label_data(self) -> str:
        """The script with the labels for the map, by place."""
        labels = {self._levels.latent(id): text.one_line(label.text) for id, label in self.index.labels().items()}
        return scripts.script("labels", labels)

    def token_data(self) -> str:
        """The script for searching a folder, by token: its occurrences, then a node's place, recall and precision."""

        def per_mille(share: float | None) -> int:
            return round(1000 * (share or 0))

        table = {}
        for token, answer in self.index.token_table().items():
            hits = [(self._levels.latent(hit.node.id), hit.recall, hit.precision) for hit in answer.hits]
            flat = [part for place, *shares in hits for part in (place, *map(per_mille, shares))]
            if flat:
                table[token] = [answer.occurrences, *flat]
        return scripts.script("tokens", table)

    def _compare(self, feature: FeaturePage) -> Page:
        return self._page("compare", f"{feature.id} and {self._tree.baseline}", "baseline", feature=feature)

    def _page(self, template: str, title: str, view: str, **values: Any) -> Page:
        body = self._environment.get_template(f"{template}.html.jinja").render(tree=self._tree, **values)
        return Page(text.one_line(title), Markup(body), view)


def name_of(feature: FeaturePage) -> str:
    """The label of a feature, or else its hint."""
    return feature.label.text if feature.label else feature.hint
