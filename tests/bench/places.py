"""The names that the bare platform, the contenders and the bench agree on."""

from __future__ import annotations

AGENT_ID = "1f0e4a52-8a53-4a3c-9d1e-6c1b4f3a7d20"
ORG_SLUG = "bench"
REGION = "us-east-2"
INBOUND = "commands.fifo"
OUTBOUND = "answers"
LOG_GROUP = f"/agents/{ORG_SLUG}/{AGENT_ID}"
HTTP_REQUEST = "TetraScience.Connector.gdc.HttpRequest"
SECURE_REQUEST = "TetraScience.Connector.http.Request.V2"
