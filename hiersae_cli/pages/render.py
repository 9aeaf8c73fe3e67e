"""Every page of the dashboard as HTML, on demand: one renderer for the server and for the static folder.

The two differ in where links lead (``/feature/a1`` or ``#/feature/a1``) and in what needs the program running.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hiersae_cli.browse.index import Index
from hiersae_cli.browse.model import FeaturePage, Neighbour, Overview
from hiersae_cli.layout import split_interval
from hiersae_cli.levels import Levels, parse_id
from hiersae_cli.metrics.catalogue import BY_NAME
from hiersae_cli.pages import charts, text
from hiersae_cli.version import __version__

ROWS = 100  # of a page of a list
VERDICTS = {
    "kept": "one latent of the tree fires at the same tokens",
    "split": "several latents of the tree lie within it and divide it",
    "absorbed": "it lies within a wider latent of the tree",
    "none": "no latent of the tree answers to it",
    "dead": "it fires in none of the rows indexed",
}
# What stands beside the map, by its name in the report; everything else is in the tables below.
# No script and no style but ours, from beside the page; ``file:`` is what a folder on disk is to a browser.
POLICY = (
    "default-src 'none'; script-src 'self'{file}; style-src 'self'{file}; img-src 'self'{file} data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'"
)
HEADLINES = (
    "fvu",
    "l0",
    "dead",
    "ce_recovered",
    "kl",
    "mi_bits",
    "mi_over_max",
    "p_parent_given_child",
    "lift",
    "bits_per_token",
)


ASSETS = {
    "dashboard.css": "text/css",
    "drawing.js": "text/javascript",
    "early.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "layout.js": "text/javascript",
    "map.js": "text/javascript",
    "page.js": "text/javascript",
    "theme.js": "text/javascript",
}


def asset_text(name: str) -> str:
    """A style sheet, a script or a drawing."""
    return (files("hiersae_cli.pages") / "assets" / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Page:
    """A page without its frame.

    Attributes:
        title: for the window.
        body: HTML.
        view: which entry of the navigation it belongs to.
        status: of an answer by HTTP.
    """

    title: str
    body: Markup
    view: str = "tree"
    status: int = 200


@dataclass(frozen=True)
class Group:
    """A list of nodes: those of a level, those without a parent, those that never fire."""

    name: str
    title: str
    says: str
    places: list[int]


class Pages:
    """The pages of an index.

    Attributes:
        served: whether a program answers, so that labels can be edited and texts encoded.
        author: who labels, unless the page says otherwise.
        token: what a form that changes something must carry.
    """

    def __init__(self, index: Index, *, served: bool, author: str = "", token: str = ""):
        self.index = index
        self.served, self.author, self.token = served, author, token
        self.policy = POLICY.format(file="" if served else " file:")
        self._tree = index.overview()
        self._levels = Levels.of(self._tree.run["widths"])
        environment = Environment(
            loader=PackageLoader("hiersae_cli.pages", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(
            count=lambda number: f"{number:,}",
            percent=text.percent,
            number=text.number,
            running=text.running,
            shown=text.shown,
            token=text.token,
            value=text.value,
            level=lambda id: parse_id(id)[0],
        )
        environment.globals.update(
            pages=self,
            link=self.link,
            step=text.step,
            contexts=text.contexts,
            level_name=level_name,
            histogram=charts.histogram,
            verdicts=VERDICTS,
            version=__version__,
        )
        self._environment = environment

    def link(self, *path: object, **query: object) -> str:
        """The address of a page, such as ``link("feature", "a1")``."""
        address = "/" + "/".join(quote(str(part), safe="") for part in path)
        asked = urlencode({name: value for name, value in query.items() if value})
        return ("" if self.served else "#") + address + (f"?{asked}" if asked else "")

    def asset(self, name: str) -> str:
        """The address of a style sheet, a script or a drawing."""
        return ("/" if self.served else "") + f"assets/{name}"

    @property
    def tree(self) -> Overview:
        """The overview with the labels of this moment."""
        labels = {id: label.text for id, label in self.index.labels().items()}
        return replace(self._tree, label=[labels.get(id) for id in self._levels.ids])

    @cached_property
    def children(self) -> list[list[int]]:
        """For every place in the tree the places of its children, those that fire most first."""
        found: list[list[int]] = [[] for _ in self._levels.ids]
        for place, parent in enumerate(self._tree.parent):
            if parent >= 0:
                found[parent].append(place)
        for one in found:
            one.sort(key=lambda place: -self._tree.rate[place])
        return found

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The lists below the map; each has all its nodes, those that fire most first."""
        tree, deepest = self._tree, self.deepest

        def group(name: str, title: str, says: str, chosen: list[bool]) -> Group:
            places = [place for place, fits in enumerate(chosen) if fits]
            return Group(name, title, says, sorted(places, key=lambda place: -tree.rate[place]))

        listed = []
        for level in range(deepest + 1):
            title = level_name(level, deepest, 2).capitalize()
            listed.append(
                group(f"level-{level}", title, "Those that fire most first.", [one == level for one in tree.level])
            )
        if deepest:
            says = "Their best parent tells too little about them: no parent is a legal answer."
            listed.append(group("root-children", "Root children", says, tree.root_child))
        listed.append(group("dead", f"Dead in {tree.rows:,} rows", "They fire in none of the rows indexed.", tree.dead))
        return {one.name: one for one in listed}

    def nodes(self, places: list[int]) -> list[Neighbour]:
        """Nodes of the tree by their places."""
        tree, labels = self._tree, self.index.labels()
        found = []
        for place in places:
            label = labels.get(self._levels.ids[place])
            text_ = label.text if label else None
            found.append(Neighbour(self._levels.ids[place], text_, tree.hint[place], tree.rate[place]))
        return found

    def called(self, id: str) -> tuple[str | None, str]:
        """Label and hint of a node."""
        node = self.nodes([self._levels.latent(id)])[0]
        return node.label, node.hint

    @property
    def deepest(self) -> int:
        """The finest level."""
        return max(self._tree.level, default=0)

    def prepare(self) -> None:
        """Make beforehand what every visit shares, which takes a second or two for a tree of 100,000 features."""
        _ = self.groups, self.children, self.tree_data
        self.feature(
            self._levels.ids[0]
        )  # what is read with the first page of all, decoders and tokens, takes a quarter second

    def overview(self) -> Page:
        """The map of the tree, beside the report's summary."""
        return self._page("overview", self._tree.run["name"], "tree", headlines=self._headlines())

    def last(self, name: str) -> int:
        """The number of the last part of a list, counted from 1; raises ``KeyError``."""
        return max(1, -(-len(self.groups[name].places) // ROWS))

    def listing(self, name: str, page: int = 1) -> Page:
        """A part of a list of nodes; raises ``KeyError`` where there is no such list or part."""
        group, last = self.groups[name], self.last(name)
        if not 1 <= page <= last:
            raise KeyError(page)
        places = group.places[(page - 1) * ROWS : page * ROWS]
        rows = list(zip(places, self.nodes(places), strict=True))
        return self._page("list", group.title, "tree", group=group, rows=rows, page=page, last=last)

    def feature(self, id: str) -> Page:
        """Everything of a node; raises ``KeyError``."""
        return self._feature(self.index.feature(id))

    def compare(self, id: str) -> Page:
        """A node beside the nearest latents of the baseline; raises ``KeyError``."""
        return self._compare(self.index.feature(id))

    def both(self, id: str) -> tuple[Page, Page]:
        """``feature`` and ``compare`` by one question to the index, which takes the longest."""
        feature = self.index.feature(id)
        return self._feature(feature), self._compare(feature)

    def _feature(self, feature: FeaturePage) -> Page:
        id = feature.id
        place = self._levels.latent(id)
        around = [] if feature.parent is None else self.children[self._levels.latent(feature.parent.id)]
        if feature.parent is None:
            around = self.groups["root-children" if self._tree.root_child[place] else f"level-{feature.level}"].places
        at = around.index(place) if place in around else 0
        beside = {
            "previous": self._levels.ids[around[at - 1]] if at > 0 else None,
            "next": self._levels.ids[around[at + 1]] if at + 1 < len(around) else None,
            "below": self._levels.ids[self.children[place][0]] if self.children[place] else None,
        }
        figure = Markup(self.picture(id)) if self.children[place] else None
        title = f"{id} {name_of(feature)}"
        return self._page("feature", title, "tree", feature=feature, beside=beside, figure=figure, place=place)

    def picture(self, id: str) -> str:
        """The figure of a node and everything below it, as SVG; raises ``KeyError``."""
        return charts.subtree(self.tree, self._levels.latent(id))

    def fates(self, verdict: str = "") -> Page:
        """What became of the baseline's latents; raises ``KeyError`` for a verdict that there is not."""
        if verdict and verdict not in VERDICTS:
            raise KeyError(verdict)
        chosen = verdict or next((one for one in VERDICTS if self._tree.fates.get(one)), "kept")
        found = self.index.fates(chosen) if self._tree.baseline else []
        return self._page("fates", "Baseline", "baseline", chosen=chosen, found=found)

    def baseline(self, latent: int) -> Page:
        """A latent of the baseline; raises ``KeyError``."""
        page = self.index.baseline(latent)
        return self._page("baseline", f"{self._tree.baseline} {latent}", "baseline", page=page)

    def search(self, query: str = "", by: str = "token") -> Page:
        """The form, and what was found; without a query, or in a static folder, the form alone."""
        by = by if by in ("token", "label") else "token"
        hits, occurrences = [], None
        if query and self.served:
            if by == "token":
                found = self.index.search_token(query)
                hits, occurrences = found.hits, found.occurrences
            else:
                hits = self.index.search_label(query)
        return self._page("search", "Search", "search", query=query, by=by, hits=hits, occurrences=occurrences)

    def text(self, typed: str = "") -> Page:
        """The form, and what fires on the text."""
        title, view = "What fires on a text", "text"
        if not (typed.strip() and self.served and self._tree.can_encode):
            return self._page("text", title, view, typed=typed, codes=None)
        codes = self.index.encode_text(typed)
        # Of each token the strongest coarse and the strongest finer activation, and of the text.
        strongest = [
            [max((a for id, a in active if (parse_id(id)[0] == 0) == coarse), default=0.0) for coarse in (True, False)]
            for active in codes.active
        ]
        most = [max((pair[which] for pair in strongest), default=0.0) for which in (0, 1)]
        return self._page("text", title, view, typed=typed, codes=codes, strongest=strongest, most=most)

    def report(self) -> Page:
        """Every table of the report."""
        return self._page("report", "Report", "tree", report=self._tree.report)

    def message(self, title: str, says: str, status: int = 404) -> Page:
        """A page that says what went wrong and what to do."""
        body = self._environment.get_template("message.html.jinja").render(title=title, says=says, status=status)
        return Page(title, Markup(body), "", status)

    def document(self, page: Page) -> str:
        """A page in its frame: a whole HTML document."""
        return self._environment.get_template("document.html.jinja").render(page=page, tree_name=self._tree.run["name"])

    @cached_property
    def tree_data(self) -> str:
        """The script that gives the map its tree. It has no labels: ``label_data`` has them, as they change."""
        tree = self._tree
        columns = {
            "widths": self._levels.widths,
            "parent": tree.parent,
            "rate": _rounded(tree.rate),
            "over": _rounded(tree.mi_over_max),
            "bits": _rounded(tree.mi_bits),
            "fvu": _rounded(tree.fvu_increase),
            "rows": tree.rows,
            "dead": [place for place, dead in enumerate(tree.dead) if dead],
            "hint": [text.shown(hint) for hint in tree.hint],
        }
        return _script("tree", columns)

    def label_data(self) -> str:
        """The script that gives the map its labels, by place."""
        labels = {self._levels.latent(id): text.shown(label.text) for id, label in self.index.labels().items()}
        return _script("labels", labels)

    def token_data(self) -> str:
        """The script that a static folder is searched by: the places of nodes by token."""
        table = {
            token: [self._levels.latent(id) for id in nodes]
            for token, nodes in self.index.token_table().items()
            if nodes
        }
        return _script("tokens", table)

    def _compare(self, feature: FeaturePage) -> Page:
        return self._page("compare", f"{feature.id} beside {self._tree.baseline}", "baseline", feature=feature)

    def _headlines(self) -> list[dict[str, str]]:
        """A few rows of the report's first table, without their intervals."""
        report = self._tree.report
        if report is None or not report.tables:
            return []
        _, columns, rows = report.tables[0]
        found = []
        for row in rows:
            metric = row[0].split(" ")[0]
            if len(row) > 1 and metric in HEADLINES:
                cells = [split_interval(cell)[0] for cell in row[1:]]
                verdict = row[-1] if row[-1] in ("better", "worse", "no evidence") else ""
                other = cells[1] if len(columns) > 2 else ""
                name = BY_NAME[metric].label
                name = name[0].upper() + name[1:]  # capitalize() would make Kl of KL
                found.append({"name": name, "metric": row[0], "ours": cells[0], "other": other, "verdict": verdict})
        return found

    def _page(self, template: str, title: str, view: str, **values: Any) -> Page:
        body = self._environment.get_template(f"{template}.html.jinja").render(tree=self._tree, **values)
        return Page(text.shown(title), Markup(body), view)


def level_name(level: int, deepest: int, number: int = 1) -> str:
    """What ``number`` latents of a level are called: ``parent`` or ``children`` where there are two levels."""
    if deepest == 1:
        return (("parent", "parents"), ("child", "children"))[level][number != 1]
    return (f"level {level}" if deepest else "latent") if number == 1 else (f"level {level}" if deepest else "latents")


def name_of(feature: FeaturePage) -> str:
    """A label, or what stands for it."""
    return feature.label.text if feature.label else feature.hint


def _rounded(figures: list[Any]) -> list[float | None]:
    """Three significant figures: more cannot be seen in the map, and makes a large tree slow to load."""
    return [None if one is None else float(f"{one:.3g}") for one in figures]


def _script(name: str, data: Any) -> str:
    # Parsing JSON is several times faster than a literal of the same data.
    return f"(window.hiersae ??= {{}}).{name} = JSON.parse({json.dumps(json.dumps(data, separators=(',', ':')))});\n"
