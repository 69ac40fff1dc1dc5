"""The demonstration target, route by route, with plain requests."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests

from relay_agent.sandbox.target import BINARY, DemoTarget


def test_http_and_https_answer_the_same(demo_target: DemoTarget) -> None:
    plain = requests.get(f"{demo_target.http_url}/json", timeout=5)
    secure = requests.get(f"{demo_target.https_url}/json", timeout=5, verify=demo_target.ca_file)
    assert plain.json() == secure.json()


def test_https_is_trusted_only_with_its_own_root(demo_target: DemoTarget) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{demo_target.https_url}/json", timeout=5)


def test_echo_gives_the_request_back(demo_target: DemoTarget) -> None:
    answer = requests.put(f"{demo_target.http_url}/echo?a=%2F", data="hello", headers={"X-One": "1"}, timeout=5).json()
    assert (answer["method"], answer["path"], answer["body"]) == ("PUT", "/echo?a=%2F", "hello")
    assert ["X-One", "1"] in answer["headers"]
    assert demo_target.seen[-1].body == b"hello"


def test_a_chunked_body_is_read(demo_target: DemoTarget) -> None:
    assert requests.post(f"{demo_target.http_url}/echo", data=iter([b"ab", b"c"]), timeout=5).json()["body"] == "abc"


@pytest.mark.parametrize("code", [200, 204, 304, 404, 503])
def test_any_status_can_be_had(demo_target: DemoTarget, code: int) -> None:
    assert requests.get(f"{demo_target.http_url}/status/{code}", timeout=5).status_code == code


def test_the_binary_answer_is_no_utf_8(demo_target: DemoTarget) -> None:
    content = requests.get(f"{demo_target.http_url}/binary", timeout=5).content
    assert (content, len(content)) == (BINARY, 65_536)
    with pytest.raises(UnicodeDecodeError):
        content.decode()


def test_the_big_answer_is_as_big_as_asked(demo_target: DemoTarget) -> None:
    assert len(requests.get(f"{demo_target.http_url}/big", timeout=5).content) == 5_000_000
    assert len(requests.get(f"{demo_target.http_url}/big?bytes=123", timeout=5).content) == 123


def test_the_redirect_sets_cookies_that_the_next_page_echoes(demo_target: DemoTarget) -> None:
    with requests.Session() as session:
        assert session.get(f"{demo_target.http_url}/redirect", timeout=5).json() == {"cookie": "session=demo; step=1"}


def test_slow_is_slow(demo_target: DemoTarget) -> None:
    assert requests.get(f"{demo_target.http_url}/slow?seconds=0.2", timeout=5).elapsed.total_seconds() >= 0.2


def test_a_gate_holds_a_request_until_it_is_released(demo_target: DemoTarget) -> None:
    gate = demo_target.gate("one")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(requests.get, f"{demo_target.http_url}/gate/one", timeout=10)
        assert gate.entered.wait(5)
        assert not held.done()
        gate.release()
        assert held.result(5).json() == {"gate": "one"}
    assert demo_target.count("/gate/one") == 1


def test_a_stop_ends_idle_connections_gates_and_threads() -> None:
    before = set(threading.enumerate())
    with DemoTarget() as target, requests.Session() as session, ThreadPoolExecutor(1) as pool:
        session.get(f"{target.http_url}/json", timeout=5)
        silent = socket.create_connection(("127.0.0.1", urlsplit(target.https_url).port or 0), timeout=5)
        held = pool.submit(requests.get, f"{target.http_url}/gate/x", timeout=10)
        assert target.gate("x").entered.wait(5)
        target.stop()
        assert held.exception(5) is not None or held.result().status_code == 200
        silent.close()
    assert set(threading.enumerate()) <= before
