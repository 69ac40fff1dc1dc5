"""Names with an underscore, which OpenSSL does not match as other clients do (RFC 9525)."""

from __future__ import annotations

from typing import Any

import pytest

from relay_agent.transport.hostnames import has_certificate_for, is_for, openssl_cannot_judge


def certificate(*names: str, common: tuple[str, ...] = ("lims_1.lab.example",), kind: str = "DNS") -> dict[str, Any]:
    """A verified certificate as `SSLSocket.getpeercert` returns it."""
    subject = tuple((("commonName", name),) for name in common)
    return {"subject": subject, "subjectAltName": tuple((kind, name) for name in names)} if names else {"subject": subject}


@pytest.mark.parametrize("host", ["my_lims.lab.example", "_x", "a.b_c"])
def test_hosts_with_an_underscore_are_checked_here(host: str) -> None:
    assert openssl_cannot_judge(host)


@pytest.mark.parametrize("host", ["my-lims.lab.example", "127.0.0.1", "fe80::1", "xn--mnchen-3ya.example"])
def test_all_other_hosts_are_left_to_openssl(host: str) -> None:
    assert not openssl_cannot_judge(host)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("my_lims.lab.example", "my_lims.lab.example"),
        ("MY_LIMS.Lab.Example", "my_lims.lab.example"),
        ("my_lims.lab.example", "My_Lims.LAB.example"),
        ("my_lims.lab.example.", "my_lims.lab.example"),
        ("my_lims.lab.example", "my_lims.lab.example."),
        ("*.lab.example", "my_lims.lab.example"),
        ("*.LAB.example", "my_lims.lab.example"),
        ("*.lab.example", "_.lab.example"),
        ("*.my_lab.example", "lims.my_lab.example"),
        ("*.my_lab.example", "xn--mnchen-3ya.my_lab.example"),
    ],
)
def test_a_name_or_a_wildcard_for_its_first_label_matches(name: str, host: str) -> None:
    assert is_for(certificate("elsewhere.example", name), host)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("*.lab.example", "a.my_lims.lab.example"),
        ("*.lab.example", "a_b.c.lab.example"),
        ("*.lab.example", "my_lab.example"),
        ("*.lab.example", ".lab.example_"),
        ("*.my_lab.example", "my_lab.example"),
        ("*.my_lab.example", ".my_lab.example"),
        ("*", "my_lims"),
        ("*.", "my_lims."),
        ("*.example", "my_lims.example"),
        ("*.example.", "my_lims.example"),
        ("*.*.example", "my_lims.lab.example"),
        ("*.*.example", "my_lims.*.example"),
        ("m*.lab.example", "my_lims.lab.example"),
        ("*s.lab.example", "my_lims.lab.example"),
        ("my_*.lab.example", "my_lims.lab.example"),
        ("**.lab.example", "my_lims.lab.example"),
        ("my_lims.*.example", "my_lims.lab.example"),
        ("xn--*.lab.example", "my_lims.lab.example"),
        ("lab.example", "my_lims.lab.example"),
        (".lab.example", "my_lims.lab.example"),
        ("my_lims.lab.example\0.evil.example", "my_lims.lab.example"),
        ("my_lims.lab.example ", "my_lims.lab.example"),
        ("", "my_lims.lab.example"),
    ],
)
def test_nothing_else_matches(name: str, host: str) -> None:
    assert not is_for(certificate(name, common=(host,)), host)


OTHER_KINDS = ("URI", "email", "DirName", "othername", "Registered ID")


@pytest.mark.parametrize("kind", [*OTHER_KINDS, "IP Address"])
def test_names_of_another_kind_match_no_host(kind: str) -> None:
    assert not is_for(certificate("my_lims.lab.example", kind=kind, common=("elsewhere.example",)), "my_lims.lab.example")


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_the_common_name_counts_beside_names_that_are_for_no_host(kind: str) -> None:
    assert is_for(certificate("somebody@lab.example", kind=kind, common=("*.lab.example",)), "my_lims.lab.example")


def test_the_common_name_does_not_count_beside_an_address() -> None:
    assert not is_for(certificate("10.1.2.3", kind="IP Address", common=("my_lims.lab.example",)), "my_lims.lab.example")


def test_the_common_name_counts_only_without_a_name_for_hosts_and_the_last_of_several() -> None:
    assert is_for(certificate(), "lims_1.lab.example")
    assert is_for(certificate(common=("*.lab.example",)), "lims_1.lab.example")
    assert not is_for(certificate(common=("lims_1.lab.example", "elsewhere.example")), "lims_1.lab.example")
    assert not is_for(certificate("elsewhere.example"), "lims_1.lab.example")


@pytest.mark.parametrize("nothing", [None, {}, {"subject": ()}])
def test_without_a_certificate_no_host_matches(nothing: Any) -> None:
    assert not is_for(nothing, "my_lims.lab.example")


def test_a_certificate_with_a_name_that_python_cannot_read_matches_no_host() -> None:
    """Decoding raises for bytes that are not UTF-8, in any of the names."""

    class Session:
        def getpeercert(self) -> dict[str, Any]:
            return {"subjectAltName": (("DNS", b"my\xe9.lab.example".decode()),)}

    assert not has_certificate_for(Session(), "my_lims.lab.example")
