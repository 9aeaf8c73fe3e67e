"""Turn a configuration dataclass into a Typer command, so that no flag is declared twice."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Collection
from typing import Annotated, Any

import typer

from hiersae_cli.cli.helptext import OUTPUT, GroupedCommand
from hiersae_cli.cli.verbs import Verb
from hiersae_cli.config.base import Config, flag_name, typed
from hiersae_cli.console import Console, Mute
from hiersae_cli.distributed.launch import launched
from hiersae_cli.errors import UsageError
from hiersae_cli.interrupt import Interrupted

_SHARED = {
    "json": Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on standard output.", rich_help_panel=OUTPUT)
    ],
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only warnings and errors.", rich_help_panel=OUTPUT)
    ],
}


def register(app: typer.Typer, name: str, verb: Verb) -> None:
    """Add ``verb`` to ``app`` as the command ``name``, with the flags of its configuration."""

    def command(typer_context: typer.Context, **values: Any) -> None:
        values.pop("config", None)  # it has set the defaults of all others
        console = Console(json=values.pop("json"), quiet=values.pop("quiet"))
        if (place := launched()) and place.rank:
            console = Mute()
        try:
            if place and not verb.by_ranks:
                raise UsageError(f"{verb.name}: runs in one process", "Start it without torchrun.")
            config = build(verb.config, values)
            config.refuse_unused([name for name in values if _was_given(typer_context, name)])
            config.check_command_line()
            verb.run(config, console)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None  # Typer would exit without a message

    parameters = [inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters += [_parameter(field, hint) for field, hint in _fields(verb.config)]
    if verb.record:
        parameters.append(_config_parameter(verb))
    parameters += [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=a) for n, a in _SHARED.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    heading = None if " " in verb.name else verb.heading
    app.command(name, cls=GroupedCommand, help=verb.help, rich_help_panel=heading)(command)


def _config_parameter(verb: Verb) -> inspect.Parameter:
    """``--config FILE``, which is read before all other flags and sets their defaults."""

    def read(typer_context: typer.Context, path: str) -> None:
        if path:
            from hiersae_cli.formats.recorded_config import recorded_flags

            typer_context.default_map = recorded_flags(path, verb.config)

    info = typer.Option(
        "--config",
        help=f"Take the flags that a {verb.record} of this command records. Flags given here override them.",
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=read,
        show_default=False,
        rich_help_panel=OUTPUT,
    )
    return inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default="", annotation=Annotated[str, info])


def build(config_class: type[Config], values: dict[str, Any]) -> Config:
    """The configuration for the values on the command line; values of flags with a parser are texts."""
    for field in dataclasses.fields(config_class):
        parse = field.metadata.get("parse")
        if parse and isinstance(values.get(field.name), str):
            try:
                values[field.name] = parse(values[field.name])
            except ValueError as error:
                raise UsageError(f"{flag_name(field)}: {error}") from None
    return config_class(**values)


def _beginning_among(choices: Collection[str]) -> Callable[[str], list[str]]:
    """Gives the choices that a shell offers for what has been typed."""

    def offered(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice and choice.startswith(incomplete)]

    return offered


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _fields(config_class: type[Config]) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(config_class)
    groups = ("", *config_class.GROUPS)

    def place(field: dataclasses.Field[Any]) -> tuple[int, bool]:
        """The rank of a field: by group, then the verb's own fields before those that it shares with others."""
        group = field.metadata.get("group", "")
        return (
            groups.index(group) if group in groups else len(groups),
            field.name not in config_class.__annotations__,
        )

    fields = sorted(dataclasses.fields(config_class), key=place)
    return [(field, hints[field.name]) for field in fields]


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    meta = field.metadata
    default = typed(field.default) if meta.get("parse") and field.default is not None else field.default
    annotation = str if meta.get("parse") else hint
    if meta["kind"] == "argument":
        info = typer.Argument(help=meta["help"], metavar=meta["metavar"], show_default=False)
    else:
        names = meta["names"] or (flag_name(field),)
        choices = meta.get("choices")
        metavar = meta["metavar"] or ("|".join(choices) if choices else "COUNT" if meta.get("parse") else None)
        has_default = default not in ("", None, dataclasses.MISSING) and meta["kind"] == "option"
        only_for = [value for values in meta.get("only_for", {}).values() for value in values]
        text = f"{', '.join(only_for)}: {meta['help']}" if only_for else meta["help"]
        info = typer.Option(
            *names,
            help=text,
            metavar=metavar,
            show_default=has_default,
            rich_help_panel=meta["group"] or None,
            autocompletion=_beginning_among(choices) if choices else None,
        )
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if default is dataclasses.MISSING:
        default = inspect.Parameter.empty
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, info]
    )
