"""Envelopes of secure commands as others make them: with an independent JOSE library, and by hand with any header."""

from __future__ import annotations

import base64
import json
from typing import Any

from Crypto.Cipher import AES
from joserfc import jwe
from joserfc.jwk import OctKey


class _Roomy(jwe.JWERegistry):
    max_ciphertext_length = 10_000_000


# joserfc's own registry knows aud, exp and jti only inside a JWT's claims; replicating them in the header is RFC 7519 §5.3.
_REGISTRY = _Roomy(strict_check_header=False, algorithms=["dir", "A256GCM"])


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64(text: str) -> bytes:
    """The bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def by_hand(header: str | dict[str, Any], plaintext: bytes, key: bytes, iv: bytes = b"i" * 12, tag_bytes: int = 16) -> str:
    """An envelope with any header, correctly encrypted: so that only the header can be why it is refused."""
    protected = b64((header if isinstance(header, str) else json.dumps(header)).encode("utf-8", "surrogatepass"))
    cipher = AES.new(key, AES.MODE_GCM, nonce=iv, mac_len=tag_bytes)
    cipher.update(protected.encode("ascii"))
    ciphertext, tag = cipher.encrypt_and_digest(plaintext)
    return ".".join([protected, "", b64(iv), b64(ciphertext), b64(tag)])


def by_joserfc(header: dict[str, Any], plaintext: bytes, key: bytes) -> str:
    """An envelope as joserfc makes it.

    Raises:
        joserfc.errors.JoseError: it finds the header wrong itself.
    """
    return jwe.encrypt_compact(header, plaintext, OctKey.import_key(key), registry=_REGISTRY)


def joserfc_opens(text: str, key: bytes) -> tuple[dict[str, Any], bytes]:
    """The protected header and the plaintext, as joserfc reads them."""
    found = jwe.decrypt_compact(text, OctKey.import_key(key), registry=_REGISTRY)
    assert found.plaintext is not None
    return dict(found.protected), found.plaintext
