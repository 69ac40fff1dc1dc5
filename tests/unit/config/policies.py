"""A policy file with what it may name: the scenes of the tests of the policy file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from relay_agent.config.policy_file import MAX_SECRET_BYTES, LoadedPolicy, load_policy
from relay_agent.core.errors import ConfigurationError
from relay_agent.telemetry.secret_patterns import redact_text
from relay_agent.transport.target_settings import TargetSettings
from tests.target_certificates import ca_pem, client_certificate

CANARY = "canary-8c41f7"
ALLOW = '[[rule]]\naction = "allow"\n'
TARGET = '[[target]]\nhosts = ["lims.lab.example"]\n'


class Directory:
    """A policy file and what it may name: certificate, key, encrypted key, password, authority, header."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "policy.toml"
        certificate, key = client_certificate()
        private = serialization.load_pem_private_key(key, None)
        sealed = serialization.BestAvailableEncryption(CANARY.encode())
        for name, content in {
            "ca.pem": ca_pem(),
            "agent.pem": certificate,
            "agent.key": key,
            "both.pem": certificate + key,
            "sealed.key": private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed),
            "old-sealed.key": private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, sealed),
            "other.key": client_certificate()[1],
            "password": CANARY.encode() + b"\n",
            "wrong-password": b"canary-wrong\n",
            "token": f"  Bearer {CANARY}\r\n".encode(),
            "empty": b"",
            "blank": b" \n\t\r\n",
            "latin-1": "Prüfraum".encode("latin-1"),
            "two-lines": f"{CANARY}\n{CANARY}".encode(),
            "bom": b"\xef\xbb\xbf" + CANARY.encode(),
            "long": b"x" * (MAX_SECRET_BYTES + 1),
            "damaged.key": b"-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n",
            "damaged.pem": ca_pem().replace(b"MII", b"MI!"),
        }.items():
            (path / name).write_bytes(content)

    def load(self, text: str | bytes, **more: Any) -> LoadedPolicy:
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_policy(self.file, **more)

    def target(self, lines: str) -> TargetSettings:
        (found,) = self.load(TARGET + lines).rules.targets
        return found

    def mistakes(self, text: str | bytes) -> list[str]:
        """What is said about a file; each line begins with the variable and the file's name, and nothing secret is in it."""
        with pytest.raises(ConfigurationError) as caught:
            self.load(text)
        assert "canary" not in repr(caught.value) + str(caught.value)
        assert {mistake.variable for mistake in caught.value.mistakes} == {"RELAY_POLICY_FILE"}
        texts = [mistake.text for mistake in caught.value.mistakes]
        assert [redact_text(text) for text in texts] == texts, "the log shows every reason"
        assert all(text.startswith("policy.toml: ") for text in texts), texts
        return [text.removeprefix("policy.toml: ") for text in texts]

    def mistake(self, text: str | bytes) -> str:
        (only,) = self.mistakes(text)
        return only
