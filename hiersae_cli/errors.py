"""The errors a user can meet, and the exit code of each.

Every message names the file or flag, says what is wrong, and (in ``hint``) what to do about it.
Only the command line turns an error into an exit; everything below it raises.
"""

from __future__ import annotations

import errno
import os

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class HierSAEError(Exception):
    """Something the user can act on: a message, a hint, and the exit code of the command line."""

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(HierSAEError):
    """The request itself is wrong: a flag's value, a combination of flags, a name that does not exist."""

    exit_code = EXIT_USAGE


class FileError(HierSAEError):
    """A file is missing, incomplete, damaged, of another kind, or exists already."""


class VersionError(FileError):
    """A file of a schema version that this release does not read."""

    def __init__(self, path: object, schema: str, version: object, supported: object):
        shown = version if isinstance(version, int) else ascii(version)[:40]  # it may be anything
        super().__init__(
            f"{path}: {schema} version {shown} is not supported (this release reads version {supported})",
            "Upgrade hiersae, or make the file again with this release.",
        )


def install_hint(extra: str) -> str:
    """The hint for a missing package of an extra. HierSAE is in no registry, so the hint installs from the clone."""
    return f"In a clone of hiersae: pip install -c constraints.txt -e '.[{extra}]'."


_OS_MESSAGES = {
    errno.ENOSPC: ("no space left on the disk", "Free some space, then run the same command again."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, then run the same command again."),
    errno.EROFS: ("the file system is read-only", "Choose an output on a disk that you can write to."),
    errno.EACCES: ("permission denied", "Choose a path that you can read and write."),
    errno.EPERM: ("operation not permitted", "Choose a path that you can read and write."),
    errno.ENOENT: ("no such file or folder", "Check the path."),
    errno.ENOTDIR: ("a part of the path is not a folder", "Check the path."),
    errno.EISDIR: ("this is a folder, but a file was expected", "Check the path."),
    errno.EFBIG: ("the file is larger than this system allows", "Ask for fewer tokens or a smaller --dtype."),
}


def from_os_error(error: OSError) -> HierSAEError:
    """The same failure in words for the user, with its path."""
    where = f"{error.filename}: " if error.filename else ""
    said = error.strerror or str(error)
    message, hint = _OS_MESSAGES.get(error.errno or 0, (said, ""))
    usual = os.strerror(error.errno or 0)
    more = said.removeprefix(usual) if said.startswith(usual) and message != said else ""  # such as the room it needs
    return FileError(f"{where}{message}{more}", hint)


def unexpected(error: Exception) -> HierSAEError:
    """An error that nothing foresaw, in one line, and how to report it."""
    text = " ".join(str(error).split())
    return HierSAEError(
        f"unexpected {type(error).__name__}{f': {text}' if text else ''}",
        "Please report it, with the command and what it prints if HIERSAE_DEBUG=1 is set, which shows the place.",
    )
