"""The libraries by which people mock requests, where people use them: beside a session that goes through an agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
import requests_mock
import responses
import vcr
from vcr.errors import CannotOverwriteExistingCassetteException

from relay_agent.pipelines import CommandClient, relay_session
from relay_agent.pipelines.testing import LocalAgent
from tests.pages import SENDERS, blocks
from tests.sender_side import AGENT, TOKEN, Platform, answer

API = "https://lims.lab.example/api"


@responses.activate
def test_responses_answers_for_the_target(client: CommandClient, platform: Platform) -> None:
    responses.get(API, json={"id": 1}, status=201)
    with relay_session(client) as session:
        found = session.get(API, params={"q": 1})
        assert (found.status_code, found.json()) == (201, {"id": 1})
        with pytest.raises(requests.ConnectionError, match="doesn't match any registered mock"):
            session.get("https://other.example/")
    assert responses.calls[0].request.url == f"{API}?q=1" and not platform.created


@responses.activate
def test_responses_lets_through_what_it_is_configured_to() -> None:
    responses.add_passthru("https://lims.lab.example/")
    with relay_session(LocalAgent(answers={API: (200, {"id": 1})})) as session:
        assert session.get(API).json() == {"id": 1}
        with pytest.raises(requests.ConnectionError, match=r"^ECONNREFUSED: "):
            session.get("https://lims.lab.example/other")


def test_requests_mock_answers_for_the_target(client: CommandClient, platform: Platform) -> None:
    with relay_session(client) as session, requests_mock.Mocker() as mocker:
        mocker.get(API, json={"id": 1})
        assert session.get(API).json() == {"id": 1}
    assert not platform.created


def test_requests_mock_may_be_mounted_for_one_host(client: CommandClient) -> None:
    with relay_session(client) as session:
        adapter = requests_mock.Adapter()
        adapter.register_uri("GET", API, text="mocked")
        session.mount("https://lims.lab.example/", adapter)
        assert (session.get(API).text, session.get("https://other.example/").text) == ("mocked", "hello")


def test_vcrpy_records_the_platform_and_plays_it_again(served: tuple[Platform, str], tmp_path: Path) -> None:
    platform, address = served
    platform.agent = lambda _payload: answer(headers=[{"Content-Type": "text/plain"}], body="recorded")
    for expected in (1, 1):
        client = CommandClient(address, "acme", TOKEN, AGENT)
        with vcr.use_cassette(str(tmp_path / "tape.yaml"), filter_headers=["ts-auth-token"]), relay_session(client) as session:
            assert session.get(API).text == "recorded"
        assert len(platform.created) == expected
    assert TOKEN not in (tmp_path / "tape.yaml").read_text()


def test_vcrpy_with_the_pages_matcher_plays_each_request_its_own_answer(served: tuple[Platform, str], tmp_path: Path) -> None:
    platform, address = served
    platform.agent = lambda payload: answer(body=payload["url"][-1])
    (block,) = [block for block in blocks(SENDERS, "python") if "vcr.VCR" in block]
    scope: dict[str, Any] = {}
    exec(block, scope)
    tape = str(tmp_path / "tape.yaml")

    def play(mode: str, *names: str) -> list[str]:
        with (
            scope["recorder"].use_cassette(tape, record_mode=mode),
            relay_session(CommandClient(address, "acme", TOKEN, AGENT)) as session,
        ):
            return [session.get(f"{API}/{name}").text for name in names]

    assert play("once", "A", "B") == ["A", "B"]
    assert play("none", "B", "A") == ["B", "A"]
    with pytest.raises(CannotOverwriteExistingCassetteException):
        play("none", "C")
    assert TOKEN not in (tmp_path / "tape.yaml").read_text()
