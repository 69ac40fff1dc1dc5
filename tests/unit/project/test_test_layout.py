"""Where tests lie and what they may touch: a file for each module of rules, and no private member of another package.

Owns these two rules of the tree. What a module promises stands in its own test file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.pages import PACKAGE, ROOT

TESTS = ROOT / "tests"
PRIVATE = re.compile(r"_[A-Za-z]\w*")

# --- private members ---


@cache
def private_names() -> dict[str, set[str]]:
    """The packages that define each private name of relay_agent: functions, classes, attributes, constants."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in defined_names(node):
                if PRIVATE.fullmatch(name):
                    found.setdefault(name, set()).add(path.relative_to(PACKAGE).parts[0])
    return found


def defined_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return [node.attr]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    return []


def used_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each private member that a test reads, replaces or imports; its own objects' (`self._x`) are left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("relay_agent"):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("setattr", "getattr", "delattr", "hasattr"):
            texts = [each.value for each in node.args[:2] if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            yield from ((node.lineno, text.rpartition(".")[2]) for text in texts)


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""


def foreign(path: Path) -> list[tuple[str, str, int]]:
    """The private names of other packages in a test file; `tests/unit/<package>` may use those of its own package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    where = path.relative_to(TESTS)
    own = where.parts[1] if where.parts[0] == "unit" else ""
    test_s_own = {name for node in ast.walk(tree) for name in defined_names(node)}
    return [
        (where.as_posix(), name, line)
        for line, name in used_names(tree)
        if PRIVATE.fullmatch(name) and name not in test_s_own and own not in private_names().get(name, {own})
    ]


def test_no_test_reaches_into_private_members_of_another_package() -> None:
    assert [each for path in sorted(TESTS.rglob("*.py")) for each in foreign(path)] == []


@pytest.mark.parametrize(
    "code, names",
    [
        ("world.journal._writer.read()", ["_writer"]),
        ("self._writer", []),
        ("self.journal._writer", ["_writer"]),
        ("from relay_agent.transport.dialer import Dialer, _Attempts", ["_Attempts"]),
        ("from tests.scenes import _own", []),
        ("monkeypatch.setattr(adapter, '_step', None)", ["_step"]),
        ("monkeypatch.setattr('relay_agent.core.urls._idna', None)", ["_idna"]),
        ("getattr(sock, '_below', sock)", ["_below"]),
    ],
)
def test_the_search_finds_private_names_in_each_form(code: str, names: list[str]) -> None:
    assert [name for _, name in used_names(ast.parse(code)) if PRIVATE.fullmatch(name)] == names
