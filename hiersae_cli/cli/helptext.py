"""Help in groups: commands by purpose, flags by topic, with whole sentences that are never cut."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

OUTPUT = "Output"  # the group of flags that every command has; it comes last


class GroupedCommand(TyperCommand):
    """A command whose flags are listed in the groups that their fields name; flags without a group come first."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the flags without a group, each group, and the flags that every command has."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        last: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            group = getattr(parameter, "rich_help_panel", None) or kind
            if record and (group == OUTPUT or parameter.name == "help"):
                last.append(record)
            elif record:
                sections.setdefault(group, []).append(record)
        _write(formatter, {**sections, OUTPUT: last})


class GroupedCommands(TyperGroup):
    """Commands under headings, each with the first sentence of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands under every heading, in the order in which they were registered."""
        sections: dict[str, list[tuple[str, str]]] = {}
        widest = max(map(len, self.list_commands(ctx)))  # so that all sentences start in the same column
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            heading = getattr(command, "rich_help_panel", None) or "Commands"
            sections.setdefault(heading, []).append((name.ljust(widest), first_sentence(command.help)))
        _write(formatter, sections)


def first_sentence(text: str) -> str:
    """The first sentence of a command's help."""
    return " ".join(text.split()).partition(". ")[0].rstrip(".") + "."


def _write(formatter: Any, sections: dict[str, list[tuple[str, str]]]) -> None:
    for title, rows in sections.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)
