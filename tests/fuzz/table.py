"""All harnesses."""

from __future__ import annotations

from tests.fuzz.harness import Harness
from tests.fuzz.harnesses import commands, envelopes, handshakes, policies, proxies, redactions, redirections, responses, urls

_MODULES = (commands, envelopes, policies, urls, responses, proxies, handshakes, redirections, redactions)
HARNESSES: dict[str, Harness] = {harness.name: harness for module in _MODULES for harness in module.HARNESSES}
