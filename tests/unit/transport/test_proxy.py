"""Proxy URLs: read in each form, refused without their password."""

from __future__ import annotations

import pytest

from relay_agent.core.urls import BadUrl
from relay_agent.transport.proxy import Proxy, parse_proxy


@pytest.mark.parametrize(
    "text, proxy",
    [
        ("http://p.lab.example:3128", Proxy("http", "p.lab.example", 3128)),
        ("http://p.lab.example:3128/", Proxy("http", "p.lab.example", 3128)),
        ("p.lab.example:3128", Proxy("http", "p.lab.example", 3128)),
        ("u:p@p.lab.example:3128", Proxy("http", "p.lab.example", 3128, "u", "p")),
        ("HTTPS://P.lab.example", Proxy("https", "p.lab.example", 443)),
        ("http://p", Proxy("http", "p", 80)),
        ("socks5h://p", Proxy("socks5h", "p", 1080)),
        ("http://[::1]:3128", Proxy("http", "::1", 3128)),
        ("http://us%40er:p%3A%2F%40ss@p:1", Proxy("http", "p", 1, "us@er", "p:/@ss")),
        ("http://user@p:1", Proxy("http", "p", 1, "user", None)),
        ("http://user:@p:1", Proxy("http", "p", 1, "user", "")),
        ("http://münchen.example:1", Proxy("http", "xn--mnchen-3ya.example", 1)),
    ],
)
def test_every_form_of_a_proxy_url_is_parsed(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "ftp://u:canary@p:1",
        "socks5://u:canary@p:1",
        "socks4://u:canary@p:1",
        "http://u:canary@",
        "http://",
        "",
        "http://u:canary@p:99999",
        "http://u:canary@p:x",
        "http://u:can#ary@p:1",
        "http://u:12/canary@p:1",
        "http://u:12?canary@p:1",
        "http://u:canary@p:1/path",
        "http://u:can ary@p:1",
        "http://u:canary@p p:1",
        "http://u:canary%FF@p:1",
        "http://u:canary\udcff@p:1",
        "http://u:canary@[::1",
    ],
)
def test_the_error_text_of_a_wrong_proxy_url_does_not_repeat_its_password(text: str) -> None:
    with pytest.raises(BadUrl) as caught:
        parse_proxy(text)
    assert "can" not in str(caught.value).replace("cannot", "")


def test_neither_the_masked_url_nor_the_repr_of_a_proxy_has_its_password() -> None:
    proxy = parse_proxy("http://us%40er:canary@p.lab.example:3128")
    assert proxy.masked == "http://us%40er:***@p.lab.example:3128"
    assert "canary" not in repr(proxy)
    assert parse_proxy("https://[::1]").masked == "https://[::1]:443"
    assert parse_proxy("http://user@p:1").masked == "http://user@p:1"


def test_credentials_are_percent_decoded_for_basic_authorization() -> None:
    assert parse_proxy("http://Aladdin:open%20sesame@p").authorization == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert parse_proxy("http://u:%C3%BC%25@p").authorization == "Basic dTrDvCU="
    assert parse_proxy("http://u@p").authorization == "Basic dTo="
    assert parse_proxy("http://p").authorization is None
