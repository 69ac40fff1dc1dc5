"""What fuzzing found, each mended since: a harness's name, and the input. `make fuzz` prints such lines."""

from __future__ import annotations

FOUND: list[tuple[str, bytes]] = [
    ("message", b'{"commandId": " "body": NaN, "action": "a"}'),
    ("path", b"/api\x00/\x8e\xff*b*/c"),
    ("response", b"\x00HTTP/1.1 100 C\r\n\r\r\nHTTP/1.1 200 OK\r\n\r\n"),
    (
        "coding",
        b"\x00\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03K\x04\x00C\xbe\xb7\xe8\x01\x00\x00\x00\x1f+\x8b\x08\x00\x00\x00\x00\x00\x02\x03K\x04",
    ),
    ("verdict", b'default = "allow"\n[[rule]]\naction = "deny"\nhosts = ["*.3.4"]\n\x00GET\x00http://1.2.3.4/\x00'),
    ("policy", b'\x00[[target]]\nhosts = ["h"]\nheaders = { A = { file = "a\\u0000" } }'),
    ("proxy", b"ht tpntLd-Secret-47\x95\x95\x95\x9511@h"),
    ("shaped-secret", b"\x08\x00token=\x00'"),
]
