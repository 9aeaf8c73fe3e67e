"""The application: every verb, by what it is for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hiersae_cli.cli.flags import register
from hiersae_cli.cli.helptext import GroupedCommands
from hiersae_cli.cli.verbs import GROUPS, VERBS
from hiersae_cli.version import __version__

# Rich help costs about 200 ms; the plain one is as readable.
app = typer.Typer(
    name="hiersae",
    cls=GroupedCommands,
    help="From a language model's activations to a tree of interpretable features.",
    epilog="""\b
The short chain; every command has --help:
  hiersae cache text.txt --model HOST --layer 6 -o acts.h5
  hiersae train acts.h5 --arch hier -o runs/hier
  hiersae train acts.h5 --arch batchtopk -o runs/flat
  hiersae eval runs/hier --baseline runs/flat --acts acts.h5
  hiersae dashboard runs/hier --acts acts.h5 --serve
""",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _add_verbs() -> None:
    groups: dict[str, typer.Typer] = {}
    for verb in VERBS:
        group, _, name = verb.name.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(
                cls=GroupedCommands, help=GROUPS[group], rich_markup_mode=None, no_args_is_help=True
            )
            app.add_typer(groups[group], name=group, rich_help_panel=verb.heading)
        register(groups.get(group, app), name, verb)


_add_verbs()


def commands() -> dict[str, Any]:
    """Every command by what is typed, those of a group as ``study new``."""
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        parts = getattr(command, "commands", {"": command})
        found |= {f"{name} {part}".strip(): one for part, one in parts.items()}
    return found


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hiersae {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
