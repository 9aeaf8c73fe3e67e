"""The command line itself: what help costs, exit codes, and that everything in it is documented."""

from __future__ import annotations

import configparser
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hiersae_cli import __version__
from hiersae_cli.cli import main
from hiersae_cli.cli.app import commands
from tests.helpers import PATIENCE, command, environment, hiersae

ROOT = Path(__file__).parent.parent
COMMANDS: dict[str, Any] = commands()
VERBS = sorted(COMMANDS)
HEAVY = {"torch", "numpy", "h5py", "transformers", "tokenizers", "safetensors", "sklearn", "rich"}
HEAVY |= {"sqlalchemy", "statsmodels"}

# Runs command lines one after the other and says of each, as JSON, what it gave and which modules are loaded after it.
PROBE = """
import contextlib, io, json, sys
from hiersae_cli.cli import main
done = []
for args in json.load(sys.stdin):
    sys.argv, out, err = ["hiersae", *args], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
    done.append([code, out.getvalue(), err.getvalue(), list(sys.modules)])
json.dump(done, sys.stdout)
"""

HELP = [("--help",), ("-h",), ("--version",), *((*verb.split(), "--help") for verb in [*VERBS, "study"])]
USAGE_ERRORS: dict[str, tuple[str, ...]] = {
    "unknown verb": ("trian",),
    "unknown option": ("train", "acts.h5", "--width", "64"),
    "missing argument": ("train",),
    "missing option": ("cache", "text.txt", "--layer", "1"),
    "not a number": ("train", "acts.h5", "--seed", "one"),
    "not a count": ("train", "acts.h5", "--tokens", "many"),
    "not among the choices": ("train", "acts.h5", "--arch", "tree"),
    "k above the latents": ("train", "acts.h5", "--widths", "64,960", "--k", "65,8"),
    "no layer": ("cache", "text.txt", "--model", "host"),
    "bad shard": ("cache", "text.txt", "--model", "host", "--layer", "1", "--shard", "3/2"),
    "no caches to evaluate on": ("eval", "runs/hier"),
    "no cache to encode": ("encode", "runs/hier"),
    "unknown ending": ("export-tree", "runs/hier", "--acts", "acts.h5", "-o", "tree.xml"),
    "unknown task of a study": ("study", "new", "runs/hier", "--tasks", "colours"),
    "a study without a baseline": ("study", "new", "runs/hier", "--acts", "acts.h5"),
    "heads do not divide the width": ("lm", "--width", "100", "--heads", "3"),
}


class Probed(NamedTuple):
    """What a command line gave, and which modules its process has loaded."""

    code: int
    out: str
    err: str
    loaded: set[str]


@pytest.fixture(scope="module")
def probed() -> dict[tuple[str, ...], Probed]:
    """All command lines of help and of usage errors, run in one process that has loaded nothing before."""
    lines = [*HELP, *USAGE_ERRORS.values()]
    done = subprocess.run(
        [sys.executable, "-c", PROBE], input=json.dumps(lines), capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    results = [Probed(code, out, err, set(loaded)) for code, out, err, loaded in json.loads(done.stdout)]
    return dict(zip(lines, results, strict=True))


@pytest.mark.parametrize("args", HELP)
def test_help_loads_nothing_heavy(args: tuple[str, ...], probed: dict[tuple[str, ...], Probed]) -> None:
    done = probed[args]
    assert done.code == 0, done.err
    assert done.out.strip()
    assert "hiersae_cli.cli.app" in done.loaded and not HEAVY & done.loaded


@pytest.mark.parametrize("args", USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_a_usage_error_exits_with_2_and_loads_nothing_heavy(
    args: tuple[str, ...], probed: dict[tuple[str, ...], Probed]
) -> None:
    done = probed[args]
    assert done.code == 2
    assert "error" in done.err.lower()
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not HEAVY & done.loaded


def test_without_a_verb_the_help_is_shown() -> None:
    done = hiersae()
    assert all(verb.split()[0] in done.stdout + done.stderr for verb in VERBS)


def test_version() -> None:
    assert hiersae("--version").stdout == f"hiersae {__version__}\n"


def test_the_installed_command_is_the_same() -> None:
    installed = Path(sys.executable).with_name("hiersae")
    if not installed.exists():
        pytest.skip("the package is not installed beside this Python")
    done = subprocess.run([installed, "--help"], capture_output=True, text=True, env=environment(), timeout=PATIENCE)
    assert done.stdout == hiersae("--help").stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    {
        "hiersae tra": {"train"},
        "hiersae study s": {"serve", "simulate"},
        "hiersae train --har": {"--harden"},
        "hiersae train --arch b": {"batchtopk"},
    }.items(),
)
def test_a_shell_completes_commands_flags_and_choices(words: str, offered: set[str]) -> None:
    env = {"_HIERSAE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = hiersae(env=env, fresh=True)
    assert done.returncode == 0 and set(done.stdout.split()) == offered, done.stderr


def test_completion_is_shown_for_the_shell_that_asks() -> None:
    line = f"'{sys.executable}' -m hiersae_cli --show-completion; true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=environment(), text=True, timeout=PATIENCE)
    assert "complete -o default -F _hiersae_completion hiersae" in done.stdout, done.stderr


def test_a_wheel_holds_every_file_of_the_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["hiersae_cli"].split(", ")
    package = ROOT / "hiersae_cli"
    data = {path for path in package.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data == {path for pattern in patterns for path in package.glob(pattern)}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_flag_has_a_help_text(verb: str) -> None:
    verb_command = COMMANDS[verb]
    assert verb_command.help.strip().endswith(".")
    shown = hiersae(*verb.split(), "--help", env={"COLUMNS": "200"}).stdout
    for parameter in verb_command.params:
        assert parameter.help and parameter.help.strip().endswith("."), f"{verb} {parameter.name}"
        names = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]
        assert all(name in shown for name in names), f"{verb} {parameter.name}"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_gives_json_and_can_be_quiet(verb: str) -> None:
    names = {name for parameter in COMMANDS[verb].params for name in parameter.opts}
    assert {"--json", "--quiet", "-q"} <= names


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented(verb: str) -> None:
    assert f"`hiersae {verb}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"`hiersae {verb}`" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## hiersae {verb}\n" in (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_the_command_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    writer = subprocess.Popen(
        command("train", "--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert writer.stdout and writer.stderr
    writer.stdout.close()
    assert b"Traceback" not in writer.stderr.read()
    writer.stderr.close()
    writer.wait(timeout=PATIENCE)


@pytest.mark.parametrize("cause", ["import", "direct"])
def test_ctrl_c_during_an_import_ends_without_a_traceback(
    cause: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            if cause == "direct":
                raise
            raise RuntimeError("Error calling __set_name__") from error  # as Python 3.11 does

    monkeypatch.setattr("hiersae_cli.cli.app.app", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130 and "interrupted" in capsys.readouterr().err


def test_ctrl_c_that_a_library_turns_into_its_own_error_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compares(**_: object) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise TypeError("Cannot compare structured arrays")  # as NumPy does, without the cause

    monkeypatch.setattr("hiersae_cli.cli.app.app", compares)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.code == 130 and "unexpected" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [ValueError("Maximum allowed dimension exceeded"), OverflowError("Python int too large to convert to C long")],
)
def test_a_number_for_which_no_memory_is_enough_is_an_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_large(**_: object) -> None:
        raise error

    monkeypatch.setattr("hiersae_cli.cli.app.app", too_large)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1 and capsys.readouterr().err.startswith("error: out of memory: ")


def test_links_that_lead_to_each_other_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    done = hiersae("encode", tmp_path / "loop", tmp_path / "loop", "-o", tmp_path / "codes.h5")
    assert done.returncode == 1 and "unexpected" not in done.stderr and str(tmp_path / "loop") in done.stderr


def test_closed_streams_fail_nothing() -> None:
    for closed in ("2>&-", ">&-", ">&- 2>&-", "<&-"):
        line = f"'{sys.executable}' -m hiersae_cli eval --explain fvu {closed}"
        done = subprocess.run(["sh", "-c", line], capture_output=True, env=environment(), text=True)
        assert done.returncode == 0 and "Traceback" not in done.stderr, (closed, done.stderr)
        assert ("fvu" in done.stdout.lower()) == (">&-" not in closed.replace("2>&-", ""))


INTERRUPTED_AT = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
event, name, count = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
def hook(this, arguments):
    global count
    if this == event and name in str(arguments[0]):
        count -= 1
        if not count:
            os.kill(os.getpid(), signal.SIGINT)
import hiersae_cli
sys.addaudithook(hook)
runpy.run_module("hiersae_cli", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("event", "name", "count"),
    [
        ("import", "hiersae_cli.cli", 1),
        ("import", "hiersae_cli.interrupt", 1),
        ("import", "typer", 1),
        ("open", "typer", 9),
        ("open", "workflows/info", 1),
        ("open", "config.json", 1),
    ],
)
def test_ctrl_c_ends_a_short_command_without_a_traceback(event: str, name: str, count: int) -> None:
    run = ROOT / "tests" / "data" / "run-v2"
    done = subprocess.run(
        [sys.executable, "-B", "-c", INTERRUPTED_AT, event, name, str(count), "info", run],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
    )
    assert done.returncode in (130, -signal.SIGINT), done.stderr
    assert done.stderr in ("", "interrupted\nRun the same command again to resume.\n")


def test_ctrl_c_that_python_discards_comes_again() -> None:
    code = """
import os, signal, time
from hiersae_cli.interrupt import begin_interruptible, end_interruptible
signal.signal(signal.SIGINT, signal.default_int_handler)
begin_interruptible()
class Closed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
try:
    Closed()
    time.sleep(60)
except KeyboardInterrupt:
    end_interruptible()
    os.kill(os.getpid(), signal.SIGINT)
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_ctrl_c_waits_until_torch_is_imported() -> None:
    code = """
import os, signal, sys, time
from hiersae_cli.interrupt import begin_interruptible
signal.signal(signal.SIGINT, signal.default_int_handler)
begin_interruptible()
def hook(event, arguments):
    if event == "import" and arguments[0] == "torch.nn":
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
try:
    import torch
    time.sleep(60)
except KeyboardInterrupt:
    print(torch.ones(2).sum().item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2.0\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v")
def test_too_little_memory_for_the_libraries_is_an_error() -> None:
    line = f"ulimit -v 450000; '{sys.executable}' -m hiersae_cli train acts.h5 -o run"
    done = subprocess.run(["sh", "-c", line], capture_output=True, env=environment(), text=True, timeout=PATIENCE)
    assert done.returncode == 1 and done.stderr.startswith("error: out of memory: ")
    assert len(done.stderr.splitlines()) == 2
