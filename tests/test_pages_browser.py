"""The dashboard in a browser: Debian's Chromium without a window, driven by Playwright, served and from a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from docs.pictures import ARGUMENTS, CHROMIUM
from hiersae_cli.browse.model import Context
from hiersae_cli.browse.tree_model import Overview
from hiersae_cli.levels import Levels
from hiersae_cli.pages import static
from tests.fake_index import ATTACK, PARENTS, FakeIndex, serving
from tests.test_pages import contrast

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e '.[dev]'")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium")

PATIENCE = 120_000  # milliseconds: a busy machine is slow, and no failure
playwright.expect.set_options(timeout=PATIENCE)


@dataclass
class Watched:
    """A page, and what must not happen on it."""

    page: Any
    address: str
    wrong: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        if "#" in self.address:
            self.page.goto("about:blank")  # else the mark of the page before would still be there
        self.page.goto(self.address + path)
        self.settle()

    def settle(self) -> None:
        """Wait until the page listens and is drawn."""
        self.page.wait_for_selector("html[data-ready]")

    def shows(self, selector: str) -> None:
        """Wait until a page that has this is open."""
        self.page.wait_for_selector(selector)
        self.settle()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def title(self, text: str) -> None:
        """Wait until a page with this heading is open."""
        playwright.expect(self.page.locator("main h1")).to_contain_text(text)
        self.settle()

    def view(self) -> str:
        """The address behind host or file."""
        url = self.page.evaluate("location.href")  # Page.url may lag behind
        return url.split("index.html#")[-1] if url.startswith("file:") else re.sub(r"^https?://[^/]+", "", url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return static.write(FakeIndex(), tmp_path_factory.mktemp("static") / "site").path


@pytest.fixture
def index() -> FakeIndex:
    return FakeIndex()


@pytest.fixture
def served(browser, index) -> Iterator[Watched]:
    with serving(index) as address:
        yield from watched(browser, address)


@pytest.fixture
def opened(browser, folder) -> Iterator[Watched]:
    """A folder of pages, opened from the disk."""
    yield from watched(browser, folder.as_uri() + "#")


@pytest.fixture(params=["served", "folder"])
def either(request, browser, index, folder) -> Iterator[Watched]:
    if request.param == "folder":
        yield from watched(browser, folder.as_uri() + "#")
    else:
        with serving(index) as address:
            yield from watched(browser, address)


def watched(browser: Any, address: str, **options: Any) -> Iterator[Watched]:
    """A page that fails the test for a request to elsewhere, a message on the console, a dialog or an exception."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce", **options})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    one = Watched(page, address)
    allowed = (address.split("#")[0].rsplit("/", 1)[0] if address.startswith("file:") else address, "data:", "blob:")

    def asked(request: Any) -> None:
        if not request.url.startswith(allowed):
            one.wrong.append(f"asked for {request.url}")

    page.on("request", asked)
    page.on("console", lambda message: one.wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: one.wrong.append(f"exception: {error}"))
    page.on("dialog", lambda dialog: (one.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    yield one
    context.close()
    assert one.wrong == []


def hold(page: Any, pattern: str) -> Callable[[], None]:
    """Keep the next request for such an address waiting, until what is returned is called."""
    held: list[Any] = []
    page.route(pattern, lambda route: held.append(route), times=1)

    def let_through() -> None:
        while not held:
            page.wait_for_timeout(10)
        held[0].continue_()

    return let_through


def test_a_walk_by_mouse_from_the_tree_to_a_child_and_back(either):
    either.go("/")
    page = either.page
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 80)
    assert page.locator("#about .id").inner_text().startswith("b")
    page.mouse.click(box["x"] + 60, box["y"] + 80)  # within the largest parent, which lies first
    assert either.view() == "/?at=a0" and "a0" in page.locator("#trail").inner_text()
    page.mouse.click(box["x"] + 60, box["y"] + 80)  # its largest child
    either.shows("article.feature")
    assert re.fullmatch(r"/feature/b[0-7]", either.view())
    page.locator(".crumbs .node").first.click()
    either.shows("article[data-id='a0']")
    assert page.locator(".division > li").count() == 8  # its children
    page.go_back()
    page.go_back()
    either.shows("#map")
    assert either.view() == "/?at=a0" and "a0" in page.locator("#trail").inner_text()


def test_a_walk_by_keys(either):
    either.go("/")
    page = either.page
    page.locator("#map").focus()
    either.press("Enter")  # chooses the first
    assert page.locator("#about .id").inner_text() == "a0"
    either.press("ArrowRight")
    assert page.locator("#about .id").inner_text() != "a0"
    either.press("Escape", "Enter", "Enter")  # nothing, the first, into it
    assert either.view() == "/?at=a0"
    either.press("ArrowDown", "Enter")
    either.shows("article.feature")
    child = page.locator("article").get_attribute("data-id")
    assert child.startswith("b")
    either.press("ArrowRight")
    either.shows(f"article.feature:not([data-id='{child}'])")
    either.press("Escape")
    either.shows("article[data-id='a0']")
    either.press("c")
    either.title("Compared with flat")
    either.press("Escape")
    either.shows("article[data-id='a0'] .division")
    either.press("Escape")
    either.title("hier")
    assert either.view() == "/?at=a0"
    page.locator("#map").focus()
    either.press("Escape")
    assert either.view() == "/" and page.locator("#trail").inner_text().strip() == "Whole tree"
    either.press("?")
    assert page.locator("#help").is_visible()
    either.press("Escape", "/")
    assert page.evaluate("document.activeElement.closest('#find') !== null")
    page.keyboard.type("the")
    either.press("Enter")
    either.shows("#found .node")
    either.title("Search")


def test_keys_pressed_before_the_page_listens_are_not_lost(either):
    page = either.page
    let_through = hold(page, "**/page.js*")
    page.goto(either.address + "/feature/b3", wait_until="commit")
    page.wait_for_selector("main h1", state="attached")  # readable, and its scripts are not there yet
    either.press("/")
    page.keyboard.type("king")
    either.press("Enter")
    let_through()
    either.shows("#found .node")
    assert either.view() == "/search?q=king"


def test_keys_pressed_while_the_next_page_is_on_its_way_are_for_that_page(served):
    page = served.page
    served.go("/feature/a0")
    let_through = hold(page, "**/compare/a0")
    served.press("c", "/")
    page.keyboard.type("the")  # a t is no longer the way back to the tree
    let_through()
    served.title("Compared")
    assert page.input_value("#find input") == "the"


def test_letters_typed_before_the_search_page_listens_go_into_its_field(served):
    let_through = hold(served.page, "**/page.js*")
    served.page.goto(served.address + "/search", wait_until="commit")
    served.page.wait_for_selector("#query", state="attached")
    served.page.keyboard.type("the")
    let_through()
    served.settle()
    assert served.page.input_value("#query") == "the"


def test_search_by_token_and_by_label(either):
    either.go("/search")
    page = either.page
    page.fill("#query", " king")
    page.check("input[value=token]")
    either.press("Enter")
    either.shows("#found .node")
    row = page.locator("#found .listing tbody tr").first
    assert row.locator("td").all_inner_texts()[2:] == ["60 %", "40 %", "0.48"] or row.locator("td").all_inner_texts()[
        2:
    ] == ["60.0 %", "40.0 %", "0.480"]
    assert page.locator("#found .listing .id").all_inner_texts()[:2] == ["a1", "b2"]
    assert "120 times" in page.locator("#found").inner_text()
    page.fill("#query", "royalty")
    page.check("input[value=label]")
    page.click(".ask button")
    playwright.expect(page.locator("#found .label")).to_have_text(f"royalty {ATTACK}")
    page.locator("#found .node").click()
    either.shows("article[data-id='a1']")
    page.go_back()
    either.shows("#found .node")
    page.fill("#query", "nothing like it")
    either.press("Enter")
    either.shows("#found .empty")


def test_addresses_of_an_older_release_lead_to_the_same_features(either):
    either.go("/feature/1.3")
    either.shows("article[data-id='b3']")
    either.go("/compare/0.1")
    either.shows("article[data-id='a1']")
    either.go("/?at=0.1")
    either.shows("#map")
    assert "a1" in either.page.locator("#trail").inner_text()


def test_the_corpus_is_shown_and_not_run(either):
    for path in ("/feature/a1", "/compare/a1", "/baseline/4", "/list/level-0", "/report"):
        either.go(path)
        assert either.page.locator("main script, main img, main iframe").count() == 0
    either.go("/feature/a1")
    assert ATTACK in either.page.locator("h1").inner_text()
    assert ATTACK in either.page.locator(".lines").first.inner_text().replace("\n", "")


def test_the_exact_activation_by_pointer_and_by_keys(either):
    either.go("/feature/b3")
    page, tip = either.page, either.page.locator("#tip")
    line = page.locator("section[aria-labelledby=top] .line").first
    line.locator("mark.focus").hover()
    assert tip.inner_text().startswith("9.00")
    page.mouse.move(5, 5)
    line.focus()
    assert tip.inner_text().startswith("9.00") and "token 8" in tip.inner_text()
    marks = line.locator("mark")
    at = [mark.get_attribute("data-a") for mark in marks.all()]
    focus = marks.evaluate_all("all => all.findIndex(one => one.classList.contains('focus'))")
    if focus + 1 < len(at):
        either.press("ArrowRight")
        assert tip.inner_text().startswith(at[focus + 1])
    either.press("ArrowDown")
    assert tip.inner_text().startswith("8.64")
    either.press("Enter")
    assert page.locator(".line.whole").count() == 1


def test_a_label_is_edited_in_place_and_seen_in_the_tree(served, index):
    served.go("/feature/a0")
    served.press("e")
    served.page.keyboard.type("kings & <b>queens</b>")
    served.press("Enter")
    served.title("kings & <b>queens</b>")
    assert index.named["a0"].author == "Ada"
    served.press("Escape")
    served.title("hier")
    assert "kings & <b>queens</b>" in served.page.locator("#trail").inner_text()


def test_what_fires_on_a_text(served):
    served.go("/text")
    page = served.page
    page.fill("#typed", "the king <script>alert(4)</script>")
    page.click(".ask button")
    served.shows(".note:has-text('holds the text')")  # the example, which was there before, is gone
    assert served.view().startswith("/text?text=the+king+")  # a link that can be sent
    page.locator("#tokens button").first.click()
    # b8 is below its parent; b20 is below its own, which is silent, and not below the parent that stands before it
    assert page.locator(".paths > li").evaluate_all("all => all.map((one) => one.innerText.match(/[ab]\\d+/g))") == [
        ["a1", "b8"],
        ["a2", "b20"],
    ]
    assert page.locator(".paths .silent .id").all_inner_texts() == ["a2"]
    assert "1.00 · 11 %" in page.locator(".paths").inner_text()
    assert served.view().endswith("&token=0")
    page.reload()
    served.settle()
    assert page.locator("#tokens .at").get_attribute("data-at") == "0"
    page.locator("[data-show]", has_text="b8").click()
    shown = page.locator("#tokens button span").evaluate_all("all => all.map((one) => one.className)")
    assert shown == ["h1", "", "h3"]  # 1 and 3 of at most 9
    page.locator("[data-show]", has_text="b8").click()
    assert page.locator("#tokens button span[class^=h]").count() == 0
    page.locator(".paths .node").first.click()
    served.shows("article[data-id='a1']")


def test_an_example_of_what_fires_is_there_before_anything_is_typed(either):
    either.go("/text")
    page = either.page
    assert page.locator("#tokens button").count() == 5 and page.locator(".paths > li").count() == 2
    assert page.locator("#tokens .at").get_attribute("data-at") == "4"  # the strongest child with its parent
    assert page.locator("#tokens small").all_inner_texts()[1:3] == ["", f"royalty {ATTACK}"]
    page.locator("#tokens button").nth(2).click()
    assert either.view() == "/text?token=2"
    page.reload()
    either.settle()
    assert page.locator("#tokens .at").get_attribute("data-at") == "2"


@pytest.mark.parametrize("path", ["/feature/a1", "/feature/b3", "/compare/b3", "/baseline/4"])
def test_contexts_of_a_folder_are_those_of_the_server(served, opened, path):
    lines = []
    for page in (served, opened):
        page.go(path)
        lines.append(page.page.evaluate("[...document.querySelectorAll('.line')].map((line) => line.outerHTML)"))
    assert len(lines[0]) > 3 and lines[0] == lines[1]


def test_a_folder_says_how_to_run_a_text(opened):
    opened.go("/text")
    assert "--serve" in opened.page.locator("main").inner_text()


class LargeFamily(FakeIndex):
    """All children are those of a0."""

    def __init__(self):
        super().__init__()
        self.parent = [-1] * PARENTS + [0] * (len(self.parent) - PARENTS)


@pytest.fixture(params=["served", "folder"])
def large_family(request, browser, tmp_path) -> Iterator[Watched]:
    if request.param == "folder":
        yield from watched(browser, static.write(LargeFamily(), tmp_path / "site").path.as_uri() + "#")
    else:
        with serving(LargeFamily()) as address:
            yield from watched(browser, address)


def test_contexts_of_a_large_family_load_when_they_are_seen(large_family):
    large_family.go("/feature/a0")
    page = large_family.page
    rows = page.locator("#division > li")
    assert rows.count() == 52 and page.locator("#division .later").count() >= 24
    last = rows.last
    last.scroll_into_view_if_needed()
    playwright.expect(last.locator(".line")).to_have_count(3)
    assert last.locator(".lines").get_attribute("data-of") == "b51"


def test_children_can_be_sorted_and_filtered(large_family):
    large_family.go("/feature/a0")
    page = large_family.page
    ids = page.locator("#division > li:visible .who .id")
    assert ids.first.inner_text() == "b0"
    page.select_option("#sort", "rate")
    assert [ids.nth(at).inner_text() for at in range(3)] == ["b0", "b7", "b14"]
    page.fill("#filter", "b51")
    assert ids.all_inner_texts() == ["b51"] and page.locator("#sifted").inner_text() == "1 of 52"
    playwright.expect(page.locator("#division > li:visible .line")).to_have_count(3)
    page.fill("#filter", "")
    assert ids.count() == 52 and page.locator("#sifted").inner_text() == ""


def test_the_order_of_children_is_in_the_address(large_family):
    page = large_family.page
    large_family.go("/feature/a0?sort=name&only=king")
    assert page.locator("#sort").input_value() == "name" and page.locator("#filter").input_value() == "king"
    page.locator("#filter").fill("")
    page.locator("#sort").select_option("rate")
    assert large_family.view() == "/feature/a0?sort=rate"


def test_a_list_can_be_sorted_and_filtered_and_its_address_sent(large_family):
    page = large_family.page
    large_family.go("/list/level-1")
    rows = page.locator("#listing tbody tr")
    assert rows.count() == 52
    page.locator("#list-only").fill("b1")
    playwright.expect(rows).to_have_count(11)
    assert page.locator("#sifted").inner_text() == "11 of 52" and large_family.view() == "/list/level-1?only=b1"
    large_family.go("/list/level-1?sort=lift&up=1")
    lifts = [float(text) for text in rows.locator("td:last-child").all_inner_texts()]
    assert len(lifts) == 52 and lifts == sorted(lifts) and lifts[0] < lifts[-1]
    assert page.locator("#list-sort").input_value() == "lift" and page.locator("#list-up").is_checked()


def test_the_order_of_a_list_goes_through_all_its_pages(browser):
    with serving(LargeIndex()) as address:
        for one in watched(browser, address):
            one.go("/list/level-1?sort=lift&up=1&page=991")
            lifts = one.page.locator("#listing td:last-child").all_inner_texts()
            assert len(lifts) == 100 and set(lifts) == {"0.990"}
            assert one.page.locator(".turn span").inner_text() == "990 of 990"
            one.page.locator(".turn a[rel=prev]").click()
            playwright.expect(one.page.locator(".turn span")).to_have_text("989 of 990")
            assert one.view() == "/list/level-1?sort=lift&up=1&page=989"


def test_from_a_line_to_its_whole_document_and_back(either):
    either.go("/feature/b3")
    page = either.page
    line = page.locator("section[aria-labelledby=top] .line").first
    line.click()
    assert "token 8" in line.locator(".source").inner_text()
    line.locator(".source a").click()
    either.shows("#document")
    assert either.view() == "/document/0?at=0&of=b3"
    assert page.locator("#document .at").inner_text() == "the"
    marks = page.locator("#document mark").count()
    assert marks > 0 if "http" in either.address else marks == 0  # a folder has no activations of whole documents
    page.locator(".turn a").click()
    either.shows("#document [data-first='2000']")
    page.locator(".crumbs a").click()
    either.shows("article[data-id='b3']" if "http" in either.address else "#map")


def test_an_address_that_leads_nowhere(opened):
    opened.go("/feature/7.7")
    opened.title("No such page")
    opened.page.click("main a")
    opened.title("hier")


def test_the_lists_and_the_baseline_can_be_walked(either):
    either.go("/")
    page = either.page
    page.locator(".groups a", has_text="Root children").click()
    either.title("Root children")
    page.locator(".listing .node").first.click()
    either.shows("article.feature")
    assert "no parent" in page.locator(".eyebrow").inner_text()
    page.locator(".bar nav a", has_text="Baseline").click()
    either.title("flat")
    page.locator(".tabs a", has_text="split").click()
    either.shows(".tabs a[aria-current]:has-text('split')")
    page.locator(".listing .node").first.click()
    either.title("Flat latent")
    assert "split" in page.locator("h1").inner_text()


def test_the_switches_of_the_map_are_in_its_address(either):
    either.go("/")
    page = either.page
    before = page.locator("#map canvas").first.evaluate("canvas => canvas.toDataURL()")
    page.select_option("#size", "equal")
    page.select_option("#colour", "rate")
    assert either.view() == "/?size=equal&colour=rate"
    after = page.locator("#map canvas").first.evaluate("canvas => canvas.toDataURL()")
    assert before != after
    page.reload()
    either.settle()
    assert page.input_value("#size") == "equal" and page.input_value("#colour") == "rate"
    assert page.locator("#map canvas").first.evaluate("canvas => canvas.toDataURL()") == after


def test_the_card_shows_name_figures_and_contexts_by_pointer_and_by_keys(either):
    either.go("/")
    page, card = either.page, either.page.locator("#about")
    assert card.is_hidden()
    page.locator("#map").focus()
    either.press("Enter")  # chooses the first family
    playwright.expect(card.locator(".card-contexts li")).to_have_count(3)
    assert "fires in 20.0 %" in " ".join(card.inner_text().split())
    either.press("Escape")
    assert card.is_hidden()
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 80)  # a child of the first family
    playwright.expect(card.locator(".card-contexts mark").first).to_be_visible()
    for part in ("inside its parent", "lift", "share of the parent", "of it with a sibling"):
        assert part in card.inner_text()
    assert card.locator("script, img").count() == 0
    page.mouse.move(5, 5)
    assert card.is_hidden()


def test_text_on_the_map_has_contrast_in_every_hue(either):
    either.go("/")
    ramps = either.page.evaluate(
        "() => [false, true].map((dark) => Array.from({ length: 60 }, (_, hue) => hiersae.ramp(6 * hue, dark)))"
    )
    for ramps_of_theme, ink in zip(ramps, ("#1d1b18", "#f1ece5"), strict=True):
        for ramp in ramps_of_theme:
            for ground in (ramp["ground"], ramp["none"], *ramp["steps"]):
                assert contrast(ink, ground) >= 4.5, (ink, ground)


def test_groups_without_a_family_are_zoomed_from_their_band(either):
    either.go("/")
    page = either.page
    box = page.locator("#map").bounding_box()
    page.mouse.click(box["x"] + 40, box["y"] + box["height"] - 20)
    assert either.view() == "/?at=no-parent" and "3 without a parent" in page.locator("#trail").inner_text()
    page.reload()
    either.settle()
    assert "3 without a parent" in page.locator("#trail").inner_text()


def test_a_definition_appears_where_a_figure_has_the_focus(either):
    either.go("/report")
    page = either.page
    term = page.locator(".full .term").first
    assert term.locator(".definition").is_hidden()
    term.focus()
    assert "variance" in term.locator(".definition").inner_text()
    assert page.locator(".definitions dt").count() >= 5


@pytest.mark.parametrize("button", ["#save-svg", "#save-png", ".save-svg", ".save-png"])
def test_pictures_are_saved(either, button, tmp_path):
    either.go("/" if button.startswith("#") else "/feature/a1")
    if not button.startswith("#"):
        either.page.locator(".figure summary").click()
    with either.page.expect_download() as waiting:
        either.page.click(button)
    waiting.value.save_as(tmp_path / "picture")
    data = (tmp_path / "picture").read_bytes()
    assert data.startswith(b"<svg" if button.endswith("svg") else b"\x89PNG") and len(data) > 2000
    if data.startswith(b"<svg"):
        assert 0 < float(re.search(rb' width="([\d.]+)in"', data)[1]) <= 7


def test_the_theme_is_that_of_the_system_until_one_is_chosen(browser, index):
    with serving(index) as address:
        for one in watched(browser, address, color_scheme="dark"):
            ground = "() => getComputedStyle(document.documentElement).backgroundColor"
            one.go("/feature/a1")
            dark = one.page.evaluate(ground)
            one.page.click("#theme")
            light = one.page.evaluate(ground)
            assert dark != light
            one.go("/search")
            assert one.page.evaluate(ground) == light
            assert one.page.context.cookies() == []


def test_nothing_is_wider_than_a_phone(browser, index):
    with serving(index) as address:
        for one in watched(browser, address, viewport={"width": 360, "height": 740}, color_scheme="dark"):
            for path in (
                "/",
                "/feature/a1",
                "/feature/b3",
                "/compare/a1",
                "/baseline",
                "/baseline/4",
                "/list/level-1",
                "/search?q=king",
                "/report",
                "/text?text=a+b",
                "/document/0?at=3&of=a1",
            ):
                one.go(path)
                assert one.page.evaluate("document.documentElement.scrollWidth") <= 360, path


def test_the_map_of_100_000_features_can_be_zoomed(browser):
    with serving(LargeIndex()) as address:
        for one in watched(browser, address):
            one.page.goto(address)
            one.settle()
            one.page.locator("#map").focus()
            one.press("Enter", "Enter")
            assert one.view() == "/?at=a0"


class LargeIndex(FakeIndex):
    """100,000 features below 1,000 parents; only its overview and contexts are asked for."""

    def strongest(self, latent: int, count: int) -> list[Context]:
        return self.contexts(latent, count, 9.0)

    def overview(self) -> Overview:
        parents, children = 1000, 99_000
        small = super().overview()
        parent = [-1] * parents + [(child * child) % parents for child in range(children)]
        rate = [0.3 / (1 + place) for place in range(parents)] + [0.05 / (1 + child % 997) for child in range(children)]
        self.widths, self.level = [parents, children], [0] * parents + [1] * children
        self.latent = [*range(parents), *range(children)]
        self.names = Levels.of(self.widths).ids
        over = [None] * parents + [child % 100 / 100 for child in range(children)]
        return Overview(
            **{
                **vars(small),
                "run": small.run | {"widths": self.widths},
                "level": self.level,
                "latent": self.latent,
                "parent": parent,
                "label": [None] * len(parent),
                "hint": [f"tok{place} a b" for place in range(len(parent))],
                "rate": rate,
                "mi_bits": over,
                "max_mi_bits": over,
                "mi_over_max": over,
                "lift": over,
                "p_parent_given_child": over,
                "share": over,
                "overlap": over,
                "alone": [None] * len(parent),
                "fvu_increase": rate,
                "dead": [False] * len(parent),
                "root_child": [False] * len(parent),
            }
        )
