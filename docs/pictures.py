"""Make the pictures of the dashboard in ``docs/images`` from its pages, in Chromium without a window.

    python docs/pictures.py [DASHBOARD] [--tree FILE] [--out DIR]

``DASHBOARD`` is a folder of pages, or the address of a served dashboard. ``make pictures`` runs the demo first, and
this on ``demo/dashboard``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from hiersae_cli.formats.tree import load_tree, telling_families

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1280, 960
# Down to the foot of the map: the lists below are left out.
FOOT = "Math.ceil(document.querySelector('.map-foot').getBoundingClientRect().bottom) + 4"


def make(dashboard: Path | str, out: Path, tree: Path | None = None) -> list[Path]:
    """Write the map, and the page of a parent, to ``out``; returns the files.

    The parent is the head of the first family that ``hiersae info`` names of ``tree``, with four children or more;
    without such a file it is the first parent of the map.

    Args:
        dashboard: a folder of pages, or an address.
        tree: the ``tree.json`` of the run; by default that next to the folder.
    """
    if isinstance(dashboard, Path):
        start = (dashboard / "index.html").absolute().as_uri() + "#"
        tree = tree or dashboard.parent / "tree.json"
    else:
        start = dashboard.rstrip("/")
    files = [out / "dashboard-tree.png", out / "dashboard-parent.png"]
    with opened_page(WIDTH, HEIGHT) as (page, _):
        page.goto(f"{start}/")
        page.wait_for_selector("html[data-ready] #map:not([data-loading])")  # with its contexts
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": page.evaluate(FOOT)}
        page.screenshot(path=files[0], clip=clip, full_page=True)
        if parent := _parent(tree):
            page.goto(f"{start}/feature/{parent}")
        else:
            page.locator("#map").focus()
            for key in ("Enter", "o"):  # choose the first, and open its page
                page.keyboard.press(key)
        page.wait_for_selector("html[data-ready] article.feature")
        page.screenshot(path=files[1])
    for file in files:  # six bits of each colour look the same, and take a quarter less space
        with Image.open(file) as picture:
            ImageOps.posterize(picture.convert("RGB"), 6).save(file, optimize=True)
    return files


@contextmanager
def opened_page(width: int, height: int) -> Iterator[tuple[Any, list[str]]]:
    """A light page of Chromium without a window, in pixels, and the list that collects its console messages."""
    from playwright.sync_api import sync_playwright

    messages: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="light", reduced_motion="reduce"
        )
        page.set_default_timeout(120_000)  # a busy machine is slow
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        yield page, messages
        browser.close()


def _parent(tree_file: Path | None) -> str | None:
    if not tree_file or not tree_file.exists():
        return None
    tree = load_tree(tree_file)
    return next((parent.id for parent in telling_families(tree) if len(tree.children(parent.id)) > 3), None)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the pictures of the dashboard in the docs.")
    parser.add_argument("dashboard", nargs="?", default="demo/dashboard", help="folder of pages, or an address")
    parser.add_argument("--tree", type=Path, help="tree.json of the run (default: next to the folder)")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures")
    options = parser.parse_args()
    if not CHROMIUM:
        print("error: Chromium is not installed\nInstall it: apt-get install chromium", file=sys.stderr)
        return 1
    served = options.dashboard.startswith("http")
    if not served and not (Path(options.dashboard) / "index.html").exists():
        print(f"error: {options.dashboard}: no dashboard there\nRun 'make demo' first.", file=sys.stderr)
        return 1
    for file in make(options.dashboard if served else Path(options.dashboard), options.out, options.tree):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
