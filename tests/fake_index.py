"""An index in memory, for tests of the pages: a small made-up tree whose texts try to be HTML."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from hiersae_cli.browse.family import TOGETHER
from hiersae_cli.browse.model import (
    BaselineFate,
    BaselineMatch,
    BaselinePage,
    ChildPart,
    ChildView,
    Context,
    Decile,
    DocumentPart,
    Edge,
    Evidence,
    FatePart,
    FeaturePage,
    Histogram,
    Label,
    Neighbour,
    ParentView,
    Token,
)
from hiersae_cli.browse.tree_model import Overview, ReportSummary, SearchHit, TextCodes, TokenSearch
from hiersae_cli.errors import UsageError
from hiersae_cli.levels import Levels, current_id
from hiersae_cli.metrics.catalogue import term
from hiersae_cli.pages.server import app

ATTACK = "<script>alert(1)</script>"
QUOTES = "\"><img src=x onerror=alert(2)>'"
PARENTS, EACH, LONE = 6, 8, 3
WORDS = ["the", " king", " is", ATTACK, "\n", " of", QUOTES, " France", " and", " \u202eback", " a", " queen"]


class FakeIndex:
    """``PARENTS`` parents of ``EACH`` children, then ``LONE`` children without a parent and one that is dead."""

    def __init__(self, *, baseline: bool = True, report: bool = True, host: bool = True, levels: int = 2):
        self.named: dict[str, Label] = {"a1": Label(f"royalty {ATTACK}", "Ada", "2026-01-02T03:04:05+00:00")}
        self.has_baseline, self.has_report, self.has_host = baseline, report, host
        children = PARENTS * EACH
        self.widths = [PARENTS, children + LONE + 1, 2 * children][:levels]
        self.parent = [-1] * PARENTS
        if levels > 1:
            self.parent += [child // EACH for child in range(children)] + [-1] * (LONE + 1)
        if levels > 2:
            self.parent += [PARENTS + child // 2 for child in range(2 * children)]
        self.names = Levels.of(self.widths).ids
        self.level = Levels.of(self.widths).level_F
        self.latent = [latent for width in self.widths for latent in range(width)]
        self.dead = [False] * len(self.names)
        if levels > 1:
            self.dead[PARENTS + children + LONE] = True

    def ids(self) -> list[str]:
        return self.names

    def labels(self) -> dict[str, Label]:
        return dict(self.named)

    def set_label(self, id: str, text: str, author: str) -> Label | None:
        if id not in self.names:
            raise KeyError(id)
        self.named.pop(id, None)
        if text:
            self.named[id] = Label(text, author, "2026-02-03T04:05:06+00:00")
        return self.named.get(id)

    def rate(self, place: int) -> float:
        return 0.0 if self.dead[place] else (0.2 if self.level[place] == 0 else 0.05) / (1 + self.latent[place] % 7)

    def hint(self, place: int) -> str:
        return "" if self.dead[place] else f"{WORDS[place % len(WORDS)]} {WORDS[(place + 5) % len(WORDS)]}"

    def near(self, place: int, cosine: float | None = None) -> Neighbour:
        label = self.named.get(self.names[place])
        return Neighbour(self.names[place], label.text if label else None, self.hint(place), self.rate(place), cosine)

    def overview(self) -> Overview:
        places = range(len(self.names))
        share = [None if self.parent[place] < 0 else 0.1 + 0.8 * (place % 9) / 9 for place in places]
        rows = [
            ["Reconstruction"],
            [
                "fvu ↓",
                "0.0349 [0.0345, 0.0352]",
                "0.0403 [0.0399, 0.0407]",
                "-0.0054 [-0.0055, -0.0053]",
                ".001",
                "better",
            ],
            ["l0", "16 [15.9, 16.1]", "16 [15.9, 16.1]", "0.004 [-0.03, 0.04]", ".8", ""],
            ["dead ↓", "0.0371", "0.0215", "0.0156", ".05", "no evidence"],
            ["Tree"],
            ["mi_bits ↑", "0.0069", "0.0130", "-0.0061", ".001", "worse"],
            ["lift ↑", "5.3", "6.6", "-1.3", ".2", "no evidence"],
        ]
        report = ReportSummary(
            "100,352 held-out rows of 49 documents, transformer.h.2",
            [f"flat is not matched to hier: {ATTACK}"],
            [("hier against flat", ["", "hier", "flat", "difference", "p", ""], rows)],
            ["Intervals: bootstrap over documents."],
            100_352,
            {row[0]: term(row[0].split()[0]) for row in rows if len(row) > 1},
        )
        return Overview(
            level=self.level,
            latent=self.latent,
            parent=self.parent,
            label=[None] * len(self.names),
            hint=[self.hint(place) for place in places],
            rate=[self.rate(place) for place in places],
            mi_bits=[None if one is None else one / 50 for one in share],
            max_mi_bits=[None if one is None else 0.02 for one in share],
            mi_over_max=share,
            lift=[None if one is None else 1 + 20 * one for one in share],
            p_parent_given_child=share,
            share=[None if one is None else one / 4 for one in share],
            overlap=[None if one is None else one / 2 for one in share],
            alone=[0.23 if place in self.parent else None for place in places],
            fvu_increase=[None if self.dead[place] else 0.001 * (place % 5) for place in places],
            dead=self.dead,
            root_child=[self.parent[place] < 0 and self.level[place] > 0 for place in places],
            run={
                "name": "hier",
                "arch": "hier",
                "module": "transformer.h.2",
                "width": 64,
                "widths": self.widths,
                "hard": False,
            },
            host="host",
            baseline="flat" if self.has_baseline else None,
            rows=100_000,
            held_out_rows=10_000,
            documents=12,
            tokens_are_text=self.has_host,
            can_encode=self.has_host,
            fates={"kept": 5, "split": 3, "absorbed": 2, "none": 1, "dead": 1} if self.has_baseline else {},
            report=report if self.has_report else None,
        )

    def contexts(self, seed: int, number: int, most: float) -> list[Context]:
        draw = random.Random(seed)
        found = []
        for at in range(number):
            tokens = [draw.choice(WORDS) for _ in range(17)]
            activations = [draw.choice([0.0, 0.0, draw.random() * most]) for _ in tokens]
            activations[8] = most * (1 - 0.04 * at)
            row = 1000 * (seed if seed % 5 else 0) + 40 * at  # some rows have different texts in different contexts
            found.append(Context(tokens, activations, 8, f"document {QUOTES}", 8 + at, row + 8, at % 2 == 0))
        return found

    def strongest(self, latent: int, count: int) -> list[Context]:
        return [] if self.dead[latent] else self.contexts(latent, count, 9.0)

    def feature(self, id: str) -> FeaturePage:
        id = current_id(id)
        place = self.names.index(id) if id in self.names else -1
        if place < 0:
            raise KeyError(id)
        dead, up = self.dead[place], self.parent[place]
        below = [child for child, parent in enumerate(self.parent) if parent == place]
        fine = self.level[place] > 0
        edge = None
        if up >= 0:
            edge = self.edge(up, place, 400, 0.6)
        siblings = (
            [other for other, parent in enumerate(self.parent) if parent == up and other != place] if up >= 0 else []
        )
        return FeaturePage(
            id=id,
            level=self.level[place],
            latent=self.latent[place],
            parent=self.near(up) if up >= 0 else None,
            ancestors=[self.near(one) for one in (self.parent[up], up) if one >= 0] if up >= 0 else [],
            label=self.named.get(id),
            label_history=[],
            hint=self.hint(place),
            rows=100_000,
            firings=int(100_000 * self.rate(place)),
            rate=self.rate(place),
            max_activation=None if dead else 9.0,
            mean_activation=None if dead else 3.2,
            fvu_increase=None if dead else 0.001,
            dead=dead,
            histogram=None if dead else Histogram([0.0, 3.0, 6.0, 9.0], [500, 80, 9]),
            top=[] if dead else self.contexts(place, 8, 9.0),
            deciles=[]
            if dead
            else [Decile(9.0 - at, 9.9 - at, 58, self.contexts(place * 100 + at, 2, 9.0 - at)) for at in range(9)]
            + [Decile(0.01, 0.9, 58, self.contexts(place * 100 + 9, 2, 0.9))],
            tokens=[] if dead else [Token(ATTACK, 0.31), Token(" king", 0.2), Token("\n", 0.1), Token(" ", 0.05)],
            promoted=[Token(" queen", 1.25), Token(ATTACK, 0.7)] if self.has_host else [],
            suppressed=[Token("\n", -0.9)] if self.has_host else [],
            nearest=[self.near((place + 1) % len(self.names), 0.4)],
            as_parent=ParentView(
                [
                    ChildPart(
                        self.near(child),
                        0.3 / (1 + at),
                        0.2,
                        self.edge(place, child, 400 - at, 0.5),
                        self.contexts(child, 3, 5.0) if at < TOGETHER else [],
                    )
                    for at, child in enumerate(below)
                ],
                Evidence(n_rows=10_000, n_parent=2000, n_child=500 * len(below), n_both=400 * len(below), soft=False),
                0.23,
                self.contexts(place + 7000, 3, 4.0),
                self.contexts(place + 7500, 3, 4.0),
            )
            if below
            else None,
            as_child=ChildView(
                edge,
                [] if dead or up < 0 else self.contexts(place + 8000, 3, 9.0),
                [] if dead or up < 0 else self.contexts(place + 9000, 2, 6.0),
                [self.near(other, 0.3) for other in siblings],
                [self.edge(0, place, 100, 0.1)],
            )
            if fine
            else None,
            baseline=[self.match(place, other) for other in (3, 4)] if self.has_baseline and not dead else [],
        )

    def edge(self, parent: int, child: int, both: int, over: float) -> Edge:
        return Edge(
            parent=self.names[parent],
            child=self.names[child],
            n_rows=10_000,
            n_parent=2000,
            n_child=500,
            n_both=both,
            mi_bits=0.02 * over,
            max_mi_bits=0.02,
            mi_over_max=over,
            p_parent_given_child=both / 500,
            p_child_given_parent=both / 2000,
            lift=both / 100,
            soft=False,
        )

    def child_contexts(self, id: str, part: int) -> list[tuple[Neighbour, list[Context]]]:
        parent = self.names.index(id)
        below = [child for child, above in enumerate(self.parent) if above == parent]
        return [
            (self.near(child), self.contexts(child, 3, 5.0)) for child in below[part * TOGETHER : (part + 1) * TOGETHER]
        ]

    def passages(self) -> int:
        return 3  # two of one document, one of another

    def passage(self, number: int, id: str = "") -> DocumentPart:
        if not 0 <= number < self.passages():
            raise KeyError(number)
        tokens, part = WORDS * 4, number % 2
        activations = [3.0 * (id != "" and at % 9 == 8) for at in range(len(tokens))]
        stretches = [(start, tokens, activations) for start in (2000 * part, 2000 * part + 100)]
        return DocumentPart(number, f"document {QUOTES}", part, 2 - number // 2, stretches)

    def example(self) -> TextCodes | None:
        return self.encode_text("the king and the queen") if self.has_host else None

    def fate(self, latent: int) -> BaselineFate:
        verdict = ["kept", "split", "absorbed", "none", "dead"][latent % 5]
        parts = [FatePart(self.near(latent % PARENTS), 0.6, 0.7, True), FatePart(self.near(0), 0.2, 0.1, False)]
        return BaselineFate(verdict, latent, [] if verdict == "dead" else parts, 0.8)

    def match(self, place: int, latent: int) -> BaselineMatch:
        return BaselineMatch(latent, 0.83, 420, 0.6, 0.5, self.fate(latent), self.contexts(latent + 5000, 4, 7.0))

    def baseline_latents(self) -> int:
        return 12 if self.has_baseline else 0

    def baseline(self, latent: int) -> BaselinePage:
        if not 0 <= latent < self.baseline_latents():
            raise KeyError(latent)
        contexts = self.contexts(latent + 5000, 4, 7.0)
        return BaselinePage(latent, 0.02, self.fate(latent), contexts, [self.near(1, 0.8)], [Token(ATTACK, 1.0)], [])

    def fates(self, verdict: str, most: int = 100) -> list[BaselinePage]:
        pages = [self.baseline(latent) for latent in range(self.baseline_latents())]
        return [page for page in pages if page.fate.verdict == verdict][:most]

    def search_label(self, query: str, most: int = 50) -> list[SearchHit]:
        words = query.lower().split()
        texts = {
            place: f"{name} {self.near(place).label or ''} {self.hint(place)}" for place, name in enumerate(self.names)
        }
        return [
            SearchHit(self.near(place), 1.0)
            for place, text in texts.items()
            if all(word in text.lower() for word in words)
        ][:most]

    def search_token(self, query: str, most: int = 50) -> TokenSearch:
        if not any(query in word for word in WORDS):
            return TokenSearch(query, 0, [])
        return TokenSearch(query, 120, [SearchHit(self.near(place), 0.48, 0.6, 0.4) for place in (1, 8, 9)])

    def token_table(self) -> dict[str, TokenSearch]:
        return {word: self.search_token(word) for word in WORDS}

    def encode_text(self, text: str) -> TextCodes:
        if not self.has_host:
            raise UsageError("a host model is needed to show what fires on a text", "Give one: --model HOST.")
        tokens = [word + " " for word in text.split()]
        active = [[("a1", 2.5), ("b8", 1.0 + at), ("b20", 0.5)] if at % 2 == 0 else [] for at in range(len(tokens))]
        nodes = {id: self.near(self.names.index(id)) for id in ("b8", "a1", "b20", "a2")}
        return TextCodes(tokens, active, nodes, 0, {"a1": 5.0, "a2": 4.0, "b8": 9.0, "b20": 1.0})


@contextmanager
def serving(index: Any) -> Iterator[str]:
    """The address of a server of an index, in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app(index, author="Ada"), log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
