"""The verdict on a command for a URL: what of it is shown, and what makes it fail. The route is traced against a real target."""

from __future__ import annotations

import pytest

from relay_agent.cli.checks.result import Status
from relay_agent.cli.checks.route_trace import Stage
from relay_agent.cli.checks.target_check import Explained, check_target, explain, shown
from relay_agent.core.failures import Cause, Code
from relay_agent.core.urls import parse_url
from relay_agent.telemetry.secret_patterns import MASK
from tests.targets import ByteTarget, closed_port, reply
from tests.unit.cli.checks.scenes import settings

OK, BAD = Stage("connect", Status.OK, "fine", 0.5), Stage("tls", Status.ERROR, "refused", 0.25, Cause("x", "it expired", "renew it"))


def test_a_command_goes_through_unless_a_stage_has_an_error() -> None:
    warned = Stage("tls", Status.WARNING, "ends soon", 0.0)
    assert Explained("u", "allow", None, None, None, (OK, warned)).goes_through
    assert not Explained("u", "allow", None, None, None, (OK, BAD)).goes_through


def test_the_report_has_every_stage_with_cause_and_cure_in_its_summary() -> None:
    found = Explained("http://h/", "allow", "ECONNREFUSED", None, "http://gate:1", (OK, BAD)).to_json()
    assert (found["url"], found["verdict"], found["code"], found["proxy"]) == ("http://h/", "allow", "ECONNREFUSED", "http://gate:1")
    assert found["stages"] == [
        {"stage": "connect", "status": "ok", "summary": "fine", "seconds": 0.5},
        {"stage": "tls", "status": "error", "summary": "refused: it expired; renew it", "seconds": 0.25},
    ]


def test_a_url_is_shown_without_user_info_and_with_its_query_masked() -> None:
    text = shown(parse_url("http://user:canary@dev.lab.example:8080/path?token=canary"))
    assert text.startswith("http://dev.lab.example:8080/path?")
    assert "canary" not in text and "user" not in text


@pytest.mark.parametrize("url", ["ftp://user:canary@h/", "http://h:canary/", "canary"])
def test_of_a_url_that_is_none_nothing_is_shown(environment: pytest.MonkeyPatch, url: str) -> None:
    found = explain(settings(), url)
    assert (found.url, found.code, found.goes_through) == (MASK, Code.EBADCOMMAND, False)
    assert "canary" not in str(found)
    check = check_target(settings(), url, 5.0)
    assert (check.status, "canary" in str(check)) == (Status.ERROR, False)


def test_explain_sends_nothing_unless_it_is_asked_to(environment: pytest.MonkeyPatch) -> None:
    with ByteTarget() as target:
        target.on("/a", reply(204))
        looked = explain(settings(), target.url("/a"))
        assert (looked.goes_through, looked.status_code, len(target.requests)) == (True, None, 0)
        sent = explain(settings(), target.url("/a"), "DELETE", send=True)
        assert (sent.goes_through, sent.status_code, [seen.method for seen in target.requests]) == (True, 204, ["DELETE"])


def test_a_target_that_refuses_the_connection_fails_with_the_code_of_a_command(environment: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{closed_port()}/"
    found = explain(settings(), url, send=True)
    assert (found.code, found.verdict, found.goes_through) == (Code.ECONNREFUSED, "allow", False)
    assert check_target(settings(), url, 5.0).status is Status.ERROR


@pytest.mark.parametrize(
    ("status", "judged"), [(200, Status.OK), (404, Status.OK), (405, Status.OK), (500, Status.ERROR), (501, Status.OK), (503, Status.ERROR)]
)
def test_a_target_that_can_be_reached_is_unwell_only_if_it_says_so(environment: pytest.MonkeyPatch, status: int, judged: Status) -> None:
    """501 means that the target does not know HEAD."""
    with ByteTarget() as target:
        target.on("/a", reply(status))
        check = check_target(settings(), target.url("/a"), 5.0)
        assert (check.id, check.status, [seen.method for seen in target.requests]) == ("target", judged, ["HEAD"])
        assert str(status) in check.summary
