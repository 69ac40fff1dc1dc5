"""What is wrong with the settings, in words: the variable's name, the mistake, what right looks like.

This room owns the wording of configuration mistakes. It must not read the environment or repeat a
secret's value. `given` is what is set, by variable; `right` says of every variable what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import SecretStr

from relay_agent.config.secrets import SecretSource, token_expiry
from relay_agent.config.validators import is_placeholder, is_quoted
from relay_agent.core.errors import Mistake
from relay_agent.protocol.keyring import parse_keys


def value_problem(variable: str, kind: str, message: str, given: Mapping[str, str], right: Mapping[str, str]) -> Mistake:
    """Word what pydantic has against a value; `kind` and `message` are its own, and hold none of it."""
    if kind == "missing":
        return Mistake(variable, f"is not set; set it to {right[variable]}")
    # pydantic names the first alias, which need not be the one that was set.
    variable = variable if variable in given or variable.upper() not in given else variable.upper()
    return Mistake(variable, f"{message.removeprefix('Value error, ')}; it takes {right[variable]}")


def left_standing(given: Mapping[str, str], right: Mapping[str, str]) -> list[Mistake]:
    """Tell the placeholders, and the quotes that `docker run --env-file` takes for a part of the value."""
    problems = []
    for name, takes in right.items():
        if is_placeholder(given.get(name, "")):
            problems.append(Mistake(name, f"is still a placeholder; set it to {takes}"))
        elif is_quoted(given.get(name, "")):
            problems.append(Mistake(name, f"has quotes around its value; write it without; it takes {takes}"))
    return problems


def secret_problems(given: Mapping[str, str], right: Mapping[str, str]) -> list[Mistake]:
    """Judge both secrets, beside whatever else is wrong; a token's time is not looked at here (OPERATIONS §1)."""
    problems = []
    if "JWT" not in given and "JWT_FILE" not in given:
        problems.append(Mistake("JWT", "is not set; set it (or JWT_FILE) to the service user's token"))
    for name, check in (("JWT", token_expiry), ("SECURE_COMMAND_KEY", parse_keys)):
        file = f"{name}_FILE"
        if name in given and file in given:
            problems.append(Mistake(name, f"both {name} and {file} are set; keep one of them"))
        elif name in given:
            problems += _secret_problem(name, SecretSource(SecretStr(given[name])), check, right[name])
        elif file in given:
            problems += _secret_problem(file, SecretSource(path=Path(given[file])), check, right[file])
    return problems


def _secret_problem(variable: str, source: SecretSource, check: Callable[[str], object], right: str) -> list[Mistake]:
    try:
        text = source.get()
        if not text:
            return [Mistake(variable, f"the file is empty; it takes {right}")]
        if is_placeholder(text):
            return [Mistake(variable, f"is still a placeholder; it takes {right}")]
        check(text)
    except (OSError, ValueError) as error:
        return [Mistake(variable, f"{error}; it takes {right}")]
    return []


def one_each(problems: list[Mistake], right: Mapping[str, str]) -> list[Mistake]:
    """Keep the first problem of each variable, since the others follow from it, in the documented order."""
    first: dict[str | Mistake, Mistake] = {}
    for mistake in problems:
        # A line of `.env` is no variable: each of them counts.
        first.setdefault(mistake.variable if mistake.variable in right else mistake, mistake)
    order = list(right)
    return sorted(first.values(), key=lambda mistake: order.index(mistake.variable) if mistake.variable in order else -1)
