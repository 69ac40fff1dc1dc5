"""botocore's data files, without what the agent does not use: all of it would need 9 MB of memory.

Which services and operations that is, the caller says. This module must not change what remains.
"""

from __future__ import annotations

import gzip
import json
import marshal
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from botocore.loaders import JSONFileLoader

_READERS: dict[str, Callable[[Path], bytes]] = {".json": Path.read_bytes, ".json.gz": lambda path: gzip.decompress(path.read_bytes())}
Json = dict[str, Any]


class AwsDataFiles(JSONFileLoader):
    """Reads the files for botocore's loader: of a service model only these operations, of the endpoints only those of these services.

    The objects of which most are dropped are packed while a file is parsed, since what it needs meanwhile stays with the process.
    """

    def __init__(self, services: Collection[str], operations: Collection[str]) -> None:
        """`services` are named as in the endpoints (`sqs`), `operations` as by AWS (`SendMessageBatch`)."""
        super().__init__()
        self._services = services
        self._operations = operations

    def load_file(self, file_path: str) -> Any:
        """Return what a file has, None if it does not exist; `file_path` has no extension."""
        for extension, read in _READERS.items():
            path = Path(file_path + extension)
            if path.is_file():
                return self._read(Path(file_path).name, read(path))
        return None

    def _read(self, name: str, data: bytes) -> Any:
        if name == "endpoints":
            return self._of_services(json.loads(data, object_pairs_hook=lambda pairs: _packed(pairs, "endpoints", dict)))
        if name == "service-2":
            return self._of_operations(json.loads(data, object_pairs_hook=lambda pairs: _packed(pairs, "type", str)))
        return json.loads(data)

    def _of_services(self, endpoints: Json) -> Json:
        for partition in endpoints["partitions"]:
            services = partition["services"]
            partition["services"] = {name: _unpacked(services[name]) for name in services if name in self._services}
        return endpoints

    def _of_operations(self, model: Json) -> Json:
        model["operations"] = {name: value for name, value in model["operations"].items() if name in self._operations}
        shapes: Json = {}
        waiting = list(_references(model["operations"]))
        while waiting:
            name = waiting.pop()
            if name not in shapes:
                shapes[name] = _unpacked(model["shapes"][name])
                waiting += _references(shapes[name])
        model["shapes"] = shapes
        return model


def _packed(pairs: list[tuple[str, Any]], name: str, kind: type) -> Any:
    """Return a JSON object without its documentation; packed, if it has a value of this name and kind."""
    found = {key: value for key, value in pairs if key != "documentation" or not isinstance(value, str)}
    return marshal.dumps(found) if isinstance(found.get(name), kind) else found


def _unpacked(data: bytes) -> Any:
    return marshal.loads(data)  # noqa: S302 - `_packed` has made it


def _references(node: Any) -> Iterator[str]:
    """Yield the names of the shapes to which a part of a service model refers."""
    if isinstance(node, dict):
        if isinstance(node.get("shape"), str):
            yield node["shape"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
