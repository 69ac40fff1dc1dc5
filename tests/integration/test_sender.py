"""The sender's side over real HTTP: CommandClient, the requests transport, and the commands `send`, `keygen`, `encrypt`, `decrypt`."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
import requests
from click.testing import CliRunner, Result
from requests import exceptions as failures

from relay_agent.cli.send import decrypt, encrypt, keygen, send
from relay_agent.config.settings import variables
from relay_agent.core.errors import PlatformError, PlatformRefused, RateLimited, UnknownAgent
from relay_agent.pipelines.client import CommandClient, NoAnswer
from relay_agent.pipelines.requests_adapter import RelayAdapter
from relay_agent.protocol.jwe import MAX_VALID_SECONDS, Opened, generate_key, open_command, seal_answer, seal_command
from relay_agent.protocol.keyring import Keyring
from tests.target_certificates import authority, ca_pem, server_context
from tests.target_proxies import HttpProxy, Socks5Proxy

AGENT = "agent-1"
TOKEN = pyjwt.encode({"sub": "sender"}, "k" * 32, algorithm="HS256")
KEY = generate_key()
RING = Keyring.from_text(KEY)
URL = "http://target.example/path?x=1"
Agent = Callable[[dict[str, Any]], tuple[str, Any]]


def answer(status: int = 200, headers: Any = (), body: Any = "", encoding: str = "utf-8") -> tuple[str, dict[str, Any]]:
    response = {"statusCode": status, "headers": list(headers), "body": body, "bodyEncoding": encoding, "url": URL, "elapsedMs": 12}
    return "SUCCESS" if status < 400 else "FAILURE", response


def opened(payload: dict[str, Any], agent_id: str = AGENT) -> Opened:
    """A secure command, as its agent opens it."""
    assert set(payload) == {"jwe"}
    return open_command(payload["jwe"], RING, agent_id=agent_id, now=datetime.now(UTC))


def sealed(body: dict[str, Any], jti: str | None, cid: str = "command-1", ring: Keyring = RING) -> dict[str, Any]:
    """An encrypted answer, as the agent gives one."""
    return {"statusCode": body["statusCode"], "jwe": "".join(seal_answer([json.dumps(body).encode()], ring, cid=cid, jti=jti))}


def failure(code: str, message: str = "words", status: str = "FAILURE") -> tuple[str, dict[str, Any]]:
    return status, {"code": code, "message": message, "url": URL, "elapsedMs": 3}


class Platform:
    """The two routes a sender calls, with an agent behind them that answers at once, or as `polls` has it."""

    def __init__(self) -> None:
        self.agent: Agent = lambda _payload: answer(body="hello")
        self.created: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.refusals: list[tuple[int, dict[str, str], bytes]] = []
        self.polls: list[str | tuple[int, dict[str, str], bytes]] = []
        self.polled = threading.Event()

    def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.headers.append(headers)
        if method == "POST" and path == "/v1/commands":
            if self.refusals:
                return self.refusals.pop(0)
            self.created.append(json.loads(body))
            return self._json({"id": f"command-{len(self.created)}", "status": "PENDING"})
        self.asked.append(path)
        self.polled.set()
        step = self.polls.pop(0) if self.polls else ""
        if isinstance(step, tuple):
            return step
        if step:
            return self._json({"id": "command-1", "status": step, "responseBody": None})
        command = self.created[int(path.rpartition("-")[2]) - 1]
        status, response = self.agent(command["payload"])
        return self._json({"id": path.rpartition("/")[2], "status": status, "responseBody": response})

    def _json(self, value: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextlib.contextmanager
def serving(platform: Platform, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve the platform on a port of loopback; every thread has ended when it is over."""

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            lowered = {name.lower(): value for name, value in self.headers.items()}
            status, headers, answered = platform.handle(self.command, self.path, lowered, body)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(answered))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answered)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
    assert not thread.is_alive()


@pytest.fixture
def served() -> Iterator[tuple[Platform, str]]:
    platform = Platform()
    with serving(platform) as port:
        yield platform, f"http://127.0.0.1:{port}"


@pytest.fixture
def platform(served: tuple[Platform, str]) -> Platform:
    return served[0]


@pytest.fixture
def plain() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def client(served: tuple[Platform, str], plain: requests.Session) -> CommandClient:
    return CommandClient(f"{served[1]}/v1/", "acme", TOKEN, AGENT, plain)


@pytest.fixture
def relayed(client: CommandClient) -> Iterator[requests.Session]:
    """A session as a pipeline would mount it."""
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, RelayAdapter(client))
        yield session


def seconds_ahead(moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


# CommandClient


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
    for words in ("502: without a reason; does a proxy", "not a JSON object: is API_TARGET", "302"):
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


# RelayAdapter


def test_a_request_becomes_the_commands_payload(relayed: requests.Session, platform: Platform) -> None:
    relayed.headers.clear()
    relayed.post(URL, data="h\u00e9llo", headers={"X-B": "2", "X-A": "1", "X-Raw": b"caf\xe9"}, timeout=7)
    command = platform.created[0]
    assert command["action"] == "TetraScience.Connector.gdc.HttpRequest"
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


@pytest.mark.parametrize("timeout, seconds", [(5, 5), (None, 60), ((3, 4), 7), ((3, None), 60)])
def test_a_timeout_is_one_limit_for_the_exchange(relayed: requests.Session, platform: Platform, timeout: Any, seconds: float) -> None:
    relayed.get(URL, timeout=timeout)
    assert platform.created[0]["payload"]["timeout"] == seconds


@pytest.mark.parametrize("timeout", [0, -1, (1, 0), (1, 2, 3)])
def test_an_invalid_timeout_is_refused_as_requests_does(relayed: requests.Session, platform: Platform, timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        relayed.get(URL, timeout=timeout)
    assert not platform.created


def test_verify_false_is_passed_on_and_a_bundle_is_not(relayed: requests.Session, platform: Platform) -> None:
    relayed.get(URL, verify=False)
    relayed.get(URL, verify="/some/bundle.pem")
    flags = [command["payload"].get("ignore_tls_certificate") for command in platform.created]
    assert flags == [True, None]


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
    (failure("EPOLICY"), failures.ConnectionError),
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


def test_a_platform_that_refuses_is_a_connection_error(relayed: requests.Session, platform: Platform) -> None:
    platform.refusals = [(401, {}, b"")]
    with pytest.raises(failures.ConnectionError, match="do not belong together"):
        relayed.get(URL)


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


# The commands


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An empty directory and none of our variables; what a test gives is all there is."""
    monkeypatch.chdir(tmp_path)
    for variable in variables():
        for name in (variable.name, variable.name.upper()):
            monkeypatch.delenv(name, raising=False)
    return {}


@pytest.fixture
def configured(environment: dict[str, str], served: tuple[Platform, str]) -> dict[str, str]:
    return {"API_TARGET": served[1], "ORG_SLUG": "acme", "AGENT_ID": AGENT, "JWT": TOKEN}


def run(command: Any, *args: str, env: dict[str, str], stdin: bytes = b"") -> Result:
    return CliRunner().invoke(command, args, input=stdin, env=env)


def test_send_prints_the_body_byte_for_byte(configured: dict[str, str], platform: Platform) -> None:
    platform.agent = lambda _payload: answer(body=base64.b64encode(b"\x00\xff\r\n").decode(), encoding="base64")
    result = run(send, URL, env=configured)
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b"\x00\xff\r\n", "")
    assert platform.created[0]["payload"] == {"method": "GET", "url": URL, "headers": [], "timeout": 60.0}


def test_send_d_posts_a_form_as_curl_does(configured: dict[str, str], platform: Platform) -> None:
    run(send, "-d", "a=1&b=\u00e9", "target.example/x", env=configured)
    payload = platform.created[0]["payload"]
    assert (payload["method"], payload["url"]) == ("POST", "http://target.example/x")
    assert payload["headers"] == [{"Content-Type": "application/x-www-form-urlencoded"}]
    assert payload["body"] == {"mode": "raw", "raw": "a=1&b=\u00e9"}


def test_send_h_keeps_order_repeats_and_bytes(configured: dict[str, str], platform: Platform) -> None:
    lines = ["X-A: 1", "content-type:text/csv", "X-A:  \u00e9 ", "X-E;"]
    run(send, URL, "-X", "PUT", "-d", "x", *[part for line in lines for part in ("-H", line)], env=configured)
    payload = platform.created[0]["payload"]
    assert payload["method"] == "PUT"
    assert payload["headers"] == [{"X-A": "1"}, {"content-type": "text/csv"}, {"X-A": "\u00c3\u00a9"}, {"X-E": ""}]


def test_send_h_without_a_value_takes_the_default_away(configured: dict[str, str], platform: Platform) -> None:
    run(send, URL, "-H", "Content-Type:", "-d", "x", env=configured)
    assert platform.created[0]["payload"]["headers"] == []


def test_send_d_takes_a_file_and_stdin_as_they_are(configured: dict[str, str], platform: Platform) -> None:
    Path("data.csv").write_bytes(b"a,b\r\n1,2\n")
    run(send, URL, "-d", "@data.csv", env=configured)
    run(send, URL, "-d", "@-", env=configured, stdin=b"\xff")
    assert platform.created[0]["payload"]["body"]["raw"] == "a,b\r\n1,2\n"
    assert platform.created[1]["payload"]["body"] == {"mode": "base64", "base64": "/w=="}


def test_send_timeout_is_the_commands_own_and_its_expiry(configured: dict[str, str], platform: Platform) -> None:
    run(send, URL, "--timeout", "2.5", env=configured)
    run(send, URL, "--timeout", "300", env=configured)
    assert [command["payload"]["timeout"] for command in platform.created] == [2.5, 300.0]
    ahead = [seconds_ahead(command["expiresAt"]) for command in platform.created]
    assert 60 < ahead[0] < 70 and 290 < ahead[1] <= 300


def test_send_i_prints_the_head_and_o_writes_the_body(configured: dict[str, str], platform: Platform) -> None:
    platform.agent = lambda _payload: answer(201, [{"Content-Type": "text/plain"}, {"Set-Cookie": ["a=1", "b=2"]}], "body")
    head = b"HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
    assert run(send, "-i", URL, env=configured).stdout_bytes == head + b"body"
    result = run(send, "-i", "-o", "out", URL, env=configured)
    assert result.stdout_bytes == head and Path("out").read_bytes() == b"body"


def test_send_ends_with_22_on_an_http_error_and_prints_its_body(configured: dict[str, str], platform: Platform) -> None:
    platform.agent = lambda _payload: answer(404, body="no such sample")
    result = run(send, URL, env=configured)
    assert (result.exit_code, result.stdout, result.stderr) == (22, "no such sample", "HTTP 404 Not Found\n")


@pytest.mark.parametrize(
    "found, words",
    [
        (failure("ECONNREFUSED", "connect ECONNREFUSED 10.1.2.3:443"), "ECONNREFUSED: connect ECONNREFUSED 10.1.2.3:443"),
        (failure("UNKNOWN_COMMAND", "not ours", "REJECTED"), "UNKNOWN_COMMAND: not ours"),
        (("EXPIRED", None), "EXPIRED: the agent did not answer before"),
        (("SUCCESS", {"statusCode": 200, "body": 5}), "body must be a string"),
        (("FAILURE", {"statusCode": 200, "headers": [], "code": "ECONNRESET", "message": "lost"}), "ECONNRESET: lost"),
    ],
)
def test_send_ends_with_1_and_says_why(configured: dict[str, str], platform: Platform, found: Any, words: str) -> None:
    platform.agent = lambda _payload: found
    result = run(send, URL, env=configured)
    assert (result.exit_code, result.stdout) == (1, "") and words in result.stderr


@pytest.mark.parametrize(
    "args, words",
    [
        (["ftp://x/"], "EBADCOMMAND: url: must be http or https"),
        (["http://x/", "-H", "nonsense"], "-H takes 'Name: value'"),
        (["http://x/", "-H", "a b: c"], "EBADCOMMAND: headers[0]"),
        (["http://x/", "-d", "@missing"], "cannot read missing: No such file"),
        (["http://x/", "--timeout", "soon"], "Invalid value for '--timeout'"),
        (["http://x/", "--timeout", "0"], "Invalid value for '--timeout'"),
        (["http://x/", "--nonsense"], "No such option"),
        ([], "Missing argument 'URL'"),
        (["http://x/", "--secure"], "ENOKEY: SECURE_COMMAND_KEY is not set"),
    ],
)
def test_send_refuses_a_mistake_before_anything_is_sent(
    configured: dict[str, str], platform: Platform, args: list[str], words: str
) -> None:
    result = run(send, *args, env=configured)
    assert result.exit_code == 1 and words in result.stderr and not platform.created


def test_send_without_a_configuration_names_all_that_is_missing(environment: dict[str, str]) -> None:
    result = run(send, URL, env=environment)
    assert result.exit_code == 1
    for name in ("API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT"):
        assert f"{name}: is not set" in result.stderr


def test_send_reports_what_is_wrong_with_the_platform(configured: dict[str, str], platform: Platform) -> None:
    platform.refusals = [(403, {}, b"")]
    result = run(send, URL, env=configured)
    assert result.exit_code == 1 and "JWT and ORG_SLUG" in result.stderr and TOKEN not in result.output
    result = run(send, URL, env=configured | {"API_TARGET": "http://127.0.0.1:9"})
    assert result.exit_code == 1 and "cannot reach 127.0.0.1" in result.stderr


def test_send_secure_encrypts_both_ways(configured: dict[str, str], platform: Platform) -> None:
    def agent(payload: dict[str, Any]) -> tuple[str, Any]:
        question = opened(payload)
        status, found = answer(418, body=json.loads(question.plaintext)["body"]["raw"])
        return status, sealed(found, question.jti)

    platform.agent = agent
    result = run(send, "--secure", "-d", "hush", URL, env=configured | {"SECURE_COMMAND_KEY": KEY})
    assert (result.exit_code, result.stdout) == (22, "hush")
    assert "hush" not in json.dumps(platform.created) and KEY not in result.output


@pytest.fixture
def secured(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A platform with a certificate of a private authority, which only RELAY_CA_FILE trusts."""
    Path("ca.pem").write_bytes(ca_pem())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost").configure_cert(tls)
    with serving(Platform(), tls) as port:
        address = {"API_TARGET": f"https://localhost:{port}", "ORG_SLUG": "acme", "AGENT_ID": AGENT, "JWT": TOKEN}
        yield address | {"RELAY_CA_FILE": "ca.pem"}


@pytest.mark.parametrize("name", ["RELAY_CA_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_send_trusts_what_the_settings_name(secured: dict[str, str], name: str) -> None:
    del secured["RELAY_CA_FILE"]
    result = run(send, URL, env=secured | {name: "ca.pem"})
    assert (result.exit_code, result.stdout) == (0, "hello"), result.stderr


def test_send_trusts_nothing_else(secured: dict[str, str]) -> None:
    del secured["RELAY_CA_FILE"]
    result = run(send, URL, env=secured)
    assert result.exit_code == 1 and "the certificate of localhost is not trusted" in result.stderr


@pytest.mark.parametrize("variable", ["https_proxy", "all_proxy", "RELAY_PLATFORM_PROXY"])
def test_send_goes_through_the_platforms_proxy(secured: dict[str, str], variable: str) -> None:
    with HttpProxy(auth=("user", "p@ss:w")) as proxy:
        result = run(send, URL, env=secured | {variable: proxy.url(("user", "p@ss:w"))})
        assert (result.exit_code, result.stdout) == (0, "hello"), result.stderr
        assert proxy.tunnels >= 1


def test_a_tls_fault_unrelated_to_certificates_is_reported_as_such(secured: dict[str, str], served: tuple[Platform, str]) -> None:
    result = run(send, URL, env=secured | {"API_TARGET": served[1].replace("http://127.0.0.1", "https://localhost")})
    assert result.exit_code == 1 and "TLS with localhost fails" in result.stderr


def test_send_goes_through_a_proxy_that_speaks_tls_or_socks(secured: dict[str, str]) -> None:
    with HttpProxy(tls=server_context()) as proxy:
        result = run(send, URL, env=secured | {"https_proxy": proxy.url(host="localhost")})
        assert (result.exit_code, result.stdout, proxy.tunnels > 0) == (0, "hello", True), result.stderr
    with Socks5Proxy() as socks:
        result = run(send, URL, env=secured | {"all_proxy": socks.url()})
        assert (result.exit_code, result.stdout, len(socks.asked) > 0) == (0, "hello", True), result.stderr


def test_send_leaves_no_proxy_and_the_targets_proxy_alone(secured: dict[str, str]) -> None:
    with HttpProxy() as proxy:
        more = {"https_proxy": proxy.url(), "no_proxy": "localhost", "RELAY_TARGET_PROXY": proxy.url()}
        assert run(send, URL, env=secured | more).stdout == "hello"
        assert not proxy.asked


def test_a_proxy_that_is_not_there_is_named_without_its_password(secured: dict[str, str]) -> None:
    result = run(send, URL, env=secured | {"https_proxy": "http://user:canary@127.0.0.1:9"})
    assert result.exit_code == 1 and "the proxy for localhost" in result.stderr and "canary" not in result.output


def test_keygen_prints_a_new_key_alone_on_stdout(environment: dict[str, str]) -> None:
    first, second = run(keygen, env=environment), run(keygen, env=environment)
    assert first.exit_code == 0 and first.stdout != second.stdout
    keyring = Keyring.from_text(first.stdout)
    assert first.stdout == first.stdout.strip() + "\n" and keyring.kids[0] in first.stderr
    assert first.stdout.strip() not in first.stderr


def test_encrypt_makes_the_payload_of_a_secure_command(environment: dict[str, str]) -> None:
    request = b'{"method": "GET", "url": "https://target.example/"}\n'
    result = run(encrypt, "--exp", "60", env={"SECURE_COMMAND_KEY": KEY, "AGENT_ID": AGENT}, stdin=request)
    assert result.exit_code == 0, result.output
    jwe = json.loads(result.stdout)["jwe"]
    found = opened({"jwe": jwe})
    assert found.plaintext == request.strip()
    assert 50 < found.exp - datetime.now(UTC).timestamp() <= 61
    header = json.loads(base64.urlsafe_b64decode(jwe.split(".")[0] + "=="))
    assert (header["typ"], header["aud"]) == ("relay-command", AGENT)


def test_encrypt_needs_nothing_but_the_key_and_for_whom_it_is(environment: dict[str, str]) -> None:
    Path("key").write_text(KEY, encoding="ascii")
    request, given = b'{"url": "http://x/"}', {"SECURE_COMMAND_KEY_FILE": "key"}
    result = run(encrypt, "--jti", "once", "--agent-id", "any", env=given | {"AGENT_ID": AGENT}, stdin=request)
    found = opened(json.loads(result.stdout), "any")
    assert (found.jti, found.exp > datetime.now(UTC).timestamp() + 3000) == ("once", True)
    result = run(encrypt, env=given, stdin=request)
    assert (result.exit_code, result.stdout, "AGENT_ID" in result.stderr) == (1, "", True)


def test_encrypt_makes_two_envelopes_of_one_request_good_for_one_use_each(environment: dict[str, str]) -> None:
    given = {"SECURE_COMMAND_KEY": KEY, "AGENT_ID": AGENT}
    made = [run(encrypt, env=given, stdin=b'{"url": "http://x/"}').stdout for _ in range(2)]
    assert len({opened(json.loads(text)).jti for text in made}) == 2


def test_encrypt_makes_nothing_that_the_agent_would_find_too_long_valid(environment: dict[str, str]) -> None:
    given = {"SECURE_COMMAND_KEY": KEY, "AGENT_ID": AGENT}
    result = run(encrypt, "--exp", str(MAX_VALID_SECONDS + 1), env=given, stdin=b'{"url": "http://x/"}')
    assert (result.exit_code, result.stdout) == (1, "")


@pytest.mark.parametrize(
    "wrap", [lambda jwe: jwe, lambda jwe: json.dumps({"jwe": jwe}), lambda jwe: json.dumps({"statusCode": 200, "jwe": jwe})]
)
def test_decrypt_prints_what_an_envelope_holds(environment: dict[str, str], wrap: Callable[[str], str]) -> None:
    for kind, jwe in (
        ("relay-command", seal_command(b'{"a": "\xc3\xa9"}', RING, aud="another agent", exp=1, jti="one")),
        ("relay-answer", "".join(seal_answer([b'{"a": "\xc3\xa9"}'], RING, cid="any"))),
    ):
        result = run(decrypt, env={"SECURE_COMMAND_KEY": KEY}, stdin=f" {wrap(jwe)}\n".encode())
        assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b'{"a": "\xc3\xa9"}', f"typ: {kind}\n")


def test_decrypt_with_a_command_s_id_and_jti_opens_its_answer_and_no_other(environment: dict[str, str]) -> None:
    def opens(*options: str, cid: str = "mine", jti: str | None = "once") -> bool:
        text = json.dumps(sealed(answer(body="canary")[1], jti, cid)).encode()
        result = run(decrypt, *options, env={"SECURE_COMMAND_KEY": KEY}, stdin=text)
        assert (result.exit_code == 0) == ("canary" in result.output)
        return result.exit_code == 0

    secure, plain = ("--command", "mine", "--jti", "once"), ("--command", "mine")
    assert opens(*secure)
    assert opens(*plain, jti=None)
    assert not opens(*secure, cid="another's")
    assert not opens(*secure, jti="another's")
    assert not opens(*secure, jti=None)
    assert not opens(*plain)
    assert not opens("--jti", "once")


@pytest.mark.parametrize(
    "command, stdin, key, words",
    [
        (encrypt, b"[1]", KEY, "EBADCOMMAND: payload: must be an object"),
        (encrypt, b"{", KEY, "EBADCOMMAND: payload"),
        (encrypt, b"\xff", KEY, "EBADCOMMAND: payload"),
        (encrypt, b'{"url": 5}', KEY, "EBADCOMMAND: url"),
        (encrypt, b'{"url": "http://x/"}', "", "ENOKEY"),
        (encrypt, b'{"url": "http://x/"}', "canary-no-key", "SECURE_COMMAND_KEY: "),
        (decrypt, b"x", "", "ENOKEY"),
        (decrypt, b"", KEY, "EDECRYPT"),
        (decrypt, b"\xff.a.b.c.d", KEY, "EDECRYPT"),
        (decrypt, b'{"jwe": 1}', KEY, "jwe"),
        (decrypt, sealed(answer(body="canary")[1], None, ring=Keyring.from_text(generate_key()))["jwe"].encode(), KEY, "EDECRYPT: no key"),
    ],
    ids=range(11),
)
def test_a_refused_envelope_ends_with_1_and_nothing_secret(
    environment: dict[str, str], command: Any, stdin: bytes, key: str, words: str
) -> None:
    result = run(command, env={"SECURE_COMMAND_KEY": key}, stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "") and words in result.stderr
    assert "canary" not in result.output and (not key or key not in result.output)


@pytest.mark.parametrize("command", [send, keygen, encrypt, decrypt])
def test_every_help_shows_an_example(environment: dict[str, str], command: Any) -> None:
    result = run(command, "--help", env=environment)
    assert result.exit_code == 0 and f"relay-agent {command.name}" in result.stdout and "Example" in result.stdout
