"""Where tests are and what they may use: a file for each module of rules, and no private member of another package.

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
PRIVATE = re.compile(r"\b_[A-Za-z]\w*")

# --- a unit test for each module ---

NO_UNIT_TEST = {
    "agent/agent": "wiring and supervision of whole agents: tests/integration/test_agent_start.py, test_agent_watchdog.py",
    "agent/thread_wiring": "wiring: tests/integration/test_agent_service.py",
    "agent/wiring": "wiring: tests/integration/test_agent_service.py",
    "cli/qualification/own_agent": "a process: tests/integration/test_qualify.py",
    "cli/qualification/own_platform": "a server for a whole agent: tests/integration/test_qualify.py",
    "cli/qualification/own_target": "a server for a whole agent: tests/integration/test_qualify.py",
    "cli/entry": "new processes: tests/integration/test_entry.py",
    "cli/import_blocking": "new processes: tests/integration/test_import_blocking.py",
    "core/callbacks": "one function that does nothing",
    "core/exit_codes": "numbers only",
    "pipelines/pytest_plugin": "a pytest of its own: tests/integration/test_pytest_plugin.py",
    "sandbox/aws/emulator": "calls of ministack: tests/integration/test_sandbox_aws.py",
    "sandbox/cli": "the command `sandbox`: tests/integration/test_sandbox_command.py",
    "sandbox/delivery": "calls of ministack: tests/integration/test_sandbox_commands.py",
    "sandbox/demo/__main__": "the demo is its own test: tests/e2e/test_demo.py",
    "sandbox/demo/rows": "the demo is its own test: tests/e2e/test_demo.py",
    "sandbox/demo/stage": "the demo is its own test: tests/e2e/test_demo.py",
    "sandbox/demo/table": "the demo is its own test: tests/e2e/test_demo.py",
    "sandbox/examples": "a text: tests/integration/test_new_processes.py",
    "sandbox/hosting": "sockets and threads: tests/integration/test_sandbox_rest.py, test_sandbox_origin.py",
    "sandbox/rest/agent_routes": "routes over HTTP: tests/integration/test_sandbox_rest.py",
    "sandbox/rest/app": "wiring of routes: tests/integration/test_sandbox_rest.py",
    "sandbox/rest/front": "between HTTP and Flask: tests/integration/test_sandbox_rest.py, test_sandbox_faults.py",
    "sandbox/rest/page_routes": "pages in a browser: tests/e2e/test_sandbox_page.py",
    "sandbox/rest/page_views": "pages in a browser: tests/e2e/test_sandbox_page.py",
    "sandbox/server": "wiring: tests/integration/test_sandbox_rest.py",
    "sandbox/target": "a target over HTTP: tests/integration/test_sandbox_target.py",
    "telemetry/logger": "interfaces and a value",
    "transport/authentication": "interfaces and a record",
    "transport/session": "connections to real sockets: tests/contract/test_connections.py",
    "transport/syslog_connection": "connections to real sockets: tests/contract/test_syslog_receiver.py",
    "transport/windows_auth": "handshakes with a real server side: tests/contract/test_windows_auth.py",
}
"""The modules without a unit test of their own, and where they are tested instead. A module that decides something needs one."""


def modules() -> set[str]:
    """Every module, as `package/module`."""
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return {path.as_posix() for path in paths if path.name != "__init__"}


def has_unit_test(module: str) -> bool:
    package, _, name = module.rpartition("/")
    return (TESTS / "unit" / package / f"test_{name}.py").is_file()


def named_tests(reason: str) -> list[Path]:
    """The tests that a reason names; a file without a directory lies beside the one before."""
    found: list[Path] = []
    for name in re.findall(r"tests/[\w/.]+|test_\w+\.py", reason):
        found.append(ROOT / name if name.startswith("tests/") else found[-1].with_name(name))
    return found


def test_every_module_has_a_unit_test_or_is_listed_with_the_reason_why_it_needs_none() -> None:
    assert sorted(module for module in modules() if not has_unit_test(module) and module not in NO_UNIT_TEST) == []


def test_no_listed_module_is_gone_or_has_a_unit_test_by_now() -> None:
    assert [module for module in NO_UNIT_TEST if module not in modules() or has_unit_test(module)] == []


def test_what_is_said_to_test_a_listed_module_exists() -> None:
    tests = {module: named_tests(reason) for module, reason in NO_UNIT_TEST.items()}
    assert {module: path for module, paths in tests.items() for path in paths if not path.exists()} == {}
    assert [module for module, paths in tests.items() if not paths] == [
        "core/callbacks",
        "core/exit_codes",
        "telemetry/logger",
        "transport/authentication",
    ]


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
        if isinstance(node, ast.Attribute) and not is_own(node):
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
    text = path.read_text(encoding="utf-8")
    where = path.relative_to(TESTS)
    own = where.parts[1] if where.parts[0] == "unit" else ""
    if all(own in private_names().get(name, {own}) for name in PRIVATE.findall(text)):
        return []
    tree = ast.parse(text)
    test_s_own = own_names(tree)
    used = [(line, name) for line, name in used_names(tree) if name not in test_s_own and own not in private_names().get(name, {own})]
    inherited = [(line, name) for line, name, package in inherited_names(tree) if package != own]
    return [(where.as_posix(), name, line) for line, name in sorted({*used, *inherited}) if PRIVATE.fullmatch(name)]


def own_names(tree: ast.AST) -> set[str]:
    """What a test defines itself. To store an attribute of another object defines nothing: it replaces what that object has."""
    return {name for node in ast.walk(tree) if not isinstance(node, ast.Attribute) or is_own(node) for name in defined_names(node)}


def is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


@cache
def private_members() -> dict[tuple[str, str], set[str]]:
    """The private methods and attributes of each class of relay_agent, by the module and the name of the class."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                members = {name for each in node.body for name in defined_names(each)}
                members |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute) and is_own(each)}
                found[module, node.name] = {name for name in members if PRIVATE.fullmatch(name)}
    return found


def inherited_names(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, name and package of each private member that a test's class overrides, or uses, of its base in relay_agent."""
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("relay_agent")
        for alias in node.names
    }
    for class_ in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for base in class_.bases:
            module, name = imported.get(ast.unparse(base), ("", ""))
            members = private_members().get((module or "", name), set())
            for node in ast.walk(class_):
                named = [node.attr] if isinstance(node, ast.Attribute) and is_own(node) else defined_names(node)
                yield from ((node.lineno, each, str(module).split(".")[1]) for each in named if each in members)


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


@pytest.mark.parametrize(
    "code, names",
    [
        ("other._transport = executor._transport", ["_transport"]),
        ("self._transport = executor._transport", []),
        ("def _transport(): ...\nx._transport()", []),
        ("_transport = 1\nx._transport", []),
    ],
)
def test_only_what_a_test_defines_itself_counts_as_its_own(code: str, names: list[str]) -> None:
    tree = ast.parse(code)
    own = own_names(tree)
    assert sorted({name for _, name in used_names(tree) if PRIVATE.fullmatch(name)} - own) == names


@pytest.mark.parametrize(
    "body, names",
    [
        ("def _agent(self, agent_id): ...", ["_agent"]),
        ("def all(self): return self._hosting", ["_hosting"]),
        ("def __init__(self): self._front = 1", []),
    ],
)
def test_a_test_s_class_must_not_override_or_use_private_members_of_its_base(body: str, names: list[str]) -> None:
    tree = ast.parse(f"from relay_agent.sandbox.server import Sandbox\nclass Own(Sandbox):\n    {body}")
    assert [(name, package) for _, name, package in inherited_names(tree)] == [(name, "sandbox") for name in names]
