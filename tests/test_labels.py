"""Labels: the file, its writers, its exports, and labels proposed by a model behind a service."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.label import LabelConfig
from hiersae_cli.errors import FileError, HierSAEError, UsageError, VersionError
from hiersae_cli.formats.labels import LONGEST, Labels
from hiersae_cli.formats.run import load_run
from hiersae_cli.formats.tree import load_tree
from hiersae_cli.workflows.common.chat import ChatEndpoint, first_line
from hiersae_cli.workflows.label import run
from tests.helpers import PATIENCE, command, environment, hiersae


@pytest.fixture()
def folder(tiny_dashboard: DashboardConfig, tmp_path: Path) -> Path:
    """A copy of the run with its index."""
    path = tmp_path / "hier"
    shutil.copytree(tiny_dashboard.run, path)
    return path


@pytest.fixture()
def labels(folder: Path) -> Labels:
    return Labels(folder, load_run(folder).sha256)


def test_a_label_is_kept_with_its_author_and_what_was_before(labels: Labels):
    labels.set({"a3": "rivers", "b20": "  <b>two\nlines</b>\t"}, "Ada")
    labels.set({"a3": "names of rivers"}, "Grace")
    labels.set({"b20": ""}, "Ada")
    labels.set({"a4": ""}, "Ada")  # there was none
    labels.set({"a3": "names of rivers"}, "Ada")  # says nothing new
    assert {id: label.text for id, label in labels.current().items()} == {"a3": "names of rivers"}
    history = labels.history()
    assert list(history) == ["a3", "b20"]
    assert [(label.text, label.author) for label in history["a3"]] == [
        ("rivers", "Ada"),
        ("names of rivers", "Grace"),
    ]
    assert [label.text for label in history["b20"]] == ["<b>two lines</b>", ""]
    assert all(label.time.endswith("+00:00") for label in history["a3"])
    labels.set({"a1": "x" * 2000, "a2": "half \ud800 of a pair"}, "Ada")
    assert len(labels.current()["a1"].text) == LONGEST and labels.current()["a2"].text == "half ? of a pair"


def test_programs_that_label_at_once_lose_nothing(labels: Labels, folder: Path):
    code = (
        "import sys; from hiersae_cli.formats.labels import Labels\n"
        "labels = Labels(sys.argv[1], sys.argv[2])\n"
        "for number in range(15): labels.set({f'{sys.argv[3]}{number}': 'x'}, 'me')"
    )
    python = command()[0]
    sha256 = load_run(folder).sha256
    started = [
        subprocess.Popen([python, "-c", code, str(folder), sha256, level], env=environment()) for level in ("a", "b")
    ]
    assert [process.wait(timeout=PATIENCE) for process in started] == [0, 0]
    assert len(labels.current()) == 30
    assert not list(folder.glob(".labels*"))


def test_labels_of_other_weights_and_damaged_ones_are_refused(labels: Labels, folder: Path):
    labels.set({"a3": "rivers"}, "Ada")
    with pytest.raises(FileError, match="other weights"):
        Labels(folder, "0" * 64).current()
    good = json.loads(labels.path.read_text())
    for labels_found in ({"a3": []}, {"a3": [{"text": 1, "author": "", "time": ""}]}, {"x": [good["labels"]]}, [1]):
        labels.path.write_text(json.dumps({**good, "labels": labels_found}))
        with pytest.raises(FileError, match="damaged"):
            labels.current()
    labels.path.write_text(json.dumps({**good, "schema_version": 3}))
    with pytest.raises(VersionError):
        labels.current()
    labels.path.write_text("{")
    with pytest.raises(FileError, match="not a JSON file"):
        labels.set({"a1": "x"}, "Ada")
    assert labels.path.read_text() == "{"


def test_labels_of_an_older_release_are_read_and_written_anew(labels: Labels, folder: Path):
    labels.set({"a3": "rivers", "b10": "names", "b1": "verbs"}, "Ada")
    data = json.loads(labels.path.read_text())
    assert data["schema_version"] == 2 and list(data["labels"]) == ["a3", "b1", "b10"]
    old = {"0.3": data["labels"]["a3"], "1.1": data["labels"]["b1"], "1.10": data["labels"]["b10"]}
    labels.path.write_text(json.dumps({**data, "schema_version": 1, "labels": old}))
    assert {id: label.text for id, label in labels.current().items()} == {"a3": "rivers", "b1": "verbs", "b10": "names"}
    done = hiersae("label", folder, "--set", "1.10=names of rivers", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["labels"]["b10"]["text"] == "names of rivers"
    data = json.loads(labels.path.read_text())
    assert data["schema_version"] == 2
    assert [label["text"] for label in data["labels"]["b10"]] == ["names", "names of rivers"]


def test_labels_go_through_the_command_into_the_tree_and_out(folder: Path, tiny_acts: Path, tmp_path: Path):
    done = hiersae("label", folder, "--set", "a3=a=b", "--set", "b7==1+1", "--author", "Ada", "--json")
    assert done.returncode == 0 and set(json.loads(done.stdout)["labels"]) == {"a3", "b7"}, done.stderr
    shown = hiersae("label", folder).stdout
    assert "a=b" in shown and "Ada" in shown
    csv, out = tmp_path / "labels.csv", tmp_path / "tree.json"
    assert hiersae("label", folder, "-o", csv).returncode == 0
    assert [line.split(",")[:3] for line in csv.read_text().splitlines()] == [
        ["id", "label", "author"],
        ["a3", "a=b", "Ada"],
        ["b7", "'=1+1", "Ada"],
    ]
    refused = hiersae("label", folder, "-o", csv)
    assert refused.returncode == 1 and "--overwrite" in refused.stderr
    exported = hiersae("export-tree", folder, "--acts", tiny_acts, "--contexts", 0, "-o", out)
    assert exported.returncode == 0, exported.stderr
    assert {node.id: node.label for node in load_tree(out).nodes if node.label} == {"a3": "a=b", "b7": "=1+1"}
    data = json.loads((folder / "labels.json").read_text())
    (folder / "labels.json").write_text(json.dumps({**data, "run": "0" * 64}))
    stale = hiersae("export-tree", folder, "--acts", tiny_acts, "--contexts", 0, "-o", out, "--overwrite")
    assert stale.returncode == 0 and "no labels: " in stale.stderr and "other weights" in stale.stderr
    assert not any(node.label for node in load_tree(out).nodes)
    (folder / "labels.json").write_text(json.dumps(data))
    info = json.loads(hiersae("info", folder / "labels.json", "--json").stdout)
    assert (info["kind"], info["labels"], info["authors"]) == ("labels", 2, ["Ada"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set", "a3"], "write ID=TEXT"),
        (["--set", "7.0=x"], "has no such node"),
        (["--endpoint", "ftp://a", "--llm", "m"], "begin it with http"),
        (["--endpoint", "http://a"], "name the model"),
        (["--llm", "m"], "with --endpoint"),
        (["--endpoint", "http://a", "--llm", "m", "--key-env", "NO_SUCH_KEY"], "no such variable"),
        (["-o", "labels.txt"], ".json, .csv or .jsonl"),
        (["--endpoint", "http://a", "--llm", "m", "--model", "host"], "not both"),
        (["--descendants"], "name the node"),
        (["--source", "gpt2/6"], "is for --from-neuronpedia"),
        (["-o", "labels.jsonl", "--source", "gpt2"], "write MODEL/SOURCE"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, flags: list[str], said: str):
    done = hiersae("label", folder, *flags)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not (folder / "labels.json").exists()


class Service:
    """An OpenAI-compatible service on this machine: answers by a function, and remembers what it was asked."""

    def __init__(self, answer: Callable[[int, dict[str, Any]], tuple[int, dict[str, str], Any]]):
        self.asked: list[dict[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                status, headers, data = answer(len(service.asked), body)
                content = data.encode() if isinstance(data, str) else json.dumps(data).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def says(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture()
def service() -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(answer: Callable[[int, dict[str, Any]], tuple[int, dict[str, str], Any]]) -> Service:
        started.append(Service(answer))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_a_model_proposes_labels_and_what_was_sent_is_kept(
    folder: Path, labels: Labels, service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
):
    labels.set({"a0": "by hand"}, "Ada")
    answers = ['\n"Names of rivers"\nbecause …', "<script>x</script>", "  \n"]
    there = service(lambda number, body: (200, {}, says(answers[number - 1])))
    monkeypatch.setenv("A_KEY", "secret-key")
    config = LabelConfig(
        run=str(folder), endpoint=there.address, llm="small", key_env="A_KEY", node=["a0", "a1", "a2", "a3"], score=0
    )
    run(config)
    found = {id: (label.text, label.author) for id, label in labels.current().items()}
    asked = [line["node"] for line in map(json.loads, (folder / "label-prompts.jsonl").read_text().splitlines())]
    assert len(asked) == 3 and "a0" not in asked  # a person's label stays
    assert found == {
        "a0": ("by hand", "Ada"),
        asked[0]: ("Names of rivers", "small (automatic)"),
        asked[1]: ("<script>x</script>", "small (automatic)"),
    }
    for request in there.asked:
        assert request["path"] == "/v1/chat/completions" and request["key"] == "Bearer secret-key"
        assert request["model"] == "small" and [one["role"] for one in request["messages"]] == ["system", "user"]
        assert "⟪" in request["messages"][1]["content"]
    assert "secret-key" not in (folder / "label-prompts.jsonl").read_text()


def test_prompts_can_be_seen_without_sending_any(folder: Path):
    done = hiersae("label", folder, "--dry-run", "--most", 2)
    assert done.returncode == 0 and done.stderr.count("--- ") == 2 and "⟪" in done.stderr
    assert done.stderr.count("Tokens that it fires at") == 2
    assert not (folder / "labels.json").exists() and not (folder / "label-prompts.jsonl").exists()


def test_a_busy_service_is_asked_again(service: Callable[..., Service]):
    there = service(lambda number, body: (429, {"Retry-After": "0.5"}, {}) if number < 3 else (200, {}, says("a")))
    waited: list[float] = []
    assert ChatEndpoint(there.address, "m", "", 5, waited.append).ask("s", "u") == "a"
    assert waited == [0.5, 0.5] and there.asked[0]["key"] is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {}, {"error": {"message": "no key"}}), "401 Unauthorized: no key"),
        ((404, {}, "nothing\nhere"), "404 Not Found: nothing here"),
        ((302, {"Location": "http://127.0.0.1:1/"}, ""), "It points elsewhere"),
        ((200, {}, "<html>hello</html>"), "not that of a chat completion"),
        ((200, {}, {"choices": []}), "not that of a chat completion"),
        ((200, {}, {"choices": [{"message": {"content": None}}]}), "not that of a chat completion"),
        ((503, {}, "down"), "503"),
    ],
)
def test_what_a_service_does_wrong_is_told(
    service: Callable[..., Service], answer: tuple[int, dict[str, str], Any], said: str
):
    there = service(lambda number, body: answer)
    with pytest.raises(HierSAEError) as caught:
        ChatEndpoint(there.address, "m", "", 5, lambda seconds: None).ask("s", "u")
    assert said in str(caught.value)


def test_a_service_that_is_not_there_is_told(folder: Path, service: Callable[..., Service]):
    there = service(lambda number, body: (200, {}, says("a")))
    there.close()
    done = hiersae("label", folder, "--endpoint", there.address, "--llm", "m")
    assert done.returncode == 1 and "cannot be reached" in done.stderr and "Traceback" not in done.stderr


def test_contexts_come_from_an_index_of_the_run_with_texts(
    folder: Path, tiny_dashboard: DashboardConfig, tmp_path: Path
):
    config = LabelConfig(run=str(folder), dry_run=True)
    with pytest.raises(FileError, match="no such index"):
        run(replace(config, index=str(tmp_path / "none.h5")))
    with pytest.raises(FileError, match="index of another run"):
        run(replace(config, run=tiny_dashboard.baseline, index=tiny_dashboard.index_file))
    with pytest.raises(UsageError, match="no such node"):
        run(replace(config, node=["f5"]))


@pytest.mark.parametrize(
    ("answer", "label"), [("**Rivers**", "Rivers"), ("\n\n 'a'\nb", "a"), ("", ""), ("x" * 999, "x" * LONGEST)]
)
def test_an_answer_becomes_one_line(answer: str, label: str):
    assert first_line(answer) == label
