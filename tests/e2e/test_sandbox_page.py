"""The sandbox's page in a real browser: Debian's Chromium through playwright.

A person can see agents and commands, switch them and send one, by mouse and by keyboard, with and without scripts, and no
content of a command becomes markup. Runs without an agent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from relay_agent.sandbox.server import Sandbox
from tests.integration.sandbox_calls import REQUEST, agent_call, receive, report

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
MARKUP = "<img src=x onerror=document.title='owned'>"
WAIT_MS = 10_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Chromium's own sandbox needs a user that is not root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=[*arguments, "--disable-dev-shm-usage"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, sandbox: Sandbox) -> Iterator[Page]:
    with opened(browser, sandbox) as context:
        yield context.new_page()


def opened(browser: Browser, sandbox: Sandbox, **options: Any) -> BrowserContext:
    context = browser.new_context(base_url=sandbox.api_target, **options)
    context.set_default_timeout(WAIT_MS)
    return context


def card(page: Page, agent_id: str) -> Any:
    return page.get_by_role("article").filter(has_text=agent_id)


def line(page: Page, command_id: str) -> Any:
    return page.get_by_role("row").filter(has=page.locator(f"#command-{command_id}"))


def test_an_agent_goes_online_on_the_open_page_without_a_reload(page: Page, sandbox: Sandbox, agent_id: str) -> None:
    page.goto("/")
    expect(card(page, agent_id)).to_contain_text("Offline never heard")
    agent_call(sandbox, "POST", "status", agent_id)
    expect(card(page, agent_id)).to_contain_text("Online since", timeout=WAIT_MS)
    agent_call(sandbox, "PUT", "status", agent_id, statusSetting="STOPPED")
    expect(card(page, agent_id)).to_contain_text("stopped cleanly", timeout=WAIT_MS)


def test_connection_and_queue_are_switched_by_button(page: Page, sandbox: Sandbox, agent_id: str) -> None:
    agent = sandbox.agents.get(agent_id)
    assert agent is not None
    page.goto("/")
    card(page, agent_id).get_by_role("button", name="Disable the agent's connection").click()
    expect(card(page, agent_id).get_by_role("button", name="Enable the agent's connection")).to_be_visible()
    assert not agent.enabled
    card(page, agent_id).get_by_role("button", name="Disable the agent's queue").click()
    expect(card(page, agent_id).get_by_role("button", name="Enable the agent's queue")).to_be_visible()
    assert not agent.queue_enabled
    card(page, agent_id).get_by_role("button", name="Enable the agent's queue").click()
    expect(card(page, agent_id).get_by_role("button", name="Disable the agent's queue")).to_be_visible()
    assert agent.queue_enabled


def test_a_command_is_sent_and_its_answer_appears_by_itself(page: Page, sandbox: Sandbox, agent_id: str) -> None:
    page.goto("/")
    card(page, agent_id).get_by_role("link", name="Send a command").click()
    page.get_by_label("Method").fill("POST")
    page.get_by_label("URL").fill("https://lims.lab.example/api")
    page.get_by_label("Headers").fill("Content-Type: text/plain\nX-Two: a\nX-Two: b")
    page.get_by_label("Body").fill("line one\nline two")
    page.get_by_label("Timeout").fill("5")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("PENDING POST lims.lab.example")
    [message] = receive(sandbox, agent_id)
    assert message["body"] == {
        "method": "POST",
        "url": "https://lims.lab.example/api",
        "timeout": 5.0,
        "headers": [{"Content-Type": "text/plain"}, {"X-Two": "a"}, {"X-Two": "b"}],
        "body": {"mode": "raw", "raw": "line one\nline two"},
    }
    answer = {"statusCode": 201, "headers": [{"x-made-by": "lims"}, {"set-cookie": ["a=1", "b=2"]}], "body": "created", "elapsedMs": 12}
    report(sandbox, agent_id, message["commandId"], "SUCCESS", body=answer)
    response = page.get_by_role("region", name="Response")
    expect(response).to_contain_text("201", timeout=WAIT_MS)
    expect(response).to_contain_text("b=2")
    expect(response).to_contain_text("created")
    expect(page.get_by_role("heading", level=1)).to_contain_text("SUCCESS")
    expect(page.get_by_role("listitem").last).to_contain_text("Command status changed to SUCCESS")


def test_the_form_works_by_keyboard_alone_and_keeps_what_was_typed(page: Page, agent_id: str) -> None:
    page.goto(f"/send?target={agent_id}")
    page.get_by_label("Method").focus()
    page.keyboard.press("Tab")
    page.keyboard.type("http://lims.lab.example/keyboard")
    page.keyboard.press("Tab")
    page.keyboard.type("no header")
    page.get_by_role("button", name="Send", exact=True).focus()
    page.keyboard.press("Enter")
    headers = page.get_by_label("Headers")
    expect(headers).to_be_focused()
    expect(headers).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("Line 1 is not a header")).to_be_visible()
    expect(page.get_by_label("URL")).to_have_value("http://lims.lab.example/keyboard")
    headers.fill("")
    page.get_by_label("URL").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("GET lims.lab.example")


def test_commands_are_listed_by_status_and_open_by_click(page: Page, sandbox: Sandbox, agent_id: str) -> None:
    done, waiting = sandbox.create_command(agent_id, REQUEST), sandbox.create_command(agent_id, REQUEST)
    report(sandbox, agent_id, done, "REJECTED", body={"code": "EEXPIRED", "message": "too late"})
    sandbox.wait_final(done)
    page.goto("/commands")
    page.get_by_label("Status").select_option("REJECTED")
    page.get_by_role("button", name="Show").click()
    row = line(page, done)
    expect(row).to_contain_text("EEXPIRED")
    expect(line(page, waiting)).to_have_count(0)
    row.get_by_role("link").click()
    expect(page.get_by_role("region", name="Response")).to_contain_text("too late")


def test_a_purge_by_button_marks_what_waited(page: Page, sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    page.goto("/")
    card(page, agent_id).get_by_role("button", name="Purge its queue").click()
    expect(line(page, command_id)).to_contain_text("PURGED")


def test_nothing_in_a_command_becomes_markup(page: Page, sandbox: Sandbox) -> None:
    agent_id = sandbox.add_agent(MARKUP)
    payload = {"method": MARKUP, "url": f"http://x/{MARKUP}", "headers": [{MARKUP: MARKUP}], "body": {"mode": "raw", "raw": MARKUP}}
    command_id = sandbox.create_command(agent_id, payload, metadata={"a": MARKUP})
    report(sandbox, agent_id, command_id, "FAILURE", body={"message": MARKUP, "headers": {MARKUP: [MARKUP]}, "body": MARKUP + "\ud800"})
    sandbox.wait_final(command_id)
    for path in ("/", "/commands", f"/commands/{command_id}", f"/send?target={agent_id}"):
        page.goto(path)
        expect(page.locator("img")).to_have_count(0)
        assert "owned" not in page.title().replace(MARKUP, "")
    page.goto(f"/commands/{command_id}")
    expect(page.get_by_label("Response body", exact=True)).to_contain_text(MARKUP)


def test_everything_is_seen_and_sent_without_scripts(browser: Browser, sandbox: Sandbox, agent_id: str) -> None:
    with opened(browser, sandbox, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"/send?target={agent_id}")
        page.get_by_label("URL").fill("http://lims.lab.example/plain")
        page.get_by_role("button", name="Send", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("PENDING GET lims.lab.example")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_and_fits_a_phone(browser: Browser, sandbox: Sandbox, agent_id: str, scheme: Any) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    with opened(browser, sandbox, color_scheme=scheme, viewport={"width": 360, "height": 740}) as context:
        page = context.new_page()
        for path in ("/", "/commands", f"/commands/{command_id}", "/send"):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            assert page.evaluate(LOWEST_CONTRAST) >= 4.5, path


def test_a_command_is_opened_on_a_phone_without_scrolling_sideways(browser: Browser, sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, {**REQUEST, "timeout": 30.0})
    with opened(browser, sandbox, viewport={"width": 375, "height": 740}) as context:
        page = context.new_page()
        page.goto("/commands")
        row = line(page, command_id)
        expect(row.get_by_role("cell").filter(has_text="lims.lab.example")).to_be_visible()
        assert row.evaluate("row => row.getBoundingClientRect().right <= innerWidth && row.closest('.scroll').scrollWidth <= innerWidth")
        row.get_by_role("link", name="PENDING: GET lims.lab.example").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("PENDING GET lims.lab.example")
        expect(page.get_by_role("region", name="Request").get_by_role("definition").filter(has_text="30")).to_have_text("30")


@pytest.mark.parametrize("path, words", [("/commands/none", "no such command"), ("/none", "no such page")])
def test_what_is_not_there_is_a_page_with_the_way_back(page: Page, path: str, words: str) -> None:
    answer = page.goto(path)
    assert answer is not None
    assert (answer.status, "default-src 'none'" in answer.headers["content-security-policy"]) == (404, True)
    expect(page.get_by_role("main")).to_contain_text(words)
    assert page.evaluate("getComputedStyle(document.querySelector('.top')).display") == "flex"
    page.get_by_role("navigation").get_by_role("link", name="Commands").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Commands")


def test_the_page_loads_nothing_from_elsewhere_and_logs_no_error(page: Page, sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    problems: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for path in ("/", "/commands", f"/commands/{command_id}", "/send"):
        page.goto(path)
        page.wait_for_load_state("networkidle")
    assert problems == []
    assert all(url.startswith((sandbox.api_target, "data:")) for url in asked)


@pytest.mark.parametrize("origin", [None, "null", "http://elsewhere.example"])
def test_a_form_of_another_site_is_refused(sandbox: Sandbox, agent_id: str, origin: str | None) -> None:
    headers = {"Origin": origin} if origin else {}
    answer = requests.post(f"{sandbox.api_target}/agents/{agent_id}/enabled", data={"enabled": "false"}, headers=headers, timeout=5)
    agent = sandbox.agents.get(agent_id)
    assert answer.status_code == 403
    assert agent is not None and agent.enabled


def test_a_name_that_was_bound_to_this_machine_from_outside_is_refused(sandbox: Sandbox) -> None:
    assert requests.get(sandbox.api_target, headers={"Host": "rebound.example"}, timeout=5).status_code == 403


LOWEST_CONTRAST = """() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => { const [r, g, b] = numbers(color).map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor, parts = numbers(color);
      if (parts.length < 4 || parts[3] === 1) return color;
    }
    return getComputedStyle(document.documentElement).colorScheme.includes("dark") ? "rgb(0,0,0)" : "rgb(255,255,255)";
  };
  let lowest = 21;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
    lowest = Math.min(lowest, (a + 0.05) / (b + 0.05));
  }
  return lowest;
}"""
