"""A study over HTTP: who may do what, and that no acknowledged answer is ever lost."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from hiersae_cli.config.study import StudyServeConfig
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.study import Links, load_study
from hiersae_cli.study.duration import minutes
from hiersae_cli.study.html import excerpt
from hiersae_cli.study.live import ANSWER, STEP
from hiersae_cli.study.protocol import CHECK, CHILD, EDGE, EXAMPLE, LABEL
from hiersae_cli.study.store import HUMAN, Answer
from tests.fake_study import ATTACK, make_study, opened, serving
from tests.helpers import PATIENCE, command, environment

Fields = dict[str, str]


class Rater:
    """A rater without a browser: reads forms and sends them, as a browser would."""

    def __init__(self, address: str, token: str):
        self.host, self.token = urlsplit(address).netloc, token
        self.connection = http.client.HTTPConnection(self.host, timeout=PATIENCE)

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str, dict[str, str]]:
        """Status, text and headers of an answer."""
        sent = {"Content-Type": "application/x-www-form-urlencoded"} if method == "POST" else {}
        if method == "POST":
            sent["Origin"] = f"http://{self.host}"
        self.connection.request(method, path, body or None, {**sent, **headers})
        found = self.connection.getresponse()
        return found.status, found.read().decode(), {k.lower(): v for k, v in found.getheaders()}

    def page(self) -> str:
        """What the rater's link shows, or the page that it leads to."""
        status, text, headers = self.ask("GET", f"/r/{self.token}")
        if status == 303:
            status, text, _ = self.ask("GET", headers["location"])
        assert status == 200, (status, text)
        return text

    def begin(self) -> None:
        """Consent, and go through the practice."""
        while (text := self.page()) and ("I agree" in text or "data-practice" in text):
            assert self.step(text) == 303

    def step(self, text: str) -> int:
        """Send the form of a page that is no question; its status."""
        action = re.search(r'<form[^>]* action="([^"]+)"', text)
        assert action
        return self.ask("POST", action[1], urlencode({"signature": fields(text)["signature"]}))[0]

    def answer(self, form: Fields, value: str, **headers: str) -> int:
        """Send a form; its status."""
        sent = {name: content for name, content in form.items() if name != "item"}
        return self.ask("POST", f"/r/{self.token}/item/{form['item']}", urlencode({**sent, "value": value}), **headers)[
            0
        ]

    def question(self) -> str:
        """The next question, after a break if one is due; the end if there is none."""
        while "Time for a break" in (text := self.page()):
            assert self.step(text) == 303
        return text


def fields(text: str) -> Fields:
    """The hidden fields of a page, and the item that is asked."""
    found = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text))
    item = re.search(r' action="[^"]*/item/(\w+)"', text)
    return found | ({"item": item[1]} if item else {})


def value_for(text: str) -> str:
    """An answer to whatever is shown."""
    values = re.findall(r'type="radio" name="value" value="(\w+)"', text)
    return values[len(values) // 2] if values else "some words"


@pytest.fixture()
def served(tmp_path: Path) -> Iterator[tuple[str, Any]]:
    with serving(make_study(tmp_path / "study")) as found:
        yield found


@pytest.fixture()
def rater(served) -> Rater:
    one = Rater(served[0], served[1].links.raters[0])
    one.begin()
    return one


def test_nothing_of_an_item_but_its_texts_is_told(served, rater):
    _, study = served
    while "<form" in (text := rater.question()):
        form = fields(text)
        item = study.files.items[form["item"]]
        assert set(form) == {"item", "shown", "label_of", "signature"}
        for hidden in ("hierarchy", "flat", "shuffled", "run:", "baseline", f'"{item.condition or "nothing"}"'):
            assert hidden not in text
        assert ATTACK not in text and "&lt;script&gt;" in text
        assert "<script>" not in text.replace('<script src="/assets', "")
        assert rater.answer(form, value_for(text)) == 303


def test_headers_keep_pages_out_of_caches_and_frames(served, rater):
    _, _, headers = rater.ask("GET", f"/r/{rater.token}")
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "set-cookie" not in headers
    assert rater.ask("GET", f"/r/{rater.token}", Host="evil.example")[0] == 403


def test_forms_of_other_pages_other_raters_and_made_up_ones_are_refused(served, rater):
    address, study = served
    other = Rater(address, study.links.raters[1])
    other.begin()
    text = rater.page()
    form, value = fields(text), value_for(text)
    assert rater.answer(form, value, Origin="http://evil.example") == 403
    assert rater.answer(form, value, Origin="null") == 403
    assert rater.answer({**form, "signature": "0" * 64}, value) == 403
    assert other.answer(form, value) == 403  # signed for somebody else
    for name, changed in (("item", fields(other.page())["item"]), ("shown", "1"), ("label_of", "1")):
        if form[name] != changed:
            assert rater.answer({**form, name: changed}, value) == 403, name
    assert rater.ask("POST", f"/r/{rater.token}/item/{form['item']}", "a=b")[0] == 400
    assert rater.ask("POST", f"/r/{rater.token}/item/{form['item']}", "x" * 20_000)[0] == 400
    assert rater.ask("POST", f"/r/{rater.token}/item/nosuch", urlencode({**form, "value": value}))[0] == 403
    assert study.store.answers() == []
    assert rater.answer(form, value) == 303 and len(study.store.answers()) == 1


def test_links_that_are_none_tell_nothing(served):
    address, study = served
    one = Rater(address, "x" * 32)
    paths = [f"/r/{'x' * 32}", "/r/", "/admin/x", f"/admin/{study.links.raters[0]}"]
    for path in (*paths, "/items.json", "/assets/../study.json"):
        assert one.ask("GET", path)[0] == 404, path
    assert one.ask("GET", f"/admin/{study.links.raters[0]}/answers.csv")[0] == 404
    assert one.ask("GET", f"/r/{study.links.administrator}")[0] == 404


def test_what_is_no_answer_is_refused(served, rater):
    _, study = served
    seen = set()
    while "<form" in (text := rater.question()):
        form = fields(text)
        task = study.files.items[form["item"]].task
        if task not in seen:
            seen.add(task)
            wrong = {EDGE: ["maybe", "0", ""], LABEL: ["", "x" * 300, "   "], EXAMPLE: ["5", "-1", "yes"]}
            for value in wrong.get(task, ["9", "", "yes"]):
                assert rater.answer(form, value) == 400, (task, value)
        assert rater.answer(form, value_for(text)) == 303
    assert len(seen) >= 4


def test_a_second_answer_changes_nothing_and_is_harmless(served, rater):
    _, study = served
    text = rater.page()
    form = fields(text)
    assert [rater.answer(form, value) for value in ("first words", "second words")] == [303, 303]
    assert [one.value for one in study.store.answers()] == ["first words"]
    assert fields(rater.page())["item"] != form["item"]


def test_labels_are_matched_by_another_rater_and_are_only_text(served):
    """Of three raters the first two write labels, and the third matches them; all reach the end in one session."""
    address, study = served
    early = Rater(address, study.links.raters[2]).page()
    assert "Not yet" in early and "I agree" not in early
    matched = 0
    for token in study.links.raters:
        one = Rater(address, token)
        one.begin()
        while "<form" in (text := one.question()):
            if 'class="words"' in text:
                assert "<b>bold" not in text and "&lt;b&gt;bold" in text
                matched += 1
            value = f"<b>bold {one.token[:3]}" if "A few words" in text else value_for(text)
            assert one.answer(fields(text), value) == 303
        assert "All your answers are kept" in text and "later" not in text
    given = study.store.answers(kind=HUMAN)
    assert matched == sum(one.label_of is not None for one in given) > 0
    assert {one.rater for one in given if one.label_of is not None} == {2}
    assert {one.label_of for one in given} <= {None, 0, 1}
    assert len(given) == sum(len(study.session(number)) for number in range(3))


def test_the_administrator_lets_the_second_half_begin_without_labels(served):
    address, study = served
    one, administrator = Rater(address, study.links.raters[2]), study.links.administrator
    assert "Not yet" in one.page()
    text = one.ask("GET", f"/admin/{administrator}")[1]
    assert "4 are missing" in text and "matches" in text
    signature = re.findall(r'second-half".*?value="(\w+)"', text, re.DOTALL)[0]
    path = f"/admin/{administrator}/second-half"
    assert one.ask("POST", path, urlencode({"signature": "x"}))[0] == 403
    assert one.ask("POST", path, urlencode({"signature": signature}))[0] == 303
    one.begin()
    while "<form" in (text := one.question()):
        assert one.answer(fields(text), value_for(text)) == 303
    assert "Thank you" in text
    tasks = {study.files.items[given.item].task for given in study.store.answers()}
    assert tasks == {EXAMPLE, CHILD, EDGE, CHECK}  # a label that nobody wrote is not asked about


def test_a_rater_ends_with_a_code_and_returns_to_the_platform(tmp_path: Path):
    folder = make_study(tmp_path / "study", sets=1, tasks=(EDGE,), checks=0)
    end = {"completion_code": "DONE-1", "return_url": "https://example.org/complete?cc={code}"}
    for given in ({}, end):
        with serving(folder, **given) as (address, study):
            one = Rater(address, study.links.raters[len(given) and 1])
            one.begin()
            while "<form" in (text := one.question()):
                assert "DONE-1" not in text
                assert one.answer(fields(text), "yes") == 303
            code = study.code(one.token)
            assert f">{code}</p>" in text
            assert ('href="https://example.org/complete?cc=DONE-1"' in text) == bool(given)
            assert code in one.ask("GET", f"/admin/{study.links.administrator}")[1]
            codes = {study.code(token) for token in study.links.raters}
            assert codes == {"DONE-1"} if given else len(codes) == 3


@pytest.mark.parametrize("flags", [{"completion_code": "a b"}, {"return_url": "javascript:alert(1)"}])
def test_an_end_that_cannot_be_shown_is_refused(flags: dict[str, str]):
    with pytest.raises(UsageError, match=next(iter(flags)).replace("_", "-")):
        StudyServeConfig(study="study", **flags)


def test_raters_read_the_consent_file_and_may_decline(tmp_path: Path):
    consent = "## Contact\n\nA. Person, a@example.org, [us](https://example.org/x). <b>No</b>\n\n- {minutes} minutes\n"
    with serving(make_study(tmp_path / "study", consent=consent)) as (address, study):
        one = Rater(address, study.links.raters[0])
        text = one.page()
        assert "<h2>Contact</h2>" in text and '<a href="mailto:a@example.org">' in text
        assert '<a href="https://example.org/x">us</a>' in text and "&lt;b&gt;No" in text
        length = minutes(study.session(0))
        assert f"<li>{length} minutes</li>" in text and f"about {length} minutes" in text
        assert "darker" in text and "end of a line" in text and "marked space" in text
        status, declined, _ = one.ask("GET", f"/r/{one.token}/declined")
        assert status == 200 and "Nothing was stored" in declined
        assert study.store.steps(0) == set() and "I agree" in one.page()


def test_the_common_link_gives_each_a_link_of_their_own(served):
    address, study = served
    path = f"/join/{study.common_token}"
    study.store.take_step(1, "consent")  # the link of this rater is in use
    links = []
    for _ in range(3):
        one = Rater(address, "")
        status, text, _ = one.ask("GET", path)
        assert status == 200 and study.links.raters[0] not in text
        assert one.ask("POST", path, urlencode({"signature": "0" * 64}))[0] == 403
        status, answered, headers = one.ask("POST", path, urlencode(fields(text)))
        links.append(headers["location"] if status == 303 else answered)
    # The third rater matches labels, which nobody has written.
    assert (
        links[0] == f"/r/{study.links.raters[0]}" and "No place is free" in links[1] and "No place is free" in links[2]
    )
    study.store.begin_second_half()
    one = Rater(address, study.links.raters[2])
    assert one.ask("POST", path, urlencode(fields(text)))[2]["location"] == f"/r/{one.token}"
    assert "I agree" in one.page()
    assert one.ask("GET", "/join/nosuch")[0] == 404
    study.store.stop(True)
    assert one.ask("GET", path)[0] == 409 == one.ask("POST", path, urlencode(fields(text)))[0]


def test_practice_is_resumed_where_it_was(served):
    address, study = served
    one = Rater(address, study.links.raters[0])
    assert one.step(one.page()) == 303
    assert "Practice 1 of" in one.page()
    assert one.step(one.page()) == 303
    again = Rater(address, study.links.raters[0])
    assert "Practice 2 of" in again.page()
    status, _, headers = again.ask("GET", f"/r/{one.token}/practice/3")  # not yet
    assert status == 303 and headers["location"] == f"/r/{one.token}"
    assert "Practice 1 of" in again.ask("GET", f"/r/{one.token}/practice/0")[1]


def test_breaks_come_after_twenty_answers_and_once(tmp_path: Path):
    with serving(make_study(tmp_path / "study", sets=5, tasks=(CHILD, EDGE), checks=0)) as (address, study):
        one = Rater(address, study.links.raters[0])
        assert "a break after every 20" in one.page()
        one.begin()
        breaks = []
        while "<form" in (text := one.page()):
            if "Time for a break" in text:
                breaks.append(len(study.store.answers()))
                assert one.step(text) == 303
            else:
                assert one.answer(fields(text), value_for(text)) == 303
        assert breaks == [20]


def test_marked_spaces_are_seen_and_no_mark_begins_with_one():
    shown = excerpt({"tokens": [" a", " king", "  ", "\n", " <i>"], "steps": [0, 9, 3, 1, 2]})
    assert shown == (
        ' a <mark class="h9">king</mark><mark class="h3"><i>␣␣</i></mark><mark class="h1"><i>↵</i></mark>'
        ' <mark class="h2">&lt;i&gt;</mark>'
    )


def test_every_item_has_an_address_that_shows_it_once(served, rater):
    _, study = served
    first, second, *_ = (item.id for item in study.session(0))
    text = rater.page()
    status, _, headers = rater.ask("GET", f"/r/{rater.token}")
    assert (status, headers["location"]) == (303, f"/r/{rater.token}/item/{first}")
    assert rater.ask("GET", f"/r/{rater.token}/item/{second}")[0] == 303  # it is not its turn
    assert rater.ask("GET", f"/r/{rater.token}/item/nosuch")[0] == 303
    assert " checked" not in text and text.count('autocomplete="off"') >= 2
    assert rater.answer(fields(text), value_for(text)) == 303
    status, again, _ = rater.ask("GET", f"/r/{rater.token}/item/{first}")
    assert status == 200 and "Already answered" in again and "<form" not in again


def test_the_administrator_sees_doubtful_raters_and_when_they_answered(served, rater):
    _, study = served
    checks = [item for item in study.session(0) if item.task == CHECK]
    for item in checks:
        assert item.key is not None
        study.store.add(
            Answer(HUMAN, 0, "", item.id, str((item.key + 1) % 5), 900, time="2026-01-02T03:04:05.678+00:00")
        )
    text = rater.ask("GET", f"/admin/{study.links.administrator}")[1]
    assert "passed 0 of 2 attention checks" in text and text.count("doubtful") == 1 and "2026-01-02 03:04" in text


def test_nobody_answers_before_consent_or_after_the_end(served):
    address, study = served
    one = Rater(address, study.links.raters[0])
    text = one.page()
    assert "I agree" in text and "form class" not in text
    item = study.session(0)[0].id
    made_up = {"item": item, "shown": "1", "label_of": "", "signature": study.sign(ANSWER, one.token, item, "1", "")}
    assert one.answer(made_up, "words") == 403
    one.begin()
    administrator = study.links.administrator
    page = one.ask("GET", f"/admin/{administrator}")[1]
    assert one.ask("POST", f"/admin/{administrator}/stop", urlencode({"signature": "x"}))[0] == 403
    assert one.ask("POST", f"/admin/{administrator}/stop", urlencode(fields(page.split("</form>")[0])))[0] == 303
    assert "closed" in one.page() and one.answer(made_up, "words") == 409
    assert study.store.answers() == []


def test_answers_are_exported_without_formulas(served, rater):
    _, study = served
    study.store.add(Answer(HUMAN, 2, "", study.session(2)[0].id, "=HYPERLINK(1)", 900))
    path = f"/admin/{study.links.administrator}/answers.csv"
    status, text, headers = rater.ask("GET", path)
    assert "condition" not in text and "correct" not in text and ",task," in text  # nobody should know before the end
    study.store.stop(True)
    assert ",condition," in rater.ask("GET", path)[1]
    study.store.stop(False)
    assert status == 200 and "'=HYPERLINK" in text and "attachment" in headers["content-disposition"]
    assert rater.ask("GET", f"/admin/{study.links.administrator}/answers.json")[1].startswith("[")


def test_a_signature_of_an_answer_opens_no_step(served, rater):
    _, study = served
    item, shown = fields(rater.page())["item"], "1"
    step = f"{item}%0A{shown}%0A"
    for signature in (study.sign(ANSWER, rater.token, item, shown, ""), study.sign(STEP, rater.token, step)):
        assert rater.ask("POST", f"/r/{rater.token}/{step}", urlencode({"signature": signature}))[0] == 404
    assert study.store.steps(0) == {"consent", "practice-0", "practice-1", "practice-2", "practice"}
    assert rater.ask("GET", f"/admin/{study.links.administrator}/answers.exe")[0] == 404


@pytest.mark.parametrize("passed_on", [True, False])
def test_a_study_works_below_a_path_that_a_proxy_passes_on_or_removes(tmp_path: Path, passed_on: bool):
    with serving(make_study(tmp_path / "study"), "https://example.org/studies/a/") as (address, study):
        rater = Rater(address, study.links.raters[0])
        prefix, administrator = "/studies/a", f"/admin/{study.links.administrator}"

        def open_link(path: str, form: Fields | None = None) -> tuple[int, str, str]:
            assert path.startswith(f"{prefix}/"), path
            method, body = ("GET", "") if form is None else ("POST", urlencode(form))
            path = path if passed_on else path.removeprefix(prefix)
            sent = {"Host": "example.org"} | ({} if form is None else {"Origin": "https://example.org"})
            status, text, headers = rater.ask(method, path, body, **sent)
            return status, text, headers.get("location", "")

        path = f"{prefix}/r/{rater.token}"
        for _ in range(20):
            status, text, leads_to = open_link(path)
            if status == 303:
                status, text, _ = open_link(leads_to)
            assert status == 200
            assert {open_link(link)[0] for link in re.findall(r'(?:href|src)="([^"]+)"', text)} <= {200}
            action = re.search(r' action="([^"]+)"', text)
            if not action:
                break
            status, _, path = open_link(action[1], {**fields(text), "value": value_for(text)})
            assert status == 303
        assert study.store.answers()
        status, text, _ = open_link(prefix + administrator)
        assert status == 200
        assert {open_link(link)[0] for link in re.findall(r'(?:href|src)="([^"]+)"', text)} == {200, 303}


@pytest.mark.parametrize("address", ["http://", "https:///path", "ftp://a.b", "https://a@b.c", "https://a.b/?q", "a.b"])
def test_an_address_without_a_host_is_refused(address: str):
    with pytest.raises(UsageError, match="public-url"):
        StudyServeConfig(study="study", public_url=address)


def test_a_server_with_a_slow_form_open_stops_soon(tmp_path: Path):
    folder = make_study(tmp_path / "study")
    process, address = start(folder)
    slow = socket.create_connection(urlsplit(address).netloc.split(":"))
    host, token = urlsplit(address).netloc, Links(folder).raters[0]
    slow.sendall(
        f"POST /r/{token}/consent HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
        "Content-Length: 100\r\n\r\nsignature=".encode()
    )
    time.sleep(0.5)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)
    assert time.monotonic() - begin < 60  # 3 seconds on a machine that is not busy; without a limit, never
    slow.close()


# --- many at once


def rate_at_once(address: str, tokens: list[str], note: Callable[[str, str], None]) -> list[BaseException]:
    """Have every rater answer at once, each item sent twice; ``note`` is told of what was acknowledged."""
    failed: list[BaseException] = []

    def work(token: str) -> None:
        one = Rater(address, token)
        try:
            one.begin()
            while True:
                text = one.question()
                if "<form" not in text:
                    return
                form, value = fields(text), value_for(text)
                assert one.answer(form, value) == 303
                note(token, form["item"])
                assert one.answer(form, value) == 303
        except (OSError, http.client.HTTPException, AssertionError) as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """``hiersae study serve`` in a process of its own, and its address."""
    process = subprocess.Popen(
        command("study", "serve", folder, "--port", 0), stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stderr
    for line in process.stderr:
        if found := re.search(r"serving at (http://\S+?)/? ", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found[1]
    raise AssertionError("the server did not start")


@pytest.mark.parametrize("raters", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_many_raters_at_once_lose_nothing_and_answer_once(tmp_path: Path, raters: int):
    folder = make_study(tmp_path / "study", sets=2, raters=raters, tasks=(EXAMPLE, EDGE), checks=1)
    process, address = start(folder)
    try:
        acknowledged: list[tuple[str, str]] = []
        begin = time.monotonic()
        failed = rate_at_once(address, Links(folder).raters, lambda *what: acknowledged.append(what))
        print(f"{len(acknowledged)} answers of {raters} raters in {time.monotonic() - begin:.1f} s")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert failed == []
    _, store, links = opened(folder)
    kept = Counter((links.raters[one.rater], one.item) for one in store.answers())
    store.close()
    assert set(kept.values()) == {1} and set(kept) == set(acknowledged)
    assert len(kept) == raters * len(load_study(folder).items)


@pytest.mark.parametrize("raters", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_a_server_that_is_killed_has_every_acknowledged_answer(tmp_path: Path, raters: int):
    folder = make_study(tmp_path / "study", sets=2, raters=raters, tasks=(EXAMPLE, EDGE), checks=1)
    process, address = start(folder)
    acknowledged: list[tuple[str, str]] = []

    def note(*what: str) -> None:
        acknowledged.append((what[0], what[1]))
        if len(acknowledged) == raters * 4:  # in the middle
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    assert rate_at_once(address, Links(folder).raters, note)  # connections broke
    assert process.wait(30) == -signal.SIGKILL
    before = list(acknowledged)
    process, address = start(folder)
    try:
        failed = rate_at_once(address, Links(folder).raters, lambda *what: acknowledged.append(what))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert failed == []
    study, store, links = opened(folder)
    kept = Counter((links.raters[one.rater], one.item) for one in store.answers())
    store.close()
    assert set(before) <= set(kept) and set(kept.values()) == {1}
    assert len(kept) == raters * len(study.items)
