"""docs/logs.md and the source name the same log events."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"debug", "info", "warning", "error"}
FIRST_NAME = {"RepeatedFailure": 1, "repeated_failure": 0}  # where the event names begin among the arguments
FORWARDERS = {"repeated_failure.py", "loop_context.py"}  # hand on names that their callers gave


def sources() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted((ROOT / "relay_agent").rglob("*.py")):
        if "sandbox" not in path.parts:
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def is_logger(node: ast.expr) -> bool:
    """Whether the expression is a logger by its name: log, self._log, logs.local, log.bind(…)."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr == "bind" and is_logger(node.func.value)
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return bool(re.fullmatch(r"_?(\w+_)?(log|logger|local)", name))


def named(node: ast.Call) -> list[ast.expr]:
    """The arguments of a call that are event names."""
    function = node.func
    if isinstance(function, ast.Attribute) and function.attr in LEVELS and is_logger(function.value):
        return node.args[:1] or [keyword.value for keyword in node.keywords if keyword.arg == "event"]
    name = function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    if name in FIRST_NAME:
        first = FIRST_NAME[name]
        return node.args[first : first + 2] + [keyword.value for keyword in node.keywords if keyword.arg in ("failed", "recovered")]
    return []


def literals(node: ast.expr) -> list[str] | None:
    """The names an argument may be: a literal, or a choice between literals."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        body, other = literals(node.body), literals(node.orelse)
        return None if body is None or other is None else body + other
    return None


def events_in(tree: ast.AST) -> tuple[set[str], list[int]]:
    """The event names of a module, and the lines where a name is no literal."""
    found: set[str] = set()
    unclear: list[int] = []
    for node in ast.walk(tree):
        for argument in named(node) if isinstance(node, ast.Call) else []:
            names = literals(argument)
            found.update(names or ())
            if names is None:
                unclear.append(argument.lineno)
    return found, unclear


def documented() -> list[str]:
    table = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8").partition("## Events")[2]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def test_every_event_in_the_source_is_documented_and_the_other_way_round() -> None:
    used: set[str] = set().union(*(events_in(tree)[0] for _, tree in sources()))
    names = documented()
    assert sorted(used - set(names)) == [], "not in docs/logs.md"
    assert sorted(set(names) - used) == [], "in docs/logs.md only"
    assert len(names) == len(set(names))


def test_an_event_s_name_is_a_literal_wherever_it_is_logged() -> None:
    unclear = [f"{path.relative_to(ROOT)}:{line}" for path, tree in sources() if path.name not in FORWARDERS for line in events_in(tree)[1]]
    assert unclear == []


def test_event_names_are_lower_case_words_with_hyphens() -> None:
    assert [name for name in documented() if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)] == []


@pytest.mark.parametrize(
    "code, names",
    [
        ("log.info('a', x=1)", {"a"}),
        ("self._log.warning('a')", {"a"}),
        ("self.log.bind(x=1).error('a')", {"a"}),
        ("logs.local.debug(event='a')", {"a"}),
        ("log.info('a' if x else 'b')", {"a", "b"}),
        ("RepeatedFailure(log, 'a', 'b', clock)", {"a", "b"}),
        ("RepeatedFailure(log, failed='a', recovered='b')", {"a", "b"}),
        ("print('a')", set()),
        ("dialog.open('a')", set()),
    ],
)
def test_the_search_finds_names_in_each_form(code: str, names: set[str]) -> None:
    assert events_in(ast.parse(code))[0] == names
