"""The environment of all templates: their filters, and the functions that need no index."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from hiersae_cli.layout import split_interval
from hiersae_cli.metrics.catalogue import term
from hiersae_cli.pages import charts, text
from hiersae_cli.version import __version__


def environment() -> Environment:
    """A new environment, to which a user may add filters and functions."""
    made = Environment(
        loader=PackageLoader("hiersae_cli.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        count=lambda number: f"{number:,}",
        percent=text.percent,
        number=text.number,
        running=text.running,
        one_line=text.one_line,
        token=text.token,
        value=text.value,
        split_interval=split_interval,
    )
    made.globals.update(
        step=text.step,
        stretch=text.stretch,
        histogram=charts.histogram,
        figure_term=term,
        version=__version__,
    )
    return made
