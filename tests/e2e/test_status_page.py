"""The status page in a real browser: Debian's Chromium through playwright.

A person can see what the agent does and what is wrong: without scripts, in dark and light mode, on a phone, by keyboard and by the names
that a screen reader announces; and no text of the platform or a command becomes markup.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from relay_agent.diagnostics.platform_causes import REFUSED
from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import ThreadedAgent, running, wait_until
from tests.agents import page as agent_page
from tests.e2e.browser import needs_chromium
from tests.e2e.status_scenes import scene
from tests.programs import free_ports

pytestmark = needs_chromium
MARKUP = "<img src=x onerror=document.title='owned'>"


class Shown:
    """The page of an agent, held still and as a browser without scripts has it; what it asked for and complained of is kept."""

    def __init__(self, browser: Browser, port: int, path: str = "/?refresh=off", **options: Any) -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self._context = browser.new_context(java_script_enabled=options.pop("scripts", False), **options)
        self._context.set_default_timeout(10_000)
        self.page: Page = self._context.new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.clock.install()
        self.page.goto(f"http://127.0.0.1:{port}{path}")

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *_: object) -> None:
        self._context.close()


def test_the_page_of_a_ready_agent_says_so_and_shows_its_commands(browser: Browser, sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with scene("ready", sandbox, tmp_path, port, 6) as agent:
        shown = Shown(browser, port)
        with shown as page:
            expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
            expect(page.get_by_text("waiting for commands.")).to_be_visible()
            expect(page.get_by_role("img", name="commands in the last hour")).to_be_visible()
            page.get_by_text(re.compile(r"^\d+ earlier$")).click()
            listed = page.get_by_role("region", name="Recent commands").get_by_role("row")
            assert listed.count() == 2 + agent.agent.flow.journal.counts()["delivered"]
            expect(page.get_by_role("row", name="poller running")).to_be_visible()
            expect(page.get_by_role("row", name="8 workers running")).to_be_visible()
            assert "What to do" not in page.content()
        assert {url.split("?")[0] for url in shown.asked} <= {f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{port}/favicon.ico"}
        assert [text for text in shown.complaints if "favicon" not in text and "404" not in text] == []


def test_the_page_of_a_busy_agent_says_how_busy(browser: Browser, sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with scene("busy", sandbox, tmp_path, port), Shown(browser, port) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
        expect(page.get_by_text("4 of 8 workers are busy, 16 more commands are waiting.")).to_be_visible()
        expect(page.get_by_role("cell", name="admitted", exact=True).first).to_be_visible()


def test_the_page_of_an_agent_that_is_not_ready_gives_cause_and_cure(browser: Browser, sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with scene("not-ready", sandbox, tmp_path, port), Shown(browser, port) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Not ready")
        problem = page.get_by_role("region", name="Not ready")
        expect(problem.get_by_role("definition").first).to_have_text(REFUSED.cure)
        expect(problem.get_by_text("answered 401")).to_be_visible()
        expect(problem.get_by_text(REFUSED.cause)).to_be_visible()


def test_it_is_dark_where_the_system_is_and_fits_a_phone(browser: Browser, sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with scene("busy", sandbox, tmp_path, port):
        grounds = []
        for scheme in ("light", "dark"):
            with Shown(browser, port, scripts=True, color_scheme=scheme, viewport={"width": 360, "height": 740}) as page:
                grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
                assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert len(set(grounds)) == 2


def test_on_a_phone_state_and_code_of_each_command_are_in_sight(browser: Browser, sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with scene("ready", sandbox, tmp_path, port), Shown(browser, port, viewport={"width": 390, "height": 740}) as page:
        rows = page.get_by_role("table", name="Latest commands").get_by_role("row").filter(has_text=re.compile("SUCCESS|FAILURE"))
        assert rows.count() > 0
        for row in rows.all():
            card = row.bounding_box()
            parts = [
                row.get_by_role("cell", name=name).bounding_box() for name in (re.compile("^(SUCCESS|FAILURE)"), re.compile(r"^[24]0\d$"))
            ]
            assert card is not None
            for part in parts:
                assert part is not None
                assert card["x"] <= part["x"] and part["x"] + part["width"] <= 390 and part["y"] - card["y"] < 20


def test_the_keyboard_reaches_the_state_first_and_everything_that_opens_or_leads_on(
    browser: Browser, sandbox: Sandbox, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    with scene("ready", sandbox, tmp_path, port, 6), Shown(browser, port, scripts=True) as page:
        reached = []
        for _ in range(6):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"))
        assert reached[:2] == ["Skip to the state", "Resume"]
        assert [re.sub(r"\d+", "N", text) for text in reached[2:5]] == ["N earlier", "status.json", "metrics"]


def test_it_refreshes_automatically_until_it_is_paused(browser: Browser, sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_ADMIN_ADDR": f"127.0.0.1:{port}"})), Shown(browser, port) as page:
        assert page.locator("meta[http-equiv=refresh], script").count() == 0
        page.get_by_role("link", name="Resume").click()
        assert page.locator("meta[http-equiv=refresh]").count() == 1
        page.get_by_role("link", name="Pause").click()
        assert page.locator("meta[http-equiv=refresh]").count() == 0


def anew(page: Page) -> None:
    """Let ten seconds pass for the page, and wait until it has asked again."""
    with page.expect_response(lambda _: True):
        page.clock.run_for(10_100)


def test_it_refreshes_in_place_and_keeps_focus_scroll_position_and_what_is_open(browser: Browser, sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with scene("ready", sandbox, tmp_path, port, 6) as agent:
        shown = Shown(browser, port, "/", scripts=True, viewport={"width": 360, "height": 740})
        with shown as page:
            assert page.locator("meta[http-equiv=refresh]").count() == 0
            listed = page.get_by_role("region", name="Recent commands")
            wrong = page.get_by_role("region", name="Not ready")
            opens = page.get_by_text(re.compile(r"^\d+ earlier$"))
            opens.click()
            rows = listed.get_by_role("row").count()
            opens.evaluate("summary => { summary.focus(); window.stays = summary; }")
            agent.ask_until_logged({"url": "http://127.0.0.1:9/"})
            with sandbox.inject(Fault("rest", "agent/config", contains=agent.agent_id, status=401, count=None)):
                wait_until(sandbox, lambda: agent_page(agent, "/readyz")[0] == 503)
                anew(page)
                expect(page.get_by_role("heading", level=1)).to_have_text("Not ready")
                expect(wrong).to_contain_text(REFUSED.cure)
                expect(page).to_have_title(re.compile("^Not ready: "))
            expect(listed.get_by_role("row")).to_have_count(rows + 1)
            kept = "[document.activeElement === window.stays, window.stays.isConnected, window.stays.parentNode.open, window.scrollY > 0]"
            assert page.evaluate(kept) == [True, True, True, True]
            wait_until(sandbox, lambda: agent_page(agent, "/readyz")[0] == 200)
            anew(page)
            expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
            expect(wrong).to_have_count(0)
            assert page.evaluate(kept) == [True, True, True, True]
    assert {url for url in shown.asked if "favicon" not in url} == {f"http://127.0.0.1:{port}/"}
    assert [text for text in shown.complaints if "favicon" not in text and "404" not in text] == []


def test_it_says_that_the_agent_does_not_answer_while_it_does_not(browser: Browser, sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    agent = ThreadedAgent(sandbox, tmp_path, {"RELAY_ADMIN_ADDR": f"127.0.0.1:{port}", "RELAY_DRAIN_SECONDS": "3"})
    with running(agent):
        shown = Shown(browser, port, "/", scripts=True)
        assert agent.stop() == 0
    with shown as page:
        alert = page.get_by_role("alert")
        assert alert.count() == 0
        for _ in range(2):
            page.clock.run_for(10_100)
            expect(alert).to_contain_text("No answer from the agent")
        expect(page).to_have_title(re.compile("^No answer: (?!No answer)"))
        again = ThreadedAgent(sandbox, tmp_path, {"RELAY_ADMIN_ADDR": f"127.0.0.1:{port}", "RELAY_DRAIN_SECONDS": "3"}, agent.agent_id)
        with running(again):
            page.clock.run_for(10_100)
            expect(alert).to_have_count(0)
            expect(page).to_have_title(re.compile("^(Ready|Not ready|Starting)"))


@pytest.mark.parametrize("width", [1180, 360])
def test_a_very_long_host_keeps_its_row_low_and_can_be_seen_in_full(browser: Browser, sandbox: Sandbox, tmp_path: Path, width: int) -> None:
    (port,) = free_ports(1)
    host = ".".join(["instrument" * 6] * 4)
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_ADMIN_ADDR": f"127.0.0.1:{port}"})) as agent:
        agent.ask_until_logged({"url": "http://127.0.0.1:9/"})
        agent.ask_until_logged({"url": f"http://{host}:58443/"})
        with Shown(browser, port, scripts=True, viewport={"width": width, "height": 740}) as page:
            high, low = (page.get_by_role("row").filter(has_text=code) for code in ("ENOTFOUND", "ECONNREFUSED"))
            heights = [(row.bounding_box() or {"height": 0.0})["height"] for row in (high, low)]
            assert 0 < heights[0] <= 2 * heights[1], heights
            cell = high.locator(".cut")
            assert cell.get_attribute("title") == f"{host}:58443"
            assert (cell.text_content() or "").strip() == f"{host}:58443"
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_text_of_the_platform_never_becomes_markup(browser: Browser, sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    agent_id = sandbox.add_agent(name=MARKUP)
    settings: dict[str, str | None] = {"RELAY_ADMIN_ADDR": f"127.0.0.1:{port}"}
    with (
        running(ThreadedAgent(sandbox, tmp_path, settings, agent_id)) as agent,
        Shown(browser, port, scripts=True) as page,
    ):
        agent.ask({"url": "http://127.0.0.1:9/", "method": "X-MARK"}, action=MARKUP)
        page.reload()
        expect(page.get_by_role("banner")).to_contain_text(MARKUP)
        assert page.locator("img").count() == 0
        assert "owned" not in page.title().replace(MARKUP, "")
