"""How tests call the sandbox: as an agent, as a sender, and as an AWS client with an agent's credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import boto3
import requests
from botocore.config import Config

from relay_agent.sandbox.aws.credentials import Credentials
from relay_agent.sandbox.server import Sandbox

REQUEST = {"method": "GET", "url": "http://lims.lab.example/api"}


def rest(sandbox: Sandbox, method: str, path: str, **options: Any) -> requests.Response:
    """Call the platform with a good token, unless other headers are given."""
    headers = options.pop("headers", {"ts-auth-token": sandbox.jwt, "x-org-slug": sandbox.org_slug})
    return requests.request(method, sandbox.api_target + path, headers=headers, timeout=20, **options)


def agent_call(sandbox: Sandbox, method: str, name: str, agent_id: str, **fields: Any) -> requests.Response:
    """Call one of the agent's own routes."""
    body = {"agentId": agent_id, "agentVersion": "v0.1.0", **fields}
    return rest(sandbox, method, f"/v1/data-acquisition/agent/{name}", json=body)


def new_command(agent_id: str, seconds: float = 600, **fields: Any) -> dict[str, Any]:
    """The body of `POST /v1/commands`."""
    expires = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    return {"targetId": agent_id, "action": "TetraScience.Connector.gdc.HttpRequest", "expiresAt": expires, "payload": REQUEST, **fields}


def config(sandbox: Sandbox, agent_id: str) -> dict[str, Any]:
    """The agent's configuration."""
    answer: dict[str, Any] = agent_call(sandbox, "POST", "config", agent_id).json()
    return answer


@contextmanager
def aws(sandbox: Sandbox, service: str, credentials: Credentials | None = None, **options: Any) -> Iterator[Any]:
    """A real AWS client that never retries."""
    given = credentials or sandbox.credentials()
    # One function for three services: the type stubs accept only literal names.
    client: Any = cast(Any, boto3).client(
        service,
        endpoint_url=sandbox.aws_endpoint,
        region_name=sandbox.region,
        aws_access_key_id=given.access_key_id,
        aws_secret_access_key=given.secret_access_key,
        aws_session_token=given.session_token,
        config=Config(retries={"total_max_attempts": 1}, proxies={}, **options),
    )
    try:
        yield client
    finally:
        client.close()


def receive(sandbox: Sandbox, agent_id: str, wait: int = 2) -> list[dict[str, Any]]:
    """Take the messages of an agent's queue, as JSON, and delete them."""
    with aws(sandbox, "sqs") as sqs:
        url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait).get("Messages", [])
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [json.loads(message["Body"]) for message in messages]


def report(sandbox: Sandbox, agent_id: str, command_id: str, *statuses: str, **fields: Any) -> None:
    """Send updates for a command, as its agent would."""
    with aws(sandbox, "sqs") as sqs:
        for status in statuses:
            update = {"commandId": command_id, "targetId": agent_id, "status": status, "body": None, "responseBodyDelivery": "embedded"}
            sqs.send_message(QueueUrl=config(sandbox, agent_id)["rpcPlatformQueueUrl"], MessageBody=json.dumps(update | fields))
