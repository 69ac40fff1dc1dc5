"""botocore's data files, read once for all sessions of a process: each agent makes a session, which would read them anew.

Owns nothing else; the data are botocore's own, and so is the code that reads them.
"""

from __future__ import annotations

import functools

import botocore.session
from botocore import loaders

from relay_agent.tdp.aws_clients import data_loader

SERVICES = ("sqs", "logs")


def share() -> None:
    """Let all sessions of this process share one loader, which keeps what it has read."""
    botocore.session.create_loader = functools.cache(loaders.create_loader)


def read() -> None:
    """Read what the agent's clients need, so that processes forked from this one have it."""
    share()
    session = botocore.session.Session()
    session.register_component("data_loader", data_loader())
    for service in SERVICES:
        session.create_client(service, region_name="us-east-2", aws_access_key_id="none", aws_secret_access_key="none")
