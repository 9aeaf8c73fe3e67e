"""The commands as functions: ``hiersae.train(acts="acts.h5", out="runs/hier")`` does what ``hiersae train`` does.

The parameters of a function are the fields of the command's configuration, with the same names, defaults and checks,
so that no flag is declared twice. A function returns what the command made, opened.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from os import PathLike, fspath
from textwrap import fill
from types import MappingProxyType
from typing import Any

from hiersae_cli.cli.verbs import VERBS
from hiersae_cli.config.base import Config
from hiersae_cli.console import Console
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.hub import with_local_paths

_VERBS = {verb.name: verb for verb in VERBS}
_INDENT, _WIDTH = 8, 100  # of parameters in a docstring


def _written(opener: str) -> Callable[[Any, Any], Any]:
    """Opens what a command wrote; ``opener`` is MODULE:FUNCTION below ``hiersae_cli.formats``."""
    module, _, name = opener.partition(":")
    return lambda config, result: getattr(import_module(f"hiersae_cli.formats.{module}"), name)(config.out)


def _path(config: Any, result: Any) -> str:
    return str(config.out)


def _tree(config: Any, result: Any) -> Any:
    return _written("tree:load_tree")(config, result) if config.format == "json" else _path(config, result)


def _report(config: Any, result: Any) -> Any:
    from hiersae_cli.formats.report import Report

    return Report(result)


def _function(
    function_name: str,
    opened: Callable[[Any, Any], Any],
    returns: str,
    verb_name: str = "",
    without: tuple[str, ...] = (),
    callbacks: Mapping[str, str] = MappingProxyType({}),
) -> Callable[..., Any]:
    """A command as a function.

    Args:
        opened: makes the function's result from the configuration and the command's result.
        returns: the function's result in words.
        verb_name: the command, if it has another name than the function.
        without: fields that make no sense in Python.
        callbacks: parameters that the workflow takes in addition to the configuration, with their help.
    """
    verb = _VERBS[verb_name or function_name]
    fields = [field for field in dataclasses.fields(verb.config) if field.name not in without]
    fields.sort(key=lambda field: field.name not in verb.config.__annotations__)  # its own before those it inherits
    others = [
        inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY, default=default)
        for parameter, default in {**dict.fromkeys(callbacks), "quiet": True}.items()
    ]
    parameters = sorted([*map(_parameter, fields), *others], key=_place)
    signature = inspect.Signature(parameters)

    def function(*args: Any, **values: Any) -> Any:
        values = signature.bind(*args, **values).arguments
        console = Console(quiet=values.pop("quiet", True))
        called = {parameter: values.pop(parameter) for parameter in callbacks if parameter in values}
        config = _config(verb.config, values)
        if config.names_hub():
            config = with_local_paths(config)
        module, _, workflow = verb.workflow.partition(":")
        result = getattr(import_module(f"hiersae_cli.workflows.{module}"), workflow)(config, console, **called)
        return opened(config, result[0] if isinstance(result, tuple) else result)

    function.__name__ = function.__qualname__ = function_name
    function.__module__ = "hiersae"
    function.__signature__ = signature  # type: ignore[attr-defined]
    texts = {field.name: field.metadata["help"] for field in fields}
    texts |= {**callbacks, "quiet": "Show only warnings."}
    function.__doc__ = _docstring(
        verb.help, returns, {parameter: texts[parameter] for parameter in signature.parameters}
    )
    return function


def _place(parameter: inspect.Parameter) -> tuple[int, bool]:
    """The rank of a parameter: those by position first, and among them those without a default."""
    return parameter.kind, parameter.default is not inspect.Parameter.empty


def _parameter(field: dataclasses.Field[Any]) -> inspect.Parameter:
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    default = inspect.Parameter.empty if default is dataclasses.MISSING else default
    by_position = field.metadata["kind"] == "argument"
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if by_position else inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=field.type)


def _config(config_class: type[Config], values: dict[str, Any]) -> Config:
    """The configuration for the values of a call: a path, a text or a list where the field takes several, ``"2M"``."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if field.name in values:
            values[field.name] = _value(values[field.name], hints[field.name], field.metadata.get("parse"), field.name)
    config = config_class(**values)
    config.refuse_unused(values)
    config.check_command_line()
    return config


def _value(value: Any, hint: Any, parse: Callable[[str], Any] | None, name: str) -> Any:
    if isinstance(value, PathLike):
        value = fspath(value)
    if parse and isinstance(value, str):
        try:
            return parse(value)
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from None
    several = typing.get_origin(hint)
    if several is list:
        items = [value] if isinstance(value, str) else list(value)
        return [fspath(item) if isinstance(item, PathLike) else item for item in items]
    if several is tuple:
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return value


def _docstring(help: str, returns: str, texts: dict[str, str]) -> str:
    indent = " " * _INDENT
    arguments = "\n".join(
        fill(f"{name}: {text}", _WIDTH, initial_indent=indent, subsequent_indent=indent + "    ")
        for name, text in texts.items()
    )
    return f"{help}\n\n    Returns {returns}. Raises ``HierSAEError``.\n\n    Args:\n{arguments}\n"


_ON_STEP = (
    "Function of the step's number and the last line of metrics.jsonl, empty before the first. Called after every "
    "step. If it raises, training writes a checkpoint and stops with that error; the same call resumes."
)

lm = _function("lm", _path, "the folder of the model")
cache = _function("cache", _written("activations:load_acts"), "the cache, as ``load_acts`` does")
train = _function("train", _written("run:load_run"), "the run, as ``load_run`` does", callbacks={"on_step": _ON_STEP})
evaluate = _function(
    "evaluate", _report, "the report, as ``load_report`` does", verb_name="eval", without=("explain", "full")
)
export_tree = _function(
    "export_tree", _tree, "the tree, as ``load_tree`` does, or the path of another format", verb_name="export-tree"
)
encode = _function("encode", _written("codes:Codes"), "the codes, as ``Codes`` does")
