"""The sender's calls over real HTTP: what is posted, how long is waited, and what each refusal of the platform means."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from relay_agent.core.clock import Deadline
from relay_agent.core.errors import PlatformError, PlatformRefused, RateLimited, RelayError, UnknownAgent
from relay_agent.pipelines.client import CommandClient
from relay_agent.pipelines.failures import Kind, NoAnswer, TooLarge, Unreached
from tests.sender_side import AGENT, TOKEN, Platform, answer, seconds_ahead


def test_a_command_is_posted_as_the_api_has_it(client: CommandClient, platform: Platform) -> None:
    assert client.create("Some.Action", {"a": 1}, ttl_seconds=300, metadata={"run": "7"}) == "command-1"
    command = platform.created[0]
    assert 295 < seconds_ahead(command.pop("expiresAt")) <= 300
    assert command == {"targetId": AGENT, "action": "Some.Action", "payload": {"a": 1}, "metadata": {"run": "7"}}
    assert platform.headers[0]["ts-auth-token"] == TOKEN and platform.headers[0]["x-org-slug"] == "acme"


def test_a_command_expires_no_sooner_than_the_platform_accepts(client: CommandClient, platform: Platform) -> None:
    client.create("A", {}, ttl_seconds=1)
    assert 60 < seconds_ahead(platform.created[0]["expiresAt"]) < 70


def test_waiting_ends_with_the_finished_command(client: CommandClient, platform: Platform) -> None:
    platform.polls = ["CREATED", "PENDING", "PROCESSING"]
    command_id = client.create("A", {}, ttl_seconds=60)
    assert client.wait(command_id, 10)["status"] == "SUCCESS"
    assert platform.asked == ["/v1/commands/command-1"] * 4


@pytest.mark.parametrize("status", ["EXPIRED", "PURGED", "ERROR", "UNSENT", "REJECTED", "FAILURE", "SUCCESS"])
def test_every_final_status_ends_the_wait(client: CommandClient, platform: Platform, status: str) -> None:
    platform.polls = [status]
    assert client.wait("command-1", 10)["status"] == status


def test_a_wait_that_is_over_names_the_last_status(client: CommandClient, platform: Platform) -> None:
    platform.polls = ["PENDING"] * 100
    with pytest.raises(NoAnswer, match="still PENDING: is the agent running") as caught:
        client.wait("command-1", 0.2)
    assert (caught.value.status, caught.value.command_id) == ("PENDING", "command-1")


def test_a_stop_ends_the_wait_at_once(served: tuple[Platform, str], plain: requests.Session) -> None:
    stop = threading.Event()
    platform, address = served
    platform.polls = ["PROCESSING"] * 10_000
    raised: list[Exception] = []

    def wait() -> None:
        try:
            CommandClient(address, "acme", TOKEN, AGENT, plain, stop).wait("command-1", 50)
        except NoAnswer as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert platform.polled.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive() and len(raised) == 1


@pytest.mark.parametrize("trouble", [(503, {}, b"busy"), (429, {"Retry-After": "0"}, b""), (500, {}, b"{}")])
def test_a_passing_trouble_does_not_end_the_wait(client: CommandClient, platform: Platform, trouble: Any) -> None:
    platform.polls = [trouble, "PENDING"]
    client.create("A", {}, ttl_seconds=60)
    assert client.wait("command-1", 20)["status"] == "SUCCESS"


def test_a_trouble_that_stays_is_what_the_wait_ends_with(client: CommandClient, platform: Platform) -> None:
    platform.polls = [(503, {}, b"busy")] * 100
    with pytest.raises(PlatformError, match="503") as caught:
        client.wait("command-1", 0.2)
    assert caught.value.status == 503


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_sender_learns_which_settings_belong_together(client: CommandClient, platform: Platform, status: int) -> None:
    platform.refusals = [(status, {}, b"{}")]
    with pytest.raises(PlatformRefused, match=r"JWT and ORG_SLUG \(acme\) do not belong together") as caught:
        client.create("A", {}, ttl_seconds=60)
    assert caught.value.status == status
    platform.polls = [(status, {}, b"")]
    with pytest.raises(PlatformRefused):
        client.wait("x", 5)


def test_an_unknown_agent_is_named_with_the_platforms_words(client: CommandClient, platform: Platform) -> None:
    platform.refusals = [(404, {}, b'{"message": "no agent-1 here"}')]
    with pytest.raises(UnknownAgent, match=r"no agent-1 here; check AGENT_ID \(agent-1\)"):
        client.create("A", {}, ttl_seconds=60)


def test_a_bad_request_repeats_the_platforms_reason_on_one_line(client: CommandClient, platform: Platform) -> None:
    platform.refusals = [(400, {}, b'{"statusCode": 400, "message": "Queue is\\npurging"}')]
    with pytest.raises(PlatformError, match="400: Queue is purging"):
        client.create("A", {}, ttl_seconds=60)


def test_a_page_of_something_in_between_is_not_repeated(client: CommandClient, platform: Platform) -> None:
    platform.refusals = [(502, {}, b"<html>secret page</html>"), (200, {}, b"<html>secret page</html>"), (302, {"Location": "/"}, b"")]
    for words in ("502: without a reason; is there a proxy", "not a JSON object: is API_TARGET", "302"):
        with pytest.raises(PlatformError, match=words) as caught:
            client.create("A", {}, ttl_seconds=60)
        assert "secret page" not in str(caught.value)


def test_a_rate_limited_command_is_posted_again(client: CommandClient, platform: Platform) -> None:
    platform.refusals = [(429, {"Retry-After": "0"}, b"")]
    assert client.create("A", {}, ttl_seconds=60) == "command-1"
    platform.refusals = [(429, {"Retry-After": "3600"}, b"")]
    with pytest.raises(RateLimited):
        client.create("A", {}, ttl_seconds=60)


def test_a_command_that_may_have_been_taken_is_not_posted_again(client: CommandClient, platform: Platform) -> None:
    platform.refusals = [(500, {}, b"{}")]
    with pytest.raises(PlatformError, match="500"):
        client.create("A", {}, ttl_seconds=60)
    assert platform.created == []


def test_a_platform_out_of_reach_says_so_without_a_secret(plain: requests.Session) -> None:
    plain.proxies = {"http": "http://user:canary-password@127.0.0.1:9"}
    with pytest.raises(PlatformError, match=r"proxy for platform\.example") as caught:
        CommandClient("http://platform.example", "acme", TOKEN, AGENT, plain).create("A", {}, ttl_seconds=60)
    assert caught.value.__context__ is None
    plain.proxies = {}
    with pytest.raises(PlatformError, match=r"cannot reach 127\.0\.0\.1: .*\(Connection refused\)"):
        CommandClient("http://127.0.0.1:9", "acme", TOKEN, AGENT, plain).create("A", {}, ttl_seconds=60)


def test_a_token_that_is_no_header_value_is_refused_unseen(plain: requests.Session) -> None:
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        CommandClient("http://127.0.0.1:9", "acme", "canary\ntoken", AGENT, plain)
    assert "canary" not in str(caught.value)


# --- one exchange, and how long it may take ---

REQUEST = {"method": "GET", "url": "http://target.example/"}


def took(client: CommandClient, timeout: float) -> tuple[type[Exception] | str, float]:
    """What an exchange comes to, and after how many seconds."""
    began = time.monotonic()
    try:
        result: type[Exception] | str = client.exchange(REQUEST, timeout_seconds=timeout).status
    except RelayError as error:
        result = type(error)
    return result, time.monotonic() - began


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_agent.pipelines.client.ANSWER_GRACE_SECONDS", 1.5)


@pytest.mark.usefixtures("short_grace")
def test_without_an_agent_an_exchange_ends_in_time(client: CommandClient, platform: Platform) -> None:
    platform.polls = ["PENDING"] * 10_000
    result, seconds = took(client, 0.5)
    assert result is NoAnswer and 0.9 < seconds < 2.5
    assert 5 < len(platform.asked) < 60


@pytest.mark.usefixtures("short_grace")
def test_a_platform_that_hangs_or_fails_does_not_keep_a_caller_longer(plain: requests.Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = CommandClient(f"http://127.0.0.1:{silent.getsockname()[1]}", "acme", TOKEN, AGENT, plain)
        result, seconds = took(client, 0.5)
    assert result is Unreached and seconds < 3


@pytest.mark.usefixtures("short_grace")
def test_an_error_that_lasts_until_the_end_is_no_answer_that_names_it(client: CommandClient, platform: Platform) -> None:
    platform.polls = [(503, {}, b"busy")] * 100
    with pytest.raises(NoAnswer, match="the platform answered 503"):
        client.exchange(REQUEST, timeout_seconds=0.5)


def test_an_answer_is_seen_at_once(client: CommandClient, platform: Platform) -> None:
    took(client, 5)
    platform.polls = ["PENDING"]
    result, seconds = took(client, 5)
    assert result == "SUCCESS" and seconds < 0.5


def test_an_answer_that_comes_at_the_very_end_of_its_time_is_seen(client: CommandClient, platform: Platform) -> None:
    platform.polls = ["PROCESSING"] * 12
    assert took(client, 0.5)[0] == "SUCCESS"  # Within the grace.


def test_a_client_makes_its_own_session_and_closes_it(
    served: tuple[Platform, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password canary\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    platform, address = served
    client = CommandClient(address, "acme", TOKEN, AGENT)
    assert client.exchange(REQUEST, timeout_seconds=5).content() == b"hello"
    client.close()
    assert client.exchange(REQUEST, timeout_seconds=5).content() == b"hello"
    client.close()
    assert not [headers for headers in platform.headers if "authorization" in headers]


# --- lines and platforms that are slow ---

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
Talk = Callable[[socket.socket, bytes], None]


@contextlib.contextmanager
def talking(talk: Talk) -> Iterator[str]:
    """Serve connections with `talk`, which is given each one and the head of its request."""

    def serve(conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += conn.recv(1)
            talk(conn, head)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted.append(server.accept()[0])
                threading.Thread(target=serve, args=accepted[-1:], daemon=True).start()

    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for conn in accepted:
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)


def took_in(conn: socket.socket, head: bytes, bytes_per_second: float = 1e9) -> None:
    """Read the request's body, no faster than this."""
    left = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
    while left > 0:
        data = conn.recv(20_000)
        left -= len(data)
        time.sleep(len(data) / bytes_per_second)


def slowly(before: bytes, slow: bytes) -> Talk:
    """Answer the POST at once, and the poll with `before` and then byte by byte."""

    def talk(conn: socket.socket, head: bytes) -> None:
        if head.startswith(b"POST"):
            took_in(conn, head)
            conn.sendall(HEAD + b'Content-Length: 10\r\n\r\n{"id":"c"}')
            return
        conn.sendall(before)
        for byte in slow * 40:
            conn.sendall(bytes([byte]))
            time.sleep(0.2)

    return talk


SLOW = {
    "status line": (b"", b"HTTP/1.1 "),
    "headers": (HEAD, b"X-A: 1\r\n"),
    "body": (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "error": (HEAD.replace(b"200 OK", b"503 Busy") + b"Content-Length: 100000\r\n\r\n", b" "),
}


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("part", SLOW)
def test_whatever_part_of_an_answer_comes_slowly_nobody_waits_longer(plain: requests.Session, part: str) -> None:
    with talking(slowly(*SLOW[part])) as address:
        result, seconds = took(CommandClient(address, "acme", TOKEN, AGENT, plain), 0.5)
        assert result in (NoAnswer, Unreached) and seconds < 2.2
        if part not in ("status line", "headers"):
            ended_by(time.monotonic() + 1)
    ended_by(time.monotonic() + 5)


def ended_by(moment: float) -> None:
    """No call goes on in the background."""
    for thread in threading.enumerate():
        if thread.name == "relay-platform":
            thread.join(moment - time.monotonic())
            assert not thread.is_alive()


def test_a_session_that_hangs_in_a_place_without_a_limit_keeps_nobody_longer(plain: requests.Session) -> None:
    """As the resolution of a name may."""
    gate = threading.Event()
    plain.mount("http://", type("Hanging", (requests.adapters.HTTPAdapter,), {"send": lambda *_, **__: gate.wait(20)})())
    with pytest.raises(PlatformError, match="did not answer in time"):
        CommandClient("http://platform.example", "acme", TOKEN, AGENT, plain).call("GET", "/v1/commands/c", Deadline(0.3))
    gate.set()


def test_a_large_request_may_take_longer_than_connecting_may(plain: requests.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_agent.pipelines.client.CALL_TIMEOUT_SECONDS", (0.6, 0.6))

    def talk(conn: socket.socket, head: bytes) -> None:
        if head.startswith(b"POST"):
            took_in(conn, head, 4_000_000)
            time.sleep(0.7)  # What the system still had to send after the last piece was written.
            conn.sendall(HEAD + b'Content-Length: 10\r\n\r\n{"id":"c"}')
            return
        body = json.dumps({"status": "SUCCESS", "responseBody": answer()[1]}).encode()
        conn.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with talking(talk) as address:
        client = CommandClient(address, "acme", TOKEN, AGENT, plain)
        found = client.exchange({**REQUEST, "body": "x" * 9_000_000}, timeout_seconds=20)
    assert found.status == "SUCCESS"


@pytest.mark.usefixtures("short_grace")
def test_a_request_that_is_not_taken_in_time_says_so(plain: requests.Session) -> None:
    with (
        talking(lambda conn, _head: time.sleep(4)) as address,
        pytest.raises(Unreached, match="did not take the request in time") as caught,
    ):
        client = CommandClient(address, "acme", TOKEN, AGENT, plain)
        client.exchange({**REQUEST, "body": "x" * 10_000_000}, timeout_seconds=0.5)
    assert (caught.value.code, caught.value.kind) == ("ETIMEDOUT", Kind.READ_TIMEOUT)


@pytest.mark.parametrize("target", ["127.0.0.1:18188", "api.example", "ftp://api.example", "https://", ""])
def test_an_address_that_is_no_url_is_refused_at_once(target: str) -> None:
    with pytest.raises(ValueError, match=r"API_TARGET must be a URL .*https://"):
        CommandClient(target, "acme", TOKEN, AGENT)


def test_too_large_a_request_is_never_posted(client: CommandClient, platform: Platform) -> None:
    with pytest.raises(TooLarge, match="10 MB of text"):
        client.exchange({**REQUEST, "body": "x" * 10_485_760}, timeout_seconds=5)
    assert not platform.created and not platform.headers
    assert client.exchange({**REQUEST, "body": "é" * 5_000_000}, timeout_seconds=5).http
