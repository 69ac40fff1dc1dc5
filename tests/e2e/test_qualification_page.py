"""The qualification report in a real browser: readable on a screen and a phone, and printed on A4 and Letter without losing anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from relay_agent.cli.qualification.lines import REQUIREMENTS, Line, judged, not_run
from relay_agent.cli.qualification.page import render
from relay_agent.cli.qualification.report import Report
from tests.e2e.browser import needs_chromium
from tests.unit.cli.qualification.scenes import SUBJECT

pytestmark = needs_chromium
LONG = "/var/lib/" + "a-directory-without-a-place-to-break" * 4


def lines() -> Iterator[Line]:
    """A report as long as a real one, with values that are hard to fit."""
    for number in REQUIREMENTS:
        if number == "IQ-06":
            yield from (judged(f"IQ-06.{place}", f"RELAY_SETTING_NUMBER_{place}: a number", LONG, good=True) for place in range(1, 36))
        elif number == "IQ-05":
            yield not_run(number, "as delivered", "the agent runs from a directory of sources")
        else:
            yield judged(number, "as expected", LONG if number == "OQ-04" else "200", number != "OQ-12", "a remark")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(Report(SUBJECT, tuple(lines())), "report.json", "ab" * 32), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Browser, page_file: Path) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(page_file.as_uri())
    yield page
    context.close()


def cut(page: Page) -> list[str]:
    """The texts that do not fit into their cells."""
    found: list[str] = page.evaluate(
        "[...document.querySelectorAll('td, th, dd, dt, li, p')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
    )
    return found


@pytest.mark.parametrize("width", [1280, 390], ids=["screen", "phone"])
def test_every_text_fits_and_nothing_scrolls_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert cut(page) == []


def test_it_loads_nothing_and_the_browser_has_no_complaint(browser: Browser, page_file: Path) -> None:
    context = browser.new_context()
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(page_file.as_uri())
    assert (asked, complaints) == ([page_file.as_uri()], [])
    context.close()


@pytest.mark.parametrize("paper, width", [("A4", 595), ("Letter", 612)])
def test_it_prints_on_both_papers_with_every_text_in_its_cell(page: Page, paper: str, width: int) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": round((width - 2 * 40) / 72 * 96), "height": 1000})  # between the margins of 14 mm
    assert cut(page) == []
    pdf = page.pdf(format=paper)
    assert {int(float(box)) for box in re.findall(rb"/MediaBox \[0 0 ([\d.]+)", pdf)} == {width}
    assert len(re.findall(rb"/Type /Page\b", pdf)) >= 3


def test_a_row_and_the_signatures_are_not_split_and_headings_are_repeated(page: Page) -> None:
    page.emulate_media(media="print")
    style = "getComputedStyle(document.querySelector('{}')).{}"
    assert page.evaluate(style.format("tbody tr", "breakInside")) == "avoid"
    assert page.evaluate(style.format(".sign", "breakInside")) == "avoid"
    assert page.evaluate(style.format("thead", "display")) == "table-header-group"
