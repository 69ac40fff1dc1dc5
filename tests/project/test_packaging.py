"""What setup.cfg, setup.py and the Makefile promise about the package as it is installed."""

from __future__ import annotations

import ast
import configparser
import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import relay_agent

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "relay_agent"

# Comes with the named distribution, whose own bound covers it.
BUNDLED = {"botocore": "boto3"}
FUZZER = ROOT / "tests" / "fuzz" / "process.py"
VENDOR_AGENT = ROOT / "tests" / "bench" / "vendor_agent.py"

BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def setup_cfg() -> configparser.ConfigParser:
    """setup.cfg as setuptools reads it."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def requirements(section: str, option: str) -> list[str]:
    """The lines of one list of requirements."""
    return [line for line in setup_cfg()[section][option].splitlines() if line.strip()]


def names(lines: list[str]) -> set[str]:
    """The normalised names (PEP 503) of some requirements."""
    return {normalised(re.split(r"[\[<>=~!]", line, maxsplit=1)[0]) for line in lines}


def normalised(name: str) -> str:
    """PEP 503's one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def sources(under: Path) -> list[Path]:
    """Every Python file below a directory."""
    return sorted(under.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The top-level names that a file imports from elsewhere, those inside functions included, those for the type checker not."""
    for node in statements(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def statements(block: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a block and of the blocks within it, but for those under `if TYPE_CHECKING`."""
    for node in block:
        yield node
        checking = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for part in BLOCKS[checking:]:
            yield from statements(getattr(node, part, []))


def test_the_version_stands_in_one_place() -> None:
    assert setup_cfg()["metadata"]["version"] == "attr: relay_agent.__version__"
    literal = re.compile(rf"""["']v?{re.escape(relay_agent.__version__)}["']""")
    assert [path.relative_to(ROOT) for path in sources(PACKAGE) if literal.search(path.read_text(encoding="utf-8"))] == [
        Path("relay_agent/__init__.py")
    ]


def test_the_changelog_has_a_section_for_the_version() -> None:
    assert f"\n## [{relay_agent.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_setup_py_is_a_stub() -> None:
    docstring, imports, call = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert ast.unparse(imports) == "from setuptools import setup"
    assert ast.unparse(call) == "setup()"


def test_every_dependency_has_a_lower_bound_and_nothing_tighter() -> None:
    bound = re.compile(r"[A-Za-z0-9_.-]+(\[[a-z0-9,]+\])?>=\d[\d.]*(; python_version < \"\d\.\d+\")?")
    assert [line for line in requirements("options", "install_requires") if not bound.fullmatch(line)] == []


EXTRAS = ["agent", "windows-auth", "sandbox", "httpx", "testing", "test", "fuzz", "bench", "lint"]
OWN = re.compile(r"tdp-relay-agent\[([a-z,-]+)\]")
"""Another extra, or several, of this package."""


def extra(name: str) -> set[str]:
    """The names of what an extra brings, not counting the other extras that it contains."""
    return names([line for line in requirements("options.extras_require", name) if not OWN.fullmatch(line)])


@pytest.mark.parametrize("name", EXTRAS)
def test_every_dependency_of_an_extra_is_bounded(name: str) -> None:
    bound = re.compile(r"[A-Za-z0-9_.-]+(\[[a-z0-9,]+\])?(>=|~=|==)\d[\d.]*(,<\d[\d.]*)?(; python_version < \"\d\.\d+\")?")
    lines = requirements("options.extras_require", name)
    assert [line for line in lines if not bound.fullmatch(line) and not OWN.fullmatch(line)] == []


def test_an_extra_contains_only_extras_that_exist() -> None:
    contained = [found[1] for name in EXTRAS for line in requirements("options.extras_require", name) if (found := OWN.fullmatch(line))]
    assert {name for names_ in contained for name in names_.split(",")} <= set(EXTRAS)
    assert len(contained) >= 4


def test_the_distribution_is_not_called_as_a_stranger_s_on_the_index() -> None:
    assert setup_cfg()["metadata"]["name"] == "tdp-relay-agent"
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *sources(PACKAGE)]
    wrong = re.compile(r"pip install (-\S+ )*['\"]?relay-agent\b")
    assert [path for path in pages if wrong.search(path.read_text(encoding="utf-8"))] == []


def test_every_import_of_the_package_is_a_declared_dependency() -> None:
    """A library that only happens to come with another one would go when that one drops it."""
    senders = names(requirements("options", "install_requires"))
    agent = senders | extra("agent")
    windows, sandbox = agent | extra("windows-auth"), agent | extra("sandbox")
    tests = sandbox | windows | extra("test") | extra("httpx")
    by_place = {
        PACKAGE / "transport" / "windows_auth.py": windows,
        PACKAGE / "pipelines" / "httpx.py": senders | extra("httpx"),
        PACKAGE / "pipelines" / "pytest_plugin.py": agent | extra("testing"),
    }
    by_package = {"sandbox": sandbox, "pipelines": senders}
    undeclared = [
        (path, name)
        for path in sources(PACKAGE)
        for name in strangers(path, by_place.get(path, by_package.get(path.relative_to(PACKAGE).parts[0], agent)))
    ]
    # The vendor's SDK needs an environment of its own, which the Makefile makes.
    beside = names(re.findall(r"\bts-sdk-connectors-python==[\d.]+", (ROOT / "Makefile").read_text(encoding="utf-8")))
    apart = {FUZZER: tests | extra("fuzz"), VENDOR_AGENT: tests | beside}
    undeclared += [(path, name) for path in sources(ROOT / "tests") for name in strangers(path, apart.get(path, tests))]
    assert undeclared == []


@functools.cache
def distributions() -> Mapping[str, list[str]]:
    """Which distributions bring a module, by its name; looked up once, since that reads every one that is installed."""
    return importlib.metadata.packages_distributions()


def strangers(path: Path, allowed: set[str]) -> list[str]:
    """The modules that a file imports and no declared dependency brings."""
    found = []
    for name in set(imported(path)) - sys.stdlib_module_names - {"relay_agent", "tests", "__future__", "compression"}:
        owners = {BUNDLED.get(owner, normalised(owner)) for owner in distributions().get(name, [name])}
        if not owners & allowed:
            found.append(name)
    return found


def test_every_directory_with_code_is_a_package() -> None:
    """Without `__init__.py` a directory works from a checkout and is missing from a wheel."""
    assert {path.parent for path in sources(PACKAGE) if not (path.parent / "__init__.py").is_file()} == set()


def test_type_checkers_see_that_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert "py.typed" in setup_cfg()["options.package_data"]["relay_agent"]


@pytest.mark.skipif(not (PACKAGE / "cli.py").is_file() and not (PACKAGE / "cli").is_dir(), reason="the commands are not written yet")
def test_the_console_script_shows_its_help_without_any_configuration(tmp_path: Path) -> None:
    script = Path(sysconfig.get_path("scripts")) / "relay-agent"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([script, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: relay-agent" in done.stdout
    assert list(tmp_path.iterdir()) == []


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Call make from outside any other make."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=30, check=False)


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_make_alone_lists_every_target_for_people() -> None:
    done = make()
    assert done.returncode == 0
    for target in ("setup", "run", "demo", "test", "lint", "format", "clean"):
        assert f"make {target} " in done.stdout


@needs_make
def test_without_a_fit_python_the_setup_says_in_one_line_what_to_do(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    shutil.copy(ROOT / "setup.py", tmp_path)
    done = make("setup", "PYTHON=python-that-is-not-there", "VENV=.venv", cwd=tmp_path)
    assert done.returncode == 2
    first, *rest = done.stderr.splitlines()
    assert first.startswith("No Python of 3.11 or later")
    assert "apt-get install python3-venv" in first
    assert all(line.startswith("make") for line in rest)
    assert not (tmp_path / ".venv").exists()


def test_the_check_of_a_change_is_executable_and_calls_the_readmes_commands() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert {"make test", "make lint"} <= set(script.read_text(encoding="utf-8").splitlines())


def test_every_pattern_of_package_data_finds_a_file() -> None:
    for package, patterns in setup_cfg()["options.package_data"].items():
        for pattern in filter(None, patterns.splitlines()):
            assert list((ROOT / package.replace(".", "/")).glob(pattern)), (package, pattern)
