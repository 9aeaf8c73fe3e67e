"""Make the pictures of the dashboard in ``docs/images`` from its folder of pages, in Chromium without a window.

    python docs/pictures.py [DASHBOARD] [--out DIR]

``make pictures`` runs the demo first, and this on ``demo/dashboard``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

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


def make(dashboard: Path, out: Path) -> list[Path]:
    """Write the map, and the page of a parent, to ``out``; returns the files.

    The parent is the head of the first family that ``hiersae info`` names of the ``tree.json`` next to the dashboard,
    with four children or more; without such a file it is the first parent of the map.
    """
    from playwright.sync_api import sync_playwright

    files = [out / "dashboard-tree.png", out / "dashboard-parent.png"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", reduced_motion="reduce"
        )
        page.goto((dashboard / "index.html").absolute().as_uri() + "#/")
        page.wait_for_selector("html[data-ready] #map:not([data-loading])")  # with its contexts
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": page.evaluate(FOOT)}
        page.screenshot(path=files[0], clip=clip, full_page=True)
        if parent := _parent(dashboard.parent / "tree.json"):
            page.goto((dashboard / "index.html").absolute().as_uri() + f"#/feature/{parent}")
        else:
            page.locator("#map").focus()
            for key in ("Enter", "o"):  # choose the first, and open its page
                page.keyboard.press(key)
        page.wait_for_selector("html[data-ready] article.feature")
        page.screenshot(path=files[1])
        browser.close()
    return files


def _parent(tree_file: Path) -> str | None:
    if not tree_file.exists():
        return None
    tree = load_tree(tree_file)
    return next((parent.id for parent in telling_families(tree) if len(tree.children(parent.id)) > 3), None)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the pictures of the dashboard in the docs.")
    parser.add_argument("dashboard", nargs="?", type=Path, default=Path("demo/dashboard"), help="folder of pages")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures")
    options = parser.parse_args()
    if not CHROMIUM:
        print("error: Chromium is not installed\nInstall it: apt-get install chromium", file=sys.stderr)
        return 1
    if not (options.dashboard / "index.html").exists():
        print(f"error: {options.dashboard}: no dashboard there\nRun 'make demo' first.", file=sys.stderr)
        return 1
    for file in make(options.dashboard, options.out):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
