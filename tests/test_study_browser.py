"""A study in a browser: Chromium without a window, driven by Playwright, as raters use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.pictures import ARGUMENTS, CHROMIUM
from hiersae_cli.study.protocol import CHECK, session
from hiersae_cli.study.store import HUMAN
from tests.fake_study import ATTACK, make_study, serving
from tests.test_pages_browser import Watched, hold, watched

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e '.[dev]'")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture()
def served(request, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """The address of a server of a small study, and the study; its parameter is the number of sets."""
    with serving(make_study(tmp_path / "study", sets=getattr(request, "param", 1), checks=1)) as address_and_study:
        yield address_and_study


def begin(one: Watched, token: str) -> None:
    """Consent, and practise by keys."""
    one.go(f"/r/{token}")
    one.page.click("[data-go]")
    one.shows("form[data-practice]")
    while one.page.locator("form[data-practice]").count():
        kind = one.page.locator("form.item").get_attribute("data-kind")
        one.page.keyboard.type("days of the week" if kind == "words" else "1")
        one.press("Enter")
        playwright.expect(one.page.locator(".feedback")).to_be_visible()
        where = one.page.locator(".where").inner_text()
        one.press("Enter")
        playwright.expect(one.page.locator(".where")).not_to_have_text(where)
        one.settle()


def answer(one: Watched, key: str = "1") -> None:
    """The item that is shown, by keys."""
    kind = one.page.locator("form.item").get_attribute("data-kind")
    item = item_of(one)
    one.page.keyboard.type("the words" if kind == "words" else key)
    one.press("Enter")
    playwright.expect(one.page.locator(f"form.item[action$='/{item}']")).to_have_count(0)
    one.settle()
    if one.page.locator("form:not(.item)").count():  # a break
        one.press("Enter")
        one.shows("form.item")


def item_of(one: Watched) -> str:
    """The item that is shown."""
    return one.page.locator("form.item").get_attribute("action").rsplit("/", 1)[1]


@pytest.mark.parametrize("served", [2], indirect=True)  # more than twenty questions, so that there is a break
def test_a_rater_finishes_a_study_by_keys(browser, served):
    address, study = served
    token = study.links.raters[0]
    for one in watched(browser, address):
        begin(one, token)
        first = item_of(one)
        assert study.files.items[first].id == study.session(0)[0].id
        text = one.page.content()
        assert ATTACK not in text and "alert(1)" in text
        assert not any(word in text for word in ("hierarchy", "flat", "shuffled", "run:", "baseline"))
        while one.page.locator("form.item").count():
            answer(one)
        playwright.expect(one.page.locator("h1")).to_have_text("Thank you")
        assert one.page.locator("#code").inner_text() == study.code(token)
    given = study.store.answers(kind=HUMAN, rater=0)
    wanted = [item.id for item in session(study.files, 0)]
    assert [one.item for one in given] == wanted
    assert all(one.ms > 0 for one in given)


def test_a_closed_tab_is_resumed_where_it_was(browser, served):
    address, study = served
    token = study.links.raters[0]
    for one in watched(browser, address):
        begin(one, token)
        answer(one)
        answer(one)
        at = item_of(one)
    for one in watched(browser, address):
        one.go(f"/r/{token}")
        assert item_of(one) == at
        assert one.page.locator(".where").inner_text().startswith("Question 3 of")
    assert len(study.store.answers()) == 2


def test_two_raters_at_once_do_not_meet(browser, served):
    address, study = served
    for first in watched(browser, address):
        for second in watched(browser, address):
            begin(first, study.links.raters[0])
            begin(second, study.links.raters[1])
            for _ in range(2):
                answer(first, "1")
                answer(second, "2")
    for rater in (0, 1):
        given = study.store.answers(kind=HUMAN, rater=rater)
        assert [one.item for one in given] == [item.id for item in study.session(rater)[:2]]


def test_a_double_click_answers_once_and_leaves_the_next_item_alone(browser, served):
    address, study = served
    for one in watched(browser, address):
        begin(one, study.links.raters[0])
        while one.page.locator("form.item[data-kind=words]").count():
            answer(one)
        before = len(study.store.answers())
        one.page.locator(".option").first.click()
        one.page.locator("[data-go]").dblclick()
        playwright.expect(one.page.locator(".where")).to_contain_text(f"Question {before + 2} ")
        one.settle()
        one.go(f"/r/{study.links.raters[0]}")  # a second answer would have been sent before this
        assert len(study.store.answers()) == before + 1


def chosen(one: Watched) -> int:
    return one.page.locator("form.item :checked").count()


def test_back_reload_and_history_never_choose_an_answer(browser, served):
    """Going back says that a question is answered; no question is ever shown with a choice, so none can be sent."""
    address, study = served
    for one in watched(browser, address):
        begin(one, study.links.raters[0])
        while one.page.locator("form.item[data-kind=words]").count():
            answer(one)
        before = len(study.store.answers())
        for place in range(3):
            first = item_of(one)
            one.page.locator(".option").nth(1).click()
            one.page.click("[data-go]")
            playwright.expect(one.page.locator(f"form.item[action$='/{first}']")).to_have_count(0)
            one.settle()
            second = item_of(one)
            assert chosen(one) == 0
            one.page.locator(".option").nth(1).click()  # chosen, but not sent
            one.page.go_back()
            one.title("Already answered")
            assert one.page.locator("form").count() == 0 and one.view().endswith(first)
            one.page.go_forward()
            one.shows(f"form.item[action$='/{second}']")
            assert chosen(one) == 0
            one.page.locator(".option").nth(1).click()
            one.page.reload()
            one.settle()
            assert item_of(one) == second and chosen(one) == 0
            one.page.go_back()
            one.title("Already answered")
            one.press("Enter")  # on the link to go on
            one.shows(f"form.item[action$='/{second}']")
            assert chosen(one) == 0
            one.page.click("[data-go]")  # without a choice, nothing is sent
            assert item_of(one) == second
            assert len(study.store.answers()) == before + place + 1


def test_a_choice_that_the_browser_restores_is_cleared(browser, served):
    address, study = served
    for one in watched(browser, address):
        begin(one, study.links.raters[0])
        while one.page.locator("form.item[data-kind=words]").count():
            answer(one)
        one.page.evaluate("document.querySelector('.option input').checked = true")  # nobody has clicked
        one.page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow'))")
        assert chosen(one) == 0
        one.press("2")
        one.page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow'))")
        assert chosen(one) == 1


def test_practice_is_resumed_and_looks_like_the_items(browser, served):
    address, study = served
    token = study.links.raters[0]
    for one in watched(browser, address, color_scheme="light"):
        one.go(f"/r/{token}")
        assert "the darker a mark" in one.page.locator(".reading").inner_text()
        one.page.click("[data-go]")
        one.shows("form[data-practice]")
        steps = {mark.get_attribute("class") for mark in one.page.locator(".excerpts mark").all()}
        assert len(steps) >= 3 and "↵" in one.page.locator(".excerpts").all_inner_texts().__str__()
        one.press("1", "Enter")
        playwright.expect(one.page.locator(".feedback")).to_be_visible()
        one.press("Enter")
        playwright.expect(one.page.locator(".where")).to_contain_text("Practice 2 of")
    for one in watched(browser, address, color_scheme="dark"):
        one.go(f"/r/{token}")
        playwright.expect(one.page.locator(".where")).to_contain_text("Practice 2 of")
        assert "the brighter a mark" in one.page.locator(".reading").inner_text()


def test_no_item_is_seen_before_its_keys_work_and_no_key_counts_before(browser, served):
    address, study = served
    for one in watched(browser, address):
        begin(one, study.links.raters[0])
        while one.page.locator("form.item[data-kind=words]").count():
            answer(one)
        let_through = hold(one.page, "**/study.js")
        one.page.goto(f"{address}{one.view()}", wait_until="commit")
        one.press("1")
        assert one.page.locator("form.item").count() == 0
        let_through()
        one.shows("form.item")
        assert one.page.locator("form.item :checked").count() == 0
        one.press("1")
        assert one.page.locator("form.item :checked").count() == 1


def test_without_a_choice_nothing_is_sent(browser, served):
    address, study = served
    for one in watched(browser, address):
        begin(one, study.links.raters[0])
        one.page.click("[data-go]")
        one.go(f"/r/{study.links.raters[0]}")  # an answer would have been sent before this
        assert study.store.answers() == []


def test_the_administrator_sees_progress_and_stops_the_study(browser, served):
    address, study = served
    for one in watched(browser, address):
        begin(one, study.links.raters[0])
        answer(one)
        one.go(f"/admin/{study.links.administrator}")
        assert "1 of " in one.page.locator("table").last.inner_text()
        one.page.click("form button")
        playwright.expect(one.page.locator("form button")).to_have_text("Open again")
        one.go(f"/r/{study.links.raters[0]}")
        playwright.expect(one.page.locator("h1")).to_have_text("The study is closed")


def fits(one: Watched) -> bool:
    return one.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_no_page_is_wider_than_a_phone(browser, served):
    address, study = served
    for one in watched(browser, address, viewport={"width": 360, "height": 740}, color_scheme="dark"):
        one.go(f"/r/{study.links.raters[0]}")
        assert fits(one)
        begin(one, study.links.raters[0])
        seen = set()
        while one.page.locator("form.item").count():
            item = study.files.items[item_of(one)]
            assert fits(one), item.task
            seen.add(item.task)
            answer(one)
        assert len(seen) >= 4 and CHECK in seen
        one.go(f"/admin/{study.links.administrator}")
        assert fits(one)
