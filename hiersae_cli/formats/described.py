"""What ``hiersae info`` says of a file, in one shape for all kinds: the ``describe`` of each format returns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class Described:
    """A file of the chain.

    Attributes:
        kind: what it is, such as ``cache``.
        header: the fields that every file of ours begins with, and more; empty for a host model of another tool.
        details: what is particular to the kind, as plain values.
        lines: the same for a reader: labels and texts.
        unfinished: how far it has come, in words; empty if it is complete.
        made_by: the command that finishes it, such as ``hiersae cache``.
        verified: what was checked in its content, in words; empty if nothing was.
    """

    kind: str
    header: dict[str, Any]
    details: dict[str, Any]
    lines: Lines
    unfinished: str = ""
    made_by: str = ""
    verified: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.unfinished


def host_line(host: dict[str, Any]) -> tuple[str, str]:
    """The line that names the host model of a file."""
    return "host", f"{host.get('name', '?')} ({str(host.get('fingerprint', ''))[:12]}…)"


def run_line(run: dict[str, Any]) -> tuple[str, str]:
    """The line that names the run that a file was made from."""
    return "run", f"{run['name']} ({run['arch']}), {run['module']}"


def of_levels(counts: list[int]) -> str:
    """``16 + 112``: a count for each level."""
    return " + ".join(f"{count:,}" for count in counts)
