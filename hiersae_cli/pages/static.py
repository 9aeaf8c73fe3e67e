"""The dashboard as a folder of pages, which opens from a disk without a server and loads nothing from elsewhere.

The pages are the server's, compressed, several to a file; the browser unpacks them when they are opened. Plain pages
would take several times the space. The files are scripts, because a page on a disk can load nothing else from its
folder.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiersae_cli.browse.index import Index
from hiersae_cli.formats.atomic import replacing_folder
from hiersae_cli.pages.render import ASSETS, VERDICTS, Page, Pages
from hiersae_cli.pages.shared_texts import MARK, SharedTexts
from hiersae_cli.pages.text import asset_text

# Pages per file, the same as in folder.js: more would open more slowly, fewer would make more files.
TOGETHER = 32

_LINE = re.compile(f"{MARK}([^{MARK}]*){MARK}")


@dataclass(frozen=True)
class Folder:
    """A written folder: the ``path`` of the page to open, the number of ``pages``, and the total ``size`` in bytes."""

    path: Path
    pages: int
    size: int


def write(index: Index, folder: Path, *, advance: Callable[[int], None] = lambda features: None) -> Folder:
    """Write all pages to ``folder``, replacing its contents.

    ``advance`` is called now and then with the number of features (and latents of the baseline) written since.
    """
    texts = SharedTexts()
    pages = Pages(index, served=False, lines=texts.lines)
    size = count = 0
    with replacing_folder(folder) as temporary:
        assets = temporary / "assets"
        assets.mkdir()
        scripts = {name: asset_text(name) for name in (*ASSETS, "lines.js", "folder.js")}
        scripts |= {"tree.js": pages.tree_data, "labels.js": pages.label_data(), "tokens.js": pages.token_data()}
        scripts |= {f"cards-{file}.js": pages.card_data(file) for file in range(pages.card_files)}
        for name, script in scripts.items():
            size += (assets / name).write_bytes(script.encode())
        for name, pages_by_address, features in _files(pages, index):
            size += (assets / f"{name}.js").write_bytes(_packed(name, _shared(pages_by_address)).encode())
            count += len(pages_by_address)
            advance(features)
        size += (assets / "texts.js").write_bytes(_packed("texts", texts.data()).encode())
        size += (temporary / "index.html").write_bytes(pages.document(pages.overview()).encode())
    return Folder(folder / "index.html", count + 1, size)


def _files(pages: Pages, index: Index) -> Iterator[tuple[str, dict[str, Page], int]]:
    """Each file's name, its pages by address, and their number of features. ``folder.js`` uses the same names."""
    ids, baseline = index.ids(), index.baseline_latents()
    for start in range(0, len(ids), TOGETHER):
        features: dict[str, Page] = {}
        for id in ids[start : start + TOGETHER]:
            features[f"feature/{id}"], features[f"compare/{id}"] = pages.feature_and_compare(id)
            features |= pages.later_children(id)
        yield f"feature-{start // TOGETHER}", features, len(ids[start : start + TOGETHER])
    for start in range(0, baseline, TOGETHER):
        latents = range(start, min(start + TOGETHER, baseline))
        flat_latents = {f"baseline/{latent}": pages.baseline(latent) for latent in latents}
        yield f"baseline-{start // TOGETHER}", flat_latents, len(latents)
    for name in pages.groups:
        last = pages.last_page(name)
        for start in range(0, last, TOGETHER):
            numbers = range(start + 1, min(start + TOGETHER, last) + 1)
            lists = {f"list/{name}/{number}": pages.listing(name, number) for number in numbers}
            yield f"list-{name}-{start // TOGETHER}", lists, 0
    for start in range(0, index.passages(), TOGETHER):
        numbers = range(start, min(start + TOGETHER, index.passages()))
        documents = {f"document/{number}": pages.document_part(number) for number in numbers}
        yield f"document-{start // TOGETHER}", documents, 0
    others = {"report": pages.report(), "search": pages.search(), "text": pages.text(), "baseline": pages.fates()}
    yield "rest", others | {f"baseline/are/{verdict}": pages.fates(verdict) for verdict in VERDICTS}, 0


def _shared(pages: dict[str, Page]) -> list[Any]:
    """The lines of some pages, each once, and the pages, in which lines are numbers between two ``MARK``."""
    lines: dict[str, int] = {}

    def numbered(line: re.Match[str]) -> str:
        return f"{MARK}{lines.setdefault(line[1], len(lines))}{MARK}"

    content = {address: [page.title, page.view, _LINE.sub(numbered, page.body)] for address, page in pages.items()}
    return [list(lines), content]


def _packed(name: str, content: Any) -> str:
    """The script of a file: its content as JSON, compressed."""
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = base64.b64encode(deflate.compress(data) + deflate.flush()).decode()
    return f'window.hiersae.unpack("{name}", "{packed}");\n'
