"""The application: all verbs, grouped by purpose."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hiersae_cli.cli.flags import register
from hiersae_cli.cli.helptext import GroupedCommands
from hiersae_cli.cli.verbs import GROUPS, VERBS
from hiersae_cli.version import __version__

# Rich help costs about 200 ms; plain help is as readable.
app = typer.Typer(
    name="hiersae",
    cls=GroupedCommands,
    help="From a language model's activations to a tree of interpretable features.",
    epilog="""\b
A short chain; every command has --help:
  hiersae cache text.txt --model HOST --layer 6 -o acts.h5
  hiersae train acts.h5 --arch hier -o runs/hier
  hiersae train acts.h5 --arch batchtopk -o runs/flat
  hiersae eval runs/hier --baseline runs/flat --acts acts.h5
  hiersae dashboard runs/hier --acts acts.h5 --serve
""",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
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
    """Every command by its name; commands of a group by two words, such as ``study new``."""
    group: Any = typer.main.get_command(app)
    by_name: dict[str, Any] = {}
    for name, command in group.commands.items():
        subcommands = getattr(command, "commands", {"": command})
        by_name |= {f"{name} {subname}".strip(): subcommand for subname, subcommand in subcommands.items()}
    return by_name


def _print_version(requested: bool) -> None:
    if requested:
        print(f"hiersae {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
