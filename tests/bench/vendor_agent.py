"""The vendor's SDK as an agent: a connector whose one command calls a target. Run by the Python that the SDK is installed in.

It takes its settings from the environment variables that the SDK documents. It imports nothing of ours, which that Python does not have.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import httpx
from ts_sdk_connectors_python.connector import Connector
from ts_sdk_connectors_python.custom_commands import register_command
from ts_sdk_connectors_python.tdp_api import TdpApi


class Relay(Connector):
    """Calls a target with one client, and returns its answer."""

    client: httpx.AsyncClient

    @register_command("TetraScience.Connector.gdc.HttpRequest")
    async def http_request(self, body: Any) -> dict[str, Any]:
        if isinstance(body, bytes):  # A payload behind a URL is handed on as it was downloaded.
            body = json.loads(body)
        content = body["body"]["raw"] if body.get("body") else None
        response = await self.client.request(body.get("method", "GET"), body["url"], content=content)
        headers = [{name: value} for name, value in response.headers.items()]
        return {"statusCode": response.status_code, "headers": headers, "body": response.text}


async def main() -> None:
    """Start the connector; stop it with SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    relay = Relay(TdpApi())
    relay.client = httpx.AsyncClient(timeout=60)
    await relay.start()
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
