"""The sandbox's page in a real browser: Debian's Chromium through playwright.

A person can see agents and commands, switch them and send one, by mouse and by keyboard, with and without scripts, and no
content of a command becomes markup. Runs without an agent.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, expect

from relay_agent.sandbox.server import Sandbox
from tests.e2e.browser import needs_chromium
from tests.integration.sandbox_calls import REQUEST, agent_call, receive, report

pytestmark = needs_chromium
MARKUP = "<img src=x onerror=document.title='owned'>"
WAIT_MS = 10_000


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
    expect(card(page, agent_id)).to_contain_text("Offline never seen")
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
    row.get_by_role("cell").last.click(force=True)  # The link covers all of the row.
    expect(page.get_by_role("region", name="Response")).to_contain_text("too late")


def test_badges_stand_on_the_baseline_of_their_labels(page: Page, agent_id: str) -> None:
    page.goto("/")
    bottoms = card(page, agent_id).evaluate(BASELINES)
    assert len(bottoms) == 2
    for label, badge in bottoms:
        assert label == pytest.approx(badge, abs=1)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_a_purge_asks_first_and_then_marks_what_waited(browser: Browser, sandbox: Sandbox, agent_id: str, scripts: bool) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    with opened(browser, sandbox, java_script_enabled=scripts) as context:
        page = context.new_page()
        page.goto("/")
        card(page, agent_id).get_by_role("link", name="Purge its queue").click()
        expect(page.get_by_role("main")).to_contain_text("1 command waits")
        page.get_by_role("link", name="Cancel").click()
        expect(line(page, command_id)).to_contain_text("PENDING")
        card(page, agent_id).get_by_role("link", name="Purge its queue").click()
        page.get_by_role("button", name="Purge 1 command").click()
        expect(line(page, command_id)).to_contain_text("PURGED")


def test_a_purge_of_an_empty_queue_says_that_nothing_waits(page: Page, agent_id: str) -> None:
    page.goto(f"/agents/{agent_id}/purge")
    expect(page.get_by_role("main")).to_contain_text("No command waits")
    page.get_by_role("button", name="Purge the queue").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Commands")


def test_a_command_is_sent_again_as_it_was(page: Page, sandbox: Sandbox, agent_id: str) -> None:
    payload = {**REQUEST, "method": "PUT", "body": {"mode": "urlencoded", "urlencoded": [{"key": "a", "value": "b"}]}}
    first = sandbox.create_command(agent_id, payload, metadata={"run": "7"})
    page.goto(f"/commands/{first}")
    expect(page.get_by_role("link", name="Edit and send")).to_have_count(0)  # The form has no field for such a body.
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("PENDING PUT lims.lab.example")
    second = sandbox.command(page.url.rpartition("/")[2])
    assert second.id != first
    assert (second.payload, second.metadata, second.target_id) == (payload, {"run": "7"}, agent_id)
    assert abs(second.expires_at - second.created_at - timedelta(minutes=10)) < timedelta(seconds=5)


def test_a_command_is_edited_and_sent(page: Page, sandbox: Sandbox, agent_id: str) -> None:
    payload = {"method": "POST", "url": "https://lims.lab.example/api", "headers": [{"X-Two": "a"}, {"X-Two": "b"}], "timeout": 7.0}
    page.goto(f"/commands/{sandbox.create_command(agent_id, {**payload, 'body': {'mode': 'raw', 'raw': 'one'}})}")
    page.get_by_role("link", name="Edit and send").click()
    expect(page.get_by_label("Method")).to_have_value("POST")
    page.get_by_label("Body").fill("two")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("PENDING POST lims.lab.example")
    sent = sandbox.command(page.url.rpartition("/")[2])
    assert (sent.target_id, sent.payload) == (agent_id, {**payload, "timeout": 7, "body": {"mode": "raw", "raw": "two"}})


def test_a_secure_command_cannot_be_sent_again(page: Page, sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, {"jwe": "a.b.c.d.e"}, "TetraScience.Connector.http.Request.V2")
    page.goto(f"/commands/{command_id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("secure")
    expect(page.get_by_role("button", name="Send again")).to_have_count(0)
    answer = page.request.post(f"/commands/{command_id}/again", headers={"Origin": sandbox.api_target})
    assert (answer.status, "only once" in answer.text()) == (400, True)


def test_nothing_in_a_command_becomes_markup(page: Page, sandbox: Sandbox) -> None:
    agent_id = sandbox.add_agent(MARKUP)
    payload = {"method": MARKUP, "url": f"http://x/{MARKUP}", "headers": [{MARKUP: MARKUP}], "body": {"mode": "raw", "raw": MARKUP}}
    command_id = sandbox.create_command(agent_id, payload, metadata={"a": MARKUP})
    report(sandbox, agent_id, command_id, "FAILURE", body={"message": MARKUP, "headers": {MARKUP: [MARKUP]}, "body": MARKUP + "\ud800"})
    sandbox.wait_final(command_id)
    paths = (
        "/",
        "/commands",
        f"/commands/{command_id}",
        f"/send?target={agent_id}",
        f"/send?like={command_id}",
        f"/agents/{agent_id}/purge",
    )
    for path in paths:
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
        for path in ("/", "/commands", f"/commands/{command_id}", "/send", f"/agents/{agent_id}/purge"):
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
    for path in ("/", "/commands", f"/commands/{command_id}", "/send", f"/agents/{agent_id}/purge"):
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


BASELINES = """card => [...card.querySelectorAll("dd .badge")].map(badge => {
  const baseline = (node) => {
    const mark = document.createElement("span");
    mark.style.cssText = "display: inline-block; width: 0; height: 0";
    node.append(mark);
    const at = mark.getBoundingClientRect().bottom;
    mark.remove();
    return at;
  };
  return [baseline(badge.closest("dd").previousElementSibling), baseline(badge)];
})"""


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


def test_a_command_can_be_copied_as_a_sender_would_write_it(browser: Browser, sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, {"url": "https://lims.lab.example/api", "method": "POST", "body": MARKUP})
    with opened(browser, sandbox, permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.goto(f"/commands/{command_id}")
        code = page.get_by_role("region", name="The same command from your own code")
        expect(code.get_by_label("In a task script")).to_contain_text(f'ContextClient(context, "{agent_id}")')
        code.get_by_text("With curl").click()
        expect(code.get_by_label("With curl")).to_contain_text(f"{sandbox.api_target}/v1/commands")
        code.get_by_role("button", name="Copy").first.click()
        expect(code.get_by_role("button", name="Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert "relay_session(" in copied and MARKUP in copied and page.title() != "owned"
