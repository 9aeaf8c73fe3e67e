"""axe-core finds nothing serious on any page, light or dark, on a screen and on a phone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fake_index import FakeIndex, serving
from tests.test_pages_browser import CHROMIUM, browser, watched  # noqa: F401 (a fixture)

_AXE = find_spec("axe_playwright_python")

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.skipif(not _AXE, reason="axe-core is not installed: pip install axe-playwright-python"),
]

PAGES = (
    "/",
    "/feature/a1",
    "/feature/b3",
    "/compare/a1",
    "/baseline",
    "/baseline/4",
    "/list/level-0",
    "/list/root-children",
    "/search?q=king",
    "/report",
    "/text?text=a+b",
    "/document/2?at=3&of=a1",
    "/nowhere",
)
# Best practices are advice, not faults; a frame cannot be loaded here.
_RUN = """async () => (await axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }))
    .violations.filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html }) => html.slice(0, 160)).join(" | ")}`)"""


@pytest.mark.parametrize("theme, width", [("light", 1280), ("dark", 390)])
def test_no_page_has_serious_faults(browser, theme, width):  # noqa: F811
    assert _AXE and _AXE.origin
    script = (Path(_AXE.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    faults: dict[str, list[str]] = {}
    with serving(FakeIndex()) as address:
        for page in watched(browser, address, color_scheme=theme, viewport={"width": width, "height": 800}):
            for path in PAGES:
                page.go(path)
                page.page.evaluate(script)
                if serious := page.page.evaluate(_RUN):
                    faults[path] = serious
            page.wrong = [text for text in page.wrong if "404" not in text]  # of /nowhere
    assert faults == {}
