"""The pages without a browser: what is in them, what the server refuses, what a folder holds, and the style sheet."""

from __future__ import annotations

import base64
import http.client
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

import pytest

from hiersae_cli.browse.model import Context, Histogram
from hiersae_cli.errors import UsageError
from hiersae_cli.levels import Levels
from hiersae_cli.pages import cards, server, static
from hiersae_cli.pages.evidence import child_sentence, short_percent
from hiersae_cli.pages.families import HUES
from hiersae_cli.pages.render import Pages
from hiersae_cli.pages.shared_texts import SharedTexts
from hiersae_cli.pages.text import STEPS, asset_text, context, one_line, step
from tests.fake_index import ATTACK, PARENTS, QUOTES, FakeIndex, serving
from tests.helpers import PATIENCE

ADDRESSES = [
    "/",
    "/feature/a1",
    "/feature/b3",
    "/feature/b48",  # no parent
    "/feature/b51",  # dead
    "/feature/a0/children/0",
    "/document/0",
    "/document/2?at=3&of=a1",
    "/compare/a1",
    "/baseline",
    "/baseline/are/split",
    "/baseline/4",
    "/list/level-0",
    "/list/root-children",
    "/list/dead/1",
    "/report",
    "/search?q=king",
    "/search?q=%3Cscript%3E&by=label",
    "/text?text=%3Cscript%3Ealert(3)%3C/script%3E",
]


class Elements(HTMLParser):
    """Names and attributes of all elements of a page, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(str(html))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def address():
    with serving(FakeIndex()) as at:
        yield at


def ask(address: str, path: str, method: str = "GET", body: str = "", **headers: str) -> tuple[int, dict, str]:
    """Status, headers and text of an answer; ``Host`` and all else may be forged."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE)
    connection.putrequest(method, path, skip_host=True)
    sent = {"Host": urlsplit(address).netloc, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if method == "POST":
        sent |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body.encode()))}
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.endheaders(body.encode() if body else None)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


@pytest.mark.parametrize("path", ADDRESSES)
def test_text_of_the_corpus_is_shown_and_never_markup(address, path):
    status, _, html = ask(address, path)
    assert status == 200
    page = Elements(html)
    own = (
        "early.js",
        "theme.js",
        "page.js",
        "layout.js",
        "family.js",
        "text.js",
        "colours.js",
        "card.js",
        "list.js",
        "drawing.js",
        "map.js",
    )
    if "/children/" in path:
        own = ()  # a part of a page
    for name, attributes in page.found:
        assert name != "img" and not any(key.startswith("on") or key == "style" for key in attributes)
        if name == "script":
            assert attributes["src"].partition("?")[0] in [f"/assets/{one}" for one in own]
    assert html.count("<script") == len(own)


def test_the_attack_can_be_read(address):
    page = Elements(ask(address, "/feature/a1")[2])
    assert f"royalty {ATTACK}" in page.text and QUOTES in page.text
    assert "\u202e" not in page.text and "‹202E›" in page.text


@pytest.mark.parametrize(
    "path",
    [
        "/feature/a99",
        "/feature/x",
        "/list/none",
        "/list/dead/2",
        "/baseline/99",
        "/document/3",
        "/document/0?of=a99",
        "/feature/a0/children/7",
        "/nowhere",
    ],
)
def test_an_unknown_page_says_what_to_do(address, path):
    status, headers, html = ask(address, path)
    assert status == 404 and "Look for it in the tree" in html
    assert "default-src 'none'" in headers["content-security-policy"]


def test_every_answer_carries_the_policy(address):
    _, headers, _ = ask(address, "/assets/tree.js")
    policy = headers["content-security-policy"]
    assert "script-src 'self';" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"


def test_browsers_keep_a_script_at_the_address_with_its_version(address):
    page = ask(address, "/")[2]
    sources = re.findall(r'(?:src|href|data-data)="(/assets/[^"]+\?\w+)"', page)
    names = {source.partition("?")[0] for source in sources}
    assert {"/assets/page.js", "/assets/dashboard.css", "/assets/tree.js"} < names
    for source in sources:
        assert "immutable" in ask(address, source)[1]["cache-control"]
    for changing in ("/assets/page.js", "/assets/page.js?older", "/assets/labels.js", "/feature/a1"):
        assert ask(address, changing)[1]["cache-control"] == "no-cache"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "[::2]:8000"])
def test_a_foreign_name_is_not_answered(address, host):
    status, _, text = ask(address, "/feature/a1", Host=host)
    assert status in (400, 403) and ATTACK not in text and "royalty" not in text


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "[::1]:8000", "127.0.0.1:1"])
def test_loopback_answers_by_its_names_at_any_port(address, host):
    # A port that is forwarded from elsewhere has another number there.
    assert ask(address, "/", Host=host)[0] == 200


def test_a_foreign_page_cannot_read_by_a_script_element(address):
    assert ask(address, "/assets/tree.js", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert ask(address, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200  # a link in a mail


def label(address: str, id: str = "b2", **changes: str | None) -> int:
    html = ask(address, f"/feature/{id}")[2]
    token = next(a["value"] for name, a in Elements(html).found if name == "input" and a.get("name") == "token")
    form = {"text": "a label", "author": "Ada", "token": token, **changes}
    origin = form.pop("origin", address)
    headers = {"Origin": origin} if origin else {}
    body = urlencode({name: value for name, value in form.items() if value is not None})
    return ask(address, f"/label/{id}", "POST", body, **headers)[0]


def test_a_label_is_kept_and_taken_away():
    index = FakeIndex()
    with serving(index) as address:
        assert label(address, text=f" king {ATTACK} ", author="Bo") == 303
        assert (index.named["b2"].text, index.named["b2"].author) == (f"king {ATTACK}", "Bo")
        assert ATTACK in Elements(ask(address, "/feature/b2")[2]).text
        assert ATTACK in json.loads(re.search(r"JSON\.parse\((.*)\);", ask(address, "/assets/labels.js")[2])[1])
        assert label(address, text="") == 303 and "b2" not in index.named


@pytest.mark.parametrize(
    "changes",
    [
        {"token": "guessed"},
        {"token": None},
        {"text": None},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": None},
        {"text": "x" * 20_000},
    ],
)
def test_a_label_from_elsewhere_is_refused(changes):
    index = FakeIndex()
    with serving(index) as address:
        assert label(address, **changes) in (400, 403)
        assert "b2" not in index.named


def test_a_label_for_no_feature_is_not_found(address):
    html = ask(address, "/feature/b2")[2]
    token = next(a["value"] for name, a in Elements(html).found if name == "input" and a.get("name") == "token")
    body = urlencode({"text": "x", "author": "Ada", "token": token})
    assert ask(address, "/label/b999", "POST", body, Origin=address)[0] == 404


def test_empty_states_say_what_to_do():
    with serving(FakeIndex(baseline=False, report=False, host=False)) as address:
        assert "hiersae eval" in ask(address, "/")[2]
        assert "--baseline RUN" in ask(address, "/baseline")[2] and "--baseline RUN" in ask(address, "/compare/a1")[2]
        assert "--model" in ask(address, "/text")[2] and "--model" in ask(address, "/feature/a1")[2]
        assert "--report" in ask(address, "/report")[2]
        assert "It does not occur in the indexed tokens" in ask(address, "/search?q=qqq")[2]


def test_a_dictionary_of_one_level_has_pages():
    pages = Pages(FakeIndex(levels=1), served=True)
    assert f"{PARENTS} latents" in pages.overview().body
    assert "Latent a1" in pages.feature("a1").body and set(pages.groups) == {"level-0", "dead"}


def test_a_tree_of_three_levels_has_pages():
    pages = Pages(FakeIndex(levels=3), served=True)
    assert "6 at level 0" in Elements(pages.overview().body).text
    html = pages.feature("c5").body
    crumbs = [attributes["href"] for name, attributes in Elements(html).found if name == "a"][:3]
    assert crumbs == ["/?at=a0", "/feature/a0", "/feature/b2"] and "Level 2 c5" in html
    assert len(re.findall("<circle", pages.picture("a0"))) == 1 + 8 + 16


def test_a_text_is_read_with_the_line_ends_that_were_typed():
    index = FakeIndex()
    index.encode_text = lambda typed: read.append(typed) or FakeIndex().encode_text(typed)
    read: list[str] = []
    with serving(index) as address:
        assert ask(address, "/text?text=one%0D%0Atwo")[0] == 200
    assert read == ["one\ntwo"]


def test_an_address_that_cannot_be_had():
    with serving(FakeIndex()) as address:
        port = urlsplit(address).port
        with pytest.raises(UsageError, match=f"--port {port}: cannot listen on it"):
            server.serve(FakeIndex(), host="127.0.0.1", port=port, author="Ada", ready=print)
    with pytest.raises(UsageError, match="every address"):
        server.serve(FakeIndex(), host="0.0.0.0", port=0, author="Ada", ready=print)


def test_a_child_shows_its_evidence_and_a_parent_its_children():
    pages = Pages(FakeIndex(), served=True)
    child = Elements(pages.feature("b3").body).text
    for part in (
        "0.0120 bits",
        "at most 0.0200",
        "80.0 %",
        "4.00 ×",
        "Without its parent",
        "Siblings",
        "Next-best parents",
    ):
        assert part in child
    parent = Elements(pages.feature("a0").body).text
    for part in (
        "8 children",
        "Only the parent",
        "23.0 %",
        "shared 20.0 %",
        "inside 80 %",
        "alone 20 %",
        "4.0 × chance",
    ):
        assert part in parent


def test_a_sentence_says_what_a_parent_and_a_child_are_and_why_to_believe_it():
    pages = Pages(FakeIndex(levels=3), served=True)
    parent = Elements(pages.feature("a0").body).text
    assert "This parent fires at 20 % of the tokens, and its 8 children fire at parts of these." in parent
    belief = "80 % of the children’s firings lie inside the parent, 20 % alone: 4.0 × likelier than by chance (20 %)."
    assert belief in parent
    both = Elements(pages.feature("b2").body).text
    assert "and its 2 children fire" in both
    assert "should be a special case of its parent. 80 % of its firings lie inside the parent" in both
    assert "by chance" not in Elements(pages.feature("b48").body).text.split("Next-best")[0]  # it has no parent


@pytest.mark.parametrize(
    ("n_parent", "n_child", "n_both", "words"),
    [
        (
            9960,
            500,
            499,
            "99.8 % of its firings lie inside the parent, 0.2 % alone: hardly more than by chance (99.6 %)",
        ),
        (9960, 500, 480, "96 % of its firings lie inside the parent, 4 % alone: less than by chance (99.6 %)"),
        (2000, 29, 29, "Too few of its firings are in the held-out tokens to judge: 29."),
        (2000, 0, 0, "Too few of its firings are in the held-out tokens to judge: none."),
        (0, 100, 0, "Too few of its firings"),
    ],
)
def test_a_sentence_claims_no_more_than_the_counts_show(n_parent, n_child, n_both, words):
    feature = FakeIndex().feature("b3")
    edge = replace(feature.as_child.edge, n_parent=n_parent, n_child=n_child, n_both=n_both)
    assert words in Elements(str(child_sentence(replace(feature, as_child=replace(feature.as_child, edge=edge))))).text


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.9999, "99.9 %"),
        (0.961, "96 %"),
        (0.04, "4 %"),
        (0.0728, "7.3 %"),
        (0.0004, "0.0400 %"),
    ],
)
def test_a_share_in_a_sentence_has_two_figures(share, words):
    assert short_percent(share) == words


def test_children_of_a_large_family_have_their_contexts_in_later_parts():
    index = FakeIndex()
    index.parent = [-1] * PARENTS + [0] * (len(index.parent) - PARENTS)
    pages = Pages(index, served=True)
    page = Elements(pages.feature("a0").body)
    rows = [attributes["data-of"] for _, attributes in page.found if attributes.get("class") == "later"]
    assert len(rows) == len(index.parent) - PARENTS - 12
    assert [attributes["data-part"] for _, attributes in page.found if "data-part" in attributes][::12] == list("1234")
    later = Elements(pages.children_part("a0", 1).body)
    assert [attributes["data-of"] for _, attributes in later.found if "data-of" in attributes] == rows[:12]
    assert set(pages.later_children("a0")) == {f"feature/a0/children/{part}" for part in (1, 2, 3, 4)}
    with pytest.raises(KeyError):
        pages.children_part("a0", 5)


def test_a_list_has_only_the_columns_that_say_something():
    pages = Pages(FakeIndex(), served=True)
    head = re.compile("<th [^>]*>(?:<button [^>]*>)?([^<]*)")
    heads = {name: head.findall(pages.listing(name).body) for name in ("level-0", "level-1", "dead")}
    assert heads["level-0"] == ["Feature", "Fires in", "Children", "Fires without any"]
    assert heads["level-1"] == ["Feature", "Parent", "Fires in", "Child inside its parent", "Lift of an edge"]
    assert heads["dead"] == ["Feature", "Fires in"]


def test_a_child_of_a_text_is_below_its_own_parent():
    page = Elements(Pages(FakeIndex(), served=True).text("the king is").body)
    codes = json.loads(next(attributes["data-codes"] for _, attributes in page.found if "data-codes" in attributes))
    levels = Levels.of(FakeIndex().widths)
    parents = {node[0]: levels.ids[node[3]] for node in codes["nodes"].values() if node[3] >= 0}
    assert parents == {"b8": "a1", "b20": "a2"}  # a2 is silent, but b20 is not a child of a1
    assert codes["strongest"] == 2 and codes["active"][1] == []
    assert page.text.count("royalty") == 3  # above two of three tokens, and in the list of families


def test_without_a_text_there_is_an_example():
    for served in (True, False):
        text = Elements(Pages(FakeIndex(), served=served).text().body).text
        assert "The family of each token" in text and "the beginning of a document of the corpus" in text
    assert "The family of each token" not in Pages(FakeIndex(host=False), served=True).text().body


def test_a_child_that_avoids_its_parent_is_said_to(monkeypatch):
    """Its information is above the bound of a positive association: 436 % stood on the page of a real model."""
    index = FakeIndex()
    feature = index.feature("1.3")
    counts = {"n_parent": 9960, "n_child": 500, "n_both": 480, "mi_bits": 0.00754, "max_mi_bits": 0.00173}
    edge = replace(feature.as_child.edge, **counts, mi_over_max=0.0)
    apart = replace(feature, as_child=replace(feature.as_child, edge=edge))
    monkeypatch.setattr(index, "feature", lambda id: apart)
    text = Elements(Pages(index, served=True).feature("1.3").body).text
    assert "fires with it less than by chance" in text and "It fires with its parent less than by chance." in text
    assert "of at most" not in text and "of its bound" not in text


def test_the_figure_of_a_subtree_is_xml_with_all_its_nodes():
    index = FakeIndex()
    index.named["b9"] = index.named["a1"]
    drawn = ElementTree.fromstring(Pages(index, served=True).picture("a1"))
    texts = ["".join(one.itertext()) for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    drawn_ids = {text.split()[0] for text in texts if re.match(r"[ab]\d", text)}
    assert drawn_ids == {"a1", *(f"b{child}" for child in range(8, 16))}
    assert any(ATTACK in text for text in texts)


def test_files_of_cards_hold_the_contexts_of_every_node_once():
    pages = Pages(FakeIndex(), served=True)
    assert sorted(pages.card_order) == list(range(len(pages.card_order)))
    contexts = {}
    for file in range(pages.card_files):
        data = json.loads(json.loads(re.search(r"JSON\.parse\((.*)\)\);", pages.card_data(file))[1]))
        assert not set(data) & set(contexts)
        contexts |= data
    assert set(contexts) == {str(place) for place in range(len(pages.card_order))}
    assert len(contexts["1"]) == 6 and contexts["57"] == []  # a dead one
    assert all(len(line) == 3 and "\n" not in "".join(line) for lines in contexts.values() for line in lines)
    with pytest.raises(KeyError):
        pages.card_data(pages.card_files)


def test_a_familys_children_are_in_neighbouring_files():
    parent, rate = [-1, -1, -1, 2, 0, 2, 0], [0.1, 0.9, 0.2, 0.1, 0.1, 0.3, 0.1]
    # The larger family first, then the other one, then the root without children; then children by parent.
    assert cards.order(parent, rate) == [1, 2, 0, 6, 3, 5, 4]


def test_steps_of_the_ramp():
    assert [step(a, 9.0) for a in (0, -1, 1e-9, 1, 1.01, 9, 10)] == [0, 0, 1, 1, 2, 9, STEPS]
    assert step(1, None) == step(1, 0) == 0


def test_a_context_keeps_its_text_and_marks_what_fires():
    one = Context(["a", "<b>", " c"], [0.0, 2.0, 0.5], 1, "doc", 4, 9, True)
    line = Elements(str(context(one, 2.0)))
    marks = [attributes for name, attributes in line.found if name == "mark"]
    assert [(mark["class"], mark["data-a"]) for mark in marks] == [("h9 focus", "2.00"), ("h3", "0.500")]
    assert line.text == "2.00a<b> c"
    first = Elements(str(context(replace(one, position=1), 2.0)))
    assert first.text == "2.00⊢a<b> c"  # its window begins here
    blank = Elements(str(context(replace(one, tokens=["a", "  ", " c"]), 2.0)))
    assert blank.text == "2.00a␣␣ c"  # no empty box


def test_what_cannot_be_seen_is_shown_as_its_code():
    assert one_line("a\nb\tc\x00\u202e\ud800\ufeff") == "a↵b⇥c‹00›‹202E›‹D800›‹FEFF›"


def test_a_histogram_has_a_bar_for_each_count():
    from hiersae_cli.pages.charts import histogram

    drawn = ElementTree.fromstring(histogram(Histogram([0, 1, 2, 3], [4, 0, 2])))
    heights = [float(one.attrib["height"]) for one in drawn.iter("rect")]
    assert heights[1] == 0 and heights[0] == pytest.approx(2 * heights[2])


def test_a_folder_holds_every_page_of_the_server(tmp_path):
    index = FakeIndex()
    done: list[int] = []
    made = static.write(index, tmp_path / "site", advance=done.append)
    assert sum(done) == len(index.ids()) + index.baseline_latents()
    assert made.path == tmp_path / "site" / "index.html" and made.path.is_file()
    assert made.size == sum(file.stat().st_size for file in (tmp_path / "site").rglob("*") if file.is_file())
    found: dict[str, list[str]] = {}
    for file in (tmp_path / "site" / "assets").glob("[!c]*-[0-9]*.js"):  # not the contexts of cards
        found |= unpacked(file)[1]
    found |= unpacked(tmp_path / "site" / "assets" / "rest.js")[1]
    assert made.pages == len(found) + 1
    assert {f"feature/{id}" for id in index.ids()} < set(found) and "list/root-children/1" in found
    served = Pages(index, served=False)
    for address, page in (("feature/b3", served.feature("b3")), ("compare/b3", served.compare("b3"))):
        assert without_lines(found[address][2]) == without_lines(page.body)
    # Every link within the folder leads to a page of it.
    for html in [made.path.read_text(), *(page[2] for page in found.values())]:
        for name, attributes in Elements(html).found:
            link = attributes.get("href") or ""
            if name == "a" and link.startswith("#/"):
                place = link[2:].split("?")[0]
                assert place in ("", *found) or f"{place}/1" in found, link
            assert not re.match("https?:|//", attributes.get("href") or attributes.get("src") or "")


def unpacked(file: Path) -> Any:
    packed = re.search(r'"([^"]+)"\);', file.read_text())[1]
    return json.loads(zlib.decompress(base64.b64decode(packed), -zlib.MAX_WBITS))


def without_lines(html: str) -> str:
    return re.sub('<li class="line".*?</li>|\x7f[0-9]+\x7f', "(line)", html)


def test_the_text_of_a_token_is_stored_once_however_many_contexts_show_it():
    tokens, texts = ["a", " b", "\n", " d", "e", " f"], SharedTexts()
    first = Context(tokens[:4], [0.0, 0.0, 2.0, 0.0], 2, "notes", 2, 102, False, (3, 12))
    second = Context(tokens[2:], [0.0, 1.5, 0.0, 4.0], 1, "notes", 3, 103, False, (3, 13))
    other_text = Context(["A", "b"], [1.0, 0.0], 0, "notes", 0, 100, False, (3, 10))
    assert texts.lines([first, second], 4.0) == "\x7f100,2,4;2,5,2.00\x7f\x7f102,1,4;1,4,1.50;3,9,4.00\x7f"
    assert texts.lines([other_text], 4.0).startswith('\x7f<li class="line"')
    assert texts.data() == {
        "documents": ["notes"],
        "runs": [[102, 0, -100, 0, 3, -90]],
        "blocks": {0: "\x7f" * 100 + "a\x7f b\x7f<i>↵</i>\x7f d\x7fe\x7f f"},
    }


def test_a_folder_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    static.write(FakeIndex(), tmp_path / "site")
    before = (tmp_path / "site" / "index.html").read_text()

    def stop(features: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        static.write(FakeIndex(baseline=False), tmp_path / "site", advance=stop)
    assert (tmp_path / "site" / "index.html").read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["site"]


# --- the style sheet


def colours() -> list[dict[str, str]]:
    """The custom properties that are colours, in light and in dark."""
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", asset_text("dashboard.css"))
    return [{name: pair[which] for name, *pair in pairs} for which in (0, 1)]


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2 (relative luminance of sRGB)."""

    def luminance(colour: str) -> float:
        linear = []
        for at in (1, 3, 5):
            part = int(colour[at : at + 2], 16) / 255
            linear.append(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(theme):
    found = colours()[theme]
    grounds = ["paper", "raised", "sunken"]
    pairs = [(text, ground) for text in ("ink", "quiet", "accent", "better", "worse") for ground in grounds]
    pairs += [(f"h{one}-ink", f"h{one}") for one in range(1, STEPS + 1)]
    pairs += [(f"f{family}", "paper") for family in range(1, HUES + 1)]
    pairs += [("on-accent", "accent"), ("paper", "ink"), ("ink", "line")]
    low = {pair: round(contrast(found[pair[0]], found[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(
        4.48, abs=0.01
    )


def test_every_colour_of_the_style_sheet_is_a_named_one():
    """So that the test of contrast sees them all: literals stand in shadows and on the paper of figures alone."""
    rules = re.sub(r"/\*.*?\*/", "", asset_text("dashboard.css"), flags=re.S)
    rules = re.sub(r"light-dark\([^)]*\)", "", rules)
    assert set(re.findall(r"#[0-9a-f]{3,8}\b", rules)) <= {"#0000", "#000", "#0005", "#0006", "#fff"}


def test_two_counts_of_the_dead_say_of_which_rows_they_are():
    pages = Pages(FakeIndex(), served=True)
    overview = Elements(pages.overview().body).text
    assert "Dead latents in 100,352 held-out rows" in overview and "1 Dead in 100,000 rows" in overview
    listing = Elements(pages.listing("dead").body).text
    assert "Dead in 100,000 rows" in listing and "They fire in none of the indexed rows." in listing
    assert '\\"rows\\":100000' in pages.tree_data
