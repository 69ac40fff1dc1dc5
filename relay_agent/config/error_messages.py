"""The messages for mistakes in the settings: the variable, the mistake, what is expected.

Owns their wording. It must not read the environment or repeat a secret's value. `given` holds the variables that are set, `right` what
is expected of each variable.
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
    """Turn pydantic's error about a value into ours; `kind` and `message` are pydantic's, and do not contain the value."""
    if kind == "missing":
        return Mistake(variable, f"is not set; set it to {right[variable]}")
    # pydantic names the first alias, which need not be the one that was set.
    variable = variable if variable in given or variable.upper() not in given else variable.upper()
    return Mistake(variable, f"{message.removeprefix('Value error, ')}; expected: {right[variable]}")


def unfinished_values(given: Mapping[str, str], right: Mapping[str, str]) -> list[Mistake]:
    """Find placeholders, and quotes around a value, which `docker run --env-file` makes part of it."""
    problems = []
    for name, takes in right.items():
        if is_placeholder(given.get(name, "")):
            problems.append(Mistake(name, f"is still a placeholder; set it to {takes}"))
        elif is_quoted(given.get(name, "")):
            problems.append(Mistake(name, f"has quotes around its value; remove the quotes; expected: {takes}"))
    return problems


def secret_problems(given: Mapping[str, str], right: Mapping[str, str]) -> list[Mistake]:
    """Judge the form of both secrets; whether the token has expired is not judged here: that has another exit code."""
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
            return [Mistake(variable, f"the file is empty; expected: {right}")]
        if is_placeholder(text):
            return [Mistake(variable, f"is still a placeholder; expected: {right}")]
        check(text)
    except (OSError, ValueError) as error:
        return [Mistake(variable, f"{error}; expected: {right}")]
    return []


def one_each(problems: list[Mistake], right: Mapping[str, str]) -> list[Mistake]:
    """Keep the first mistake of each variable, since the others follow from it unless they are independent, in the documented order."""
    kept: list[Mistake] = []
    first: dict[str, Mistake] = {}
    for mistake in problems:
        earlier = first.setdefault(mistake.variable, mistake)
        # The mistakes in lines of `.env` have no variable: keep every one of them.
        if earlier is mistake or mistake.variable not in right or (mistake.independent and earlier.independent):
            kept.append(mistake)
    order = list(right)
    return sorted(dict.fromkeys(kept), key=lambda mistake: order.index(mistake.variable) if mistake.variable in order else -1)
