"""A requests session through an agent: what becomes of a request, its answer and its failures."""

from __future__ import annotations

import base64
import contextlib
import gc
import io
import json
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import requests
from requests import exceptions as failures

from relay_agent.pipelines import relay_session
from relay_agent.pipelines.client import CommandClient
from relay_agent.pipelines.requests_adapter import RelayAdapter
from tests.sender_side import AGENT, RING, TOKEN, URL, Platform, answer, failure, opened, sealed, seconds_ahead


def test_a_request_becomes_the_commands_payload(relayed: requests.Session, platform: Platform) -> None:
    relayed.headers.clear()
    relayed.post(URL, data="h\u00e9llo", headers={"X-B": "2", "X-A": "1", "X-Raw": b"caf\xe9"}, timeout=7)
    command = platform.created[0]
    assert command["action"] == "TetraScience.Connector.gdc.HttpRequest"
    assert 6 < seconds_ahead(command["payload"].pop("not_after")) <= 7
    assert command["payload"] == {
        "method": "POST",
        "url": URL,
        "headers": [{"X-B": "2"}, {"X-A": "1"}, {"X-Raw": "caf\u00e9"}],
        "body": {"mode": "raw", "raw": "h\u00e9llo"},
        "timeout": 7.0,
        "follow_redirects": False,
    }


@pytest.mark.parametrize(
    "given",
    [b"\xff\x00", bytearray(b"\xff\x00"), iter([b"\xff", b"\x00"])],
    ids=["bytes", "bytearray", "iterator"],
)
def test_bytes_that_are_no_text_go_as_base64(relayed: requests.Session, platform: Platform, given: Any) -> None:
    relayed.put(URL, data=given)
    assert platform.created[0]["payload"]["body"] == {"mode": "base64", "base64": "/wA="}


def test_a_file_is_sent_from_where_it_stands(relayed: requests.Session, platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"skipped,sent")
    with (tmp_path / "f").open("rb") as file:
        file.seek(8)
        relayed.post(URL, data=file)
    assert platform.created[0]["payload"]["body"]["raw"] == "sent"
    assert not {"content-length", "transfer-encoding"} & {
        name.lower() for pair in platform.created[0]["payload"]["headers"] for name in pair
    }


@pytest.mark.parametrize("timeout, seconds", [(5, 5), (None, 60), ((3, 4), 4), ((3, None), 60)])
def test_a_timeout_is_one_limit_for_the_exchange(relayed: requests.Session, platform: Platform, timeout: Any, seconds: float) -> None:
    relayed.get(URL, timeout=timeout)
    assert platform.created[0]["payload"]["timeout"] == seconds


@pytest.mark.parametrize("timeout", [0, -1, (1, 0), (1, 2, 3)])
def test_an_invalid_timeout_is_refused_as_requests_does(relayed: requests.Session, platform: Platform, timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        relayed.get(URL, timeout=timeout)
    assert not platform.created


def test_verify_false_is_passed_on(relayed: requests.Session, platform: Platform) -> None:
    relayed.get(URL, verify=False)
    relayed.get(URL, verify=True)
    flags = [command["payload"].get("ignore_tls_certificate") for command in platform.created]
    assert flags == [True, None]


def test_a_bundle_of_the_environment_does_not_count(client: CommandClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/some/bundle.pem")
    with requests.Session() as session:
        session.mount("http://", RelayAdapter(client))
        assert session.get(URL).text == "hello"


@pytest.mark.parametrize("given", [{"verify": "/some/bundle.pem"}, {"cert": "client.pem"}, {"cert": ("client.pem", "client.key")}])
def test_what_only_the_agent_can_have_is_refused_before_anything_is_posted(
    relayed: requests.Session, platform: Platform, given: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="agent"):
        relayed.get(URL, **given)
    assert not platform.created


def test_a_path_is_refused_that_the_environment_names_too(
    client: CommandClient, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This session takes none from there, so its caller has given it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/some/bundle.pem")
    with relay_session(client) as session, pytest.raises(ValueError, match="give True or False"):
        session.get(URL, verify="/some/bundle.pem")
    assert not platform.created


def test_an_answer_becomes_a_response(relayed: requests.Session, platform: Platform) -> None:
    fields = [{"Content-Type": "application/json"}, {"X-Two": ["a", "b"]}, {"X-One": "c"}]
    platform.agent = lambda _payload: answer(404, fields, '{"n": 1}')
    response = relayed.get(URL)
    assert (response.status_code, response.reason, response.ok, response.url) == (404, "Not Found", False, URL)
    assert response.json() == {"n": 1} and response.headers["x-one"] == "c" and response.headers["X-Two"] == "a, b"
    assert response.raw.headers.getlist("x-two") == ["a", "b"]
    assert response.request.method == "GET"


def test_bytes_come_back_as_they_were(relayed: requests.Session, platform: Platform) -> None:
    data = bytes(range(256)) * 10
    platform.agent = lambda _payload: answer(body=base64.b64encode(data).decode(), encoding="base64")
    with relayed.get(URL, stream=True) as response:
        assert b"".join(response.iter_content(100)) == data


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", '"windows-1252"', "no-such-charset", "utf-16-le"])
def test_text_comes_back_in_the_targets_charset(relayed: requests.Session, platform: Platform, charset: str) -> None:
    platform.agent = lambda _payload: answer(headers=[{"content-type": f"text/plain; charset={charset}"}], body="h\u00e9")
    expected = "utf-8" if charset == "no-such-charset" else charset.strip('"')
    assert relayed.get(URL).content == "h\u00e9".encode(expected)


@pytest.mark.parametrize("status, method", [(204, "GET"), (304, "GET"), (200, "HEAD")])
def test_an_answer_without_a_body_is_empty(relayed: requests.Session, platform: Platform, status: int, method: str) -> None:
    platform.agent = lambda _payload: answer(status, [{"content-length": "500"}, {"transfer-encoding": "chunked"}])
    response = relayed.request(method, URL)
    assert (response.status_code, response.content) == (status, b"")


def test_cookies_and_redirects_work_as_in_any_session(relayed: requests.Session, platform: Platform) -> None:
    def agent(payload: dict[str, Any]) -> tuple[str, Any]:
        if payload["url"].endswith("/login"):
            return answer(
                302, [{"Location": "/home"}, {"Set-Cookie": ["a=1; Path=/", "b=2; Path=/; Expires=Wed, 01 Jan 2070 00:00:00 GMT"]}]
            )
        return answer(body=next((pair["Cookie"] for pair in payload["headers"] if "Cookie" in pair), "none"))

    platform.agent = agent
    response = relayed.get("http://target.example/login")
    assert (response.url, response.text) == ("http://target.example/home", "a=1; b=2")
    assert [step.status_code for step in response.history] == [302] and relayed.cookies.get("b") == "2"
    assert response.history[0].cookies.get("a") == "1"


FAILURES = [
    (failure("ECONNREFUSED", "connect ECONNREFUSED 10.1.2.3:443"), failures.ConnectionError),
    (failure("ENOTFOUND"), failures.ConnectionError),
    (failure("ECONNREFUSED", "proxy http://p:1: connect ECONNREFUSED 10.1.2.3:1"), failures.ProxyError),
    (failure("ETIMEDOUT", "connect to 10.1.2.3:443 took longer than 3 s"), failures.ConnectTimeout),
    (failure("ETIMEDOUT", "the first byte from 10.1.2.3:443 took longer than 3 s"), failures.ReadTimeout),
    (failure("CERT_HAS_EXPIRED"), failures.SSLError),
    (failure("EPROTO"), failures.SSLError),
    (failure("ETOOMANYREDIRECTS"), failures.TooManyRedirects),
    (failure("EBADCOMMAND", "url: must be http or https"), failures.InvalidURL),
    (failure("EBADCOMMAND", "headers[0].X: contains a control character"), failures.InvalidHeader),
    (failure("EBADRESPONSE", "x:1: the connection was closed before the end of the body"), failures.ChunkedEncodingError),
    (failure("EBADRESPONSE", "x:1: the body does not decode by its Content-Encoding"), failures.ContentDecodingError),
    (failure("EBADRESPONSE", "x:1: bad status line"), failures.ConnectionError),
    (failure("EPOLICY"), failures.RequestException),
    (failure("EEXPIRED", status="REJECTED"), failures.ConnectTimeout),
    (failure("UNKNOWN_COMMAND", status="REJECTED"), failures.RequestException),
    (("EXPIRED", None), failures.ReadTimeout),
    (("ERROR", None), failures.ConnectionError),
    (("FAILURE", {"statusCode": 200, "headers": [], "code": "ECONNRESET", "message": "lost", "elapsedMs": 1}), failures.ConnectionError),
    (("SUCCESS", [1]), failures.RequestException),
    (("SUCCESS", {"statusCode": 200, "body": "!", "bodyEncoding": "base64"}), failures.RequestException),
    (("SUCCESS", {"jwe": "x"}), failures.RequestException),
]


@pytest.mark.parametrize("found, kind", FAILURES, ids=[f"{kind.__name__}-{n}" for n, (_, kind) in enumerate(FAILURES)])
def test_a_failure_is_the_exception_of_a_direct_call(
    relayed: requests.Session, platform: Platform, found: Any, kind: type[Exception]
) -> None:
    platform.agent = lambda _payload: found
    with pytest.raises(kind) as caught:
        relayed.get(URL)
    assert type(caught.value) is kind and isinstance(caught.value, requests.RequestException)
    assert caught.value.request is not None and caught.value.request.url == URL


def test_what_is_wrong_on_this_machine_is_no_connection_error(
    relayed: requests.Session, platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Wrappers would repeat it, though no repetition helps."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    platform.agent = lambda _: answer(body="x" * 9_000_000)
    with pytest.raises(failures.RequestException, match=r"^ENOENT: .*set TMPDIR") as caught:
        relayed.get(URL)
    assert type(caught.value) is failures.RequestException


def test_a_missing_file_of_roots_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    session = relay_session(CommandClient("https://127.0.0.1:9", "acme", TOKEN, AGENT))
    with session, pytest.raises(failures.RequestException, match=r"^ENOENT: .*missing\.pem") as caught:
        session.get(URL)
    assert type(caught.value) is failures.RequestException


class Dribble(io.RawIOBase):
    """Gives less than it is asked for, as pipes, sockets and urllib's responses do."""

    def __init__(self, *parts: bytes | None) -> None:
        self.parts = list(parts)

    def read(self, size: int = -1) -> bytes | None:
        return self.parts.pop(0) if self.parts else b""


def test_a_file_that_gives_less_than_was_asked_for_is_sent_whole(relayed: requests.Session, platform: Platform) -> None:
    relayed.post(URL, data=Dribble(b"first ", b"second ", b"third"))
    assert platform.created[0]["payload"]["body"] == {"mode": "raw", "raw": "first second third"}


def test_a_file_that_has_nothing_to_read_yet_is_refused_and_not_cut(relayed: requests.Session, platform: Platform) -> None:
    with pytest.raises(ValueError, match="give one that blocks"):
        relayed.post(URL, data=Dribble(b"first ", None, b"second"))
    assert not platform.created


def test_a_failed_request_leaves_no_call_to_the_garbage_collector(relayed: requests.Session, platform: Platform) -> None:
    """Its body would stay in memory with it."""
    platform.refusals = [(403, {}, b"{}")]
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(failures.RequestException):
            relayed.post(URL, data="x")
        assert not platform.refusals
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [one for one in gc.garbage if isinstance(one, Future)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("status, words", [(401, "do not belong together"), (403, "belong"), (404, "AGENT_ID"), (400, "answered 400")])
def test_what_no_repetition_heals_is_no_connection_error(relayed: requests.Session, platform: Platform, status: int, words: str) -> None:
    platform.refusals = [(status, {}, b"{}")]
    with pytest.raises(failures.RequestException, match=rf"^{status}: .*{words}") as caught:
        relayed.get(URL)
    assert type(caught.value) is failures.RequestException and caught.value.request is not None


def test_a_keyring_makes_every_request_a_secure_command(client: CommandClient, platform: Platform) -> None:
    asked: list[dict[str, Any]] = []

    def agent(payload: dict[str, Any]) -> tuple[str, Any]:
        found = opened(payload)
        asked.append(json.loads(found.plaintext))
        return "SUCCESS", sealed(answer(body="secret answer")[1], found.jti)

    platform.agent = agent
    with requests.Session() as session:
        session.mount("http://", RelayAdapter(client, keyring=RING))
        assert session.post(URL, data="secret question").text == "secret answer"
    assert platform.created[0]["action"] == "TetraScience.Connector.http.Request.V2"
    assert asked[0]["body"]["raw"] == "secret question" and asked[0]["encrypt_response"] is True
    assert "secret" not in json.dumps(platform.created)
