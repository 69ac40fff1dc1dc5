"""What botocore's data files keep for the agent: all that it uses, unchanged; and no more."""

from __future__ import annotations

import functools
from typing import Any

import botocore.session
import pytest
from botocore.loaders import Loader

from relay_agent.tdp.aws_clients import Aws
from relay_agent.tdp.aws_data import AwsDataFiles
from relay_agent.tdp.platform_http import PlatformHttp
from tests.unit.tdp.scenes import Source

REGIONS = ("us-east-1", "eu-central-2", "cn-north-1", "us-gov-west-1", "us-iso-east-1", "eusc-de-east-1", "mars-west-7")
MODELS = {
    ("sqs", "2012-11-05"): {"ReceiveMessage", "SendMessageBatch"},
    ("logs", "2014-03-28"): {"PutLogEvents"},
}


@functools.cache
def loaders() -> tuple[Loader, Loader]:
    """A loader of what the agent uses, and botocore's own."""
    ours = Loader()
    ours.file_loader = AwsDataFiles({"sqs", "logs"}, set().union(*MODELS.values()))
    return ours, Loader()


def without_documentation(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: without_documentation(value) for name, value in node.items() if name != "documentation" or not isinstance(value, str)}
    return [without_documentation(value) for value in node] if isinstance(node, list) else node


@pytest.mark.parametrize("service", MODELS, ids=lambda service: service[0])
def test_a_service_model_keeps_the_operations_that_are_used_with_all_their_shapes(service: tuple[str, str]) -> None:
    name = "/".join((*service, "service-2"))
    ours, whole = (loader.load_data(name) for loader in loaders())
    whole = without_documentation(whole)
    assert set(ours["operations"]) == MODELS[service]
    for part in ("operations", "shapes"):
        assert ours[part] == {key: whole[part][key] for key in ours[part]}
    assert {key: ours[key] for key in ours if key not in ("operations", "shapes")} == {
        key: whole[key] for key in whole if key not in ("operations", "shapes")
    }


def test_the_endpoints_of_other_services_are_left_out_in_every_partition() -> None:
    ours, whole = (loader.load_data("endpoints") for loader in loaders())
    for kept, every in zip(ours["partitions"], whole["partitions"], strict=True):
        assert kept == {**every, "services": {name: each for name, each in every["services"].items() if name in ("sqs", "logs")}}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("service", ["sqs", "logs"])
def test_a_client_calls_the_same_host_as_botocores_own(http: PlatformHttp, service: str, region: str) -> None:
    ours = Aws(http, Source().credentials, None).client(service, region)
    whole = botocore.session.Session().create_client(service, region, aws_access_key_id="a", aws_secret_access_key="b")
    assert ours.meta.endpoint_url == whole.meta.endpoint_url
    assert ours.meta.service_model.signing_name == whole.meta.service_model.signing_name


def test_a_file_that_does_not_exist_is_none() -> None:
    assert AwsDataFiles((), ()).load_file("/nowhere/service-2") is None
