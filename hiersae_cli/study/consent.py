"""The consent file: what raters are told and agree to, in a small part of Markdown, as HTML.

Headings, paragraphs, lists, ``**bold**``, ``*italics*``, ``[links](https://…)`` and addresses of e-mail. Everything is
escaped; ``{minutes}`` and ``{questions}`` stand for the length of a session.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from markupsafe import Markup, escape

# What a rater must be told, by the words of which a heading has at least one.
_TOPICS = {
    "the institution": ("institution", "university", "who", "researcher", "company", "about"),
    "a contact": ("contact", "question", "complaint"),
    "the duration": ("duration", "time", "long"),
    "the payment": ("pay", "compensation", "reward"),
    "withdrawal": ("withdraw", "stop", "voluntary", "rights"),
}
_INLINE = re.compile(
    r"\*\*(?P<bold>[^*]+)\*\*|\*(?P<italic>[^*\s][^*]*)\*"
    r"|\[(?P<text>[^\]]+)\]\((?P<url>(?:https?://|mailto:)[^\s()]+)\)"
    r"|(?P<mail>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)"
)


def unmentioned(text: str) -> list[str]:
    """The topics that no heading of a consent text is about."""
    headings = " ".join(line for line in text.splitlines() if line.startswith("#")).lower()
    return [topic for topic, words in _TOPICS.items() if not any(word in headings for word in words)]


def as_html(text: str, minutes: int, questions: int) -> Markup:
    """The text as HTML, its headings from the second level down."""
    text = text.replace("{minutes}", str(minutes)).replace("{questions}", str(questions))
    return Markup("\n").join(_blocks(text))


def _blocks(text: str) -> Iterator[Markup]:
    for kind, group in groupby(text.splitlines(), key=_kind):
        lines = list(group)
        if kind == "heading":
            for line in lines:
                level = min(4, max(2, len(line) - len(line.lstrip("#"))))
                yield Markup("<h{0}>{1}</h{0}>").format(level, _inline(line.lstrip("#").strip()))
        elif kind == "list":
            items = Markup("").join(Markup("<li>{}</li>").format(_inline(line.strip()[2:])) for line in lines)
            yield Markup('<ul class="terms">{}</ul>').format(items)
        elif kind == "text":
            yield Markup("<p>{}</p>").format(_inline(" ".join(line.strip() for line in lines)))


def _kind(line: str) -> str:
    if not line.strip():
        return ""
    if re.match(r"#{1,6}\s", line):
        return "heading"
    return "list" if line.strip().startswith(("- ", "* ")) else "text"


def _inline(text: str) -> Markup:
    parts, end = [], 0
    for match in _INLINE.finditer(text):
        parts += [escape(text[end : match.start()]), _element(match)]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def _element(match: re.Match[str]) -> Markup:
    if match["bold"]:
        return Markup("<strong>{}</strong>").format(match["bold"])
    if match["italic"]:
        return Markup("<em>{}</em>").format(match["italic"])
    url, text = (match["url"], match["text"]) if match["url"] else (f"mailto:{match['mail']}", match["mail"])
    return Markup('<a href="{}">{}</a>').format(url, text)
