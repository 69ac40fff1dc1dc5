"""One exchange: who reads the request, whether it may be sent twice, and whom its messages name."""

from __future__ import annotations

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Phase
from relay_agent.core.models import Headers
from relay_agent.core.urls import parse_url
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.proxy import parse_proxy
from tests.unit.transport.fake_socket import exchange


@pytest.mark.parametrize(
    ("url", "proxy", "forwarded"),
    [
        ("http://dev.lab.example/", None, False),
        ("http://dev.lab.example/", "http://gate:1", True),
        ("http://dev.lab.example/", "https://gate:1", True),
        ("http://dev.lab.example/", "socks5h://gate:1", False),
        ("https://dev.lab.example/", "http://gate:1", False),
    ],
)
def test_only_plain_http_through_an_http_proxy_is_read_by_the_proxy(url: str, proxy: str | None, forwarded: bool) -> None:
    assert exchange(url, proxy=None if proxy is None else parse_proxy(proxy)).forwarded == forwarded


@pytest.mark.parametrize(
    ("method", "headers", "repeatable", "safe"),
    [
        ("GET", (), False, True),
        ("DELETE", (), False, True),
        ("POST", (), False, False),
        ("PATCH", (), False, False),
        ("POST", (("idempotency-KEY", "1"),), False, True),
        ("POST", (), True, True),
    ],
)
def test_a_request_may_be_sent_again_if_its_method_its_key_or_its_sender_says_so(
    method: str, headers: Headers, repeatable: bool, safe: bool
) -> None:
    assert exchange(method=method, headers=headers, repeatable=repeatable).may_repeat == safe


def test_messages_name_the_target_and_the_proxy_without_its_password() -> None:
    assert exchange("http://dev.lab.example:8080/secret?q=1").peer == "dev.lab.example:8080"
    through = exchange(proxy=parse_proxy("http://user:canary@gate.lab.example:3128"))
    assert through.peer == "dev.lab.example:80 through the proxy http://user:***@gate.lab.example:3128"


def test_an_observer_forbids_nothing_by_itself() -> None:
    observer = ExchangeObserver()
    observer.entered(Phase.TLS)
    observer.check_addresses(["169.254.169.254"])
    observer.check_stop()
    observer.before_send()
    observer.after_send()


def test_neither_headers_nor_body_are_in_the_repr_of_an_exchange() -> None:
    exchange = Exchange("POST", parse_url("http://h/"), (("X-Key", "canary"),), b"canary", Deadline(1.0))
    assert "canary" not in repr(exchange)
