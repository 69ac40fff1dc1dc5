"""Agents to look at: idle, busy, not ready, or with targets that fail. As a program, it takes the pictures of `docs/images`.

Time is moved by hand, so that an hour of commands takes seconds.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from playwright.sync_api import Browser

from relay_agent.core.clock import Clock
from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import ThreadedAgent, page, running, wait_until
from tests.e2e.browser import chromium
from tests.targets import ByteTarget, reply

SCENES = ("ready", "busy", "not-ready", "warnings")
MINUTES = 60


@dataclass(frozen=True, slots=True)
class Look:
    """How a picture is taken."""

    ending: str
    scheme: Literal["light", "dark"]
    width: int
    height: int


LIGHT, DARK = Look("", "light", 1180, 900), Look("-dark", "dark", 1180, 900)
PHONE, DARK_PHONE = Look("-phone", "light", 390, 1300), Look("-phone", "dark", 390, 1300)
PICTURES = {"ready": (LIGHT,), "busy": (LIGHT, DARK, DARK_PHONE), "not-ready": (LIGHT, PHONE), "warnings": (LIGHT,)}


@contextmanager
def scene(name: str, sandbox: Sandbox, directory: Path, port: int, minutes: int = 3) -> Iterator[ThreadedAgent]:
    """An agent in that state, whose pages are on the port of 127.0.0.1."""
    ahead = 0.0
    clock = Clock(monotonic=lambda: time.monotonic() + ahead)
    settings: dict[str, str | None] = {
        "RELAY_ADMIN_ADDR": f"127.0.0.1:{port}",
        "RELAY_WORKERS": "8",
        "RELAY_CONFIG_REFRESH_SECONDS": "1",
        "RELAY_DRAIN_SECONDS": "3",
    }
    with ExitStack() as stack:
        targets = [stack.enter_context(ByteTarget()) for _ in range(4)]
        for target in targets:
            target.on("/", reply(body="here"))
            target.on("/missing", reply(404))
        agent = stack.enter_context(
            running(ThreadedAgent(sandbox, directory, settings, sandbox.add_agent("Basel, building 7"), clock=clock))
        )
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)
        draw = Random(5)
        for minute in range(minutes):
            count = max(1, round(6 * draw.random() + (6 if name == "busy" else 0) * minute / minutes))
            asked = [agent.create({"url": draw.choice(targets).url("/missing" if draw.random() < 0.06 else "/")}) for _ in range(count)]
            wait_until(sandbox, lambda asked=asked: all(command.final for command in asked))  # type: ignore[misc]
            if minute < minutes - 1:
                ahead += 60.0
                for status in agent.agent.threads.statuses.values():
                    status.success()
        if name == "busy":
            for target in targets:
                gate = target.gate()
                target.on("/slow", lambda conn, _, gate=gate: (conn.wait(gate, 60), conn.respond(200)))  # type: ignore[misc]
                stack.callback(gate.release)
            held = [agent.create({"method": "POST", "url": targets[number % 4].url("/slow")}) for number in range(20)]
            wait_until(sandbox, lambda: agent.agent.flow.tasks.running() + agent.agent.flow.tasks.waiting() == len(held))
        if name == "warnings":
            for closed in range(9, 14):
                agent.ask({"url": f"http://127.0.0.1:{closed}/"})
        if name == "not-ready":
            stack.enter_context(sandbox.inject(Fault("rest", "agent/config", contains=agent.agent_id, status=401, count=None)))
            stack.enter_context(sandbox.inject(Fault("logs", status=400, code="AccessDeniedException", count=None)))
            wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 503)
        yield agent


def main() -> None:
    """Take the pictures, as small as pngquant makes them where it is installed: light, dark and on a phone, those of `PICTURES`."""
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    with chromium() as browser, Sandbox() as sandbox, tempfile.TemporaryDirectory() as directory:
        for port, name in enumerate(SCENES, 18_190):
            with scene(name, sandbox, Path(directory) / name, port, MINUTES) as agent:
                for look in PICTURES[name]:
                    picture(browser, f"http://127.0.0.1:{port}/", look, place / f"status-{name}{look.ending}.png")
                if name == "ready":
                    failed = next(one.id for one in sandbox.commands.all() if one.status == "FAILURE")
                    for path, kind, look in (("", "agents", LIGHT), ("", "agents", PHONE), (f"/commands/{failed}", "command", DARK)):
                        picture(browser, sandbox.api_target + path, look, place / f"sandbox-{kind}{look.ending}.png")
                    picture(browser, f"{sandbox.api_target}/agents/{agent.agent_id}/purge", PHONE, place / "sandbox-purge-phone.png")


def picture(browser: Browser, url: str, look: Look, file: Path) -> None:
    """Take the upper part of a page."""
    context = browser.new_context(color_scheme=look.scheme, viewport={"width": look.width, "height": look.height})
    shown = context.new_page()
    shown.goto(url)
    shown.screenshot(path=file)
    context.close()
    if pngquant := shutil.which("pngquant"):
        subprocess.run([pngquant, "--force", "--ext", ".png", "--speed", "1", "64", str(file)], check=True, timeout=60)


if __name__ == "__main__":
    main()
