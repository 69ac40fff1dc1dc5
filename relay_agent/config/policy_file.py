"""The policy file: TOML tables read, checked, and turned into the rules and settings of calls (docs/policy.md).

Owns the file's form and the messages about mistakes in it. What rules decide is in `transport.policy`. No message contains a secret.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relay_agent.config.misspelling import unknown_key
from relay_agent.config.policy_credentials import read_credentials
from relay_agent.config.policy_tls import NUL, BaseTrust, TlsReader
from relay_agent.config.secrets import shown_path
from relay_agent.config.validators import LEAST_BYTES, MOST_BYTES
from relay_agent.core.errors import BadRequest, ConfigurationError, Mistake
from relay_agent.core.files import Stamp, how_to_allow, read_regular, stamp
from relay_agent.core.header_syntax import folded_name, is_token, shown_name
from relay_agent.core.models import Headers
from relay_agent.protocol.requests import check_field
from relay_agent.telemetry.redaction import field_secrets, proxy_secrets
from relay_agent.telemetry.secret_patterns import SENSITIVE_FIELD
from relay_agent.transport.authentication import Credentials
from relay_agent.transport.host_patterns import HostPatterns, parse_hosts, shown_host
from relay_agent.transport.path_patterns import parse_path
from relay_agent.transport.policy import Policy, Rule
from relay_agent.transport.proxy import Proxy, parse_proxy
from relay_agent.transport.proxy_routing import Route
from relay_agent.transport.target_settings import CallRules, TargetSettings

VARIABLE = "RELAY_POLICY_FILE"
MAX_BYTES = 1024 * 1024
MAX_ENTRIES = 10_000
"""The longest list in a policy file. Both bounds keep a file full of mistakes from taking gigabytes of memory."""
MAX_MISTAKES = 50
"""More are only counted."""
MAX_SECRET_BYTES = 64 * 1024
_OF_CONNECTION = (
    *("connection", "expect", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
)
_NOT_INJECTED = frozenset(map(folded_name, (*_OF_CONNECTION, "content-length", "host")))
"""Fields that belong to a connection or a message, not to a target (RFC 9110 §7.6.1, §10.1.1), as targets may see their names."""
_NOT_REDIRECTED = _NOT_INJECTED | {"cookie"}
"""Fields that no redirect may carry to another origin: the agent sets them for each request."""

_T = TypeVar("_T")
_Form = TypeVar("_Form", bound="_Table")
_Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_ENTRIES)]
_Port = Annotated[int, Field(ge=1, le=65_535)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class _Rule(_Table):
    name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    action: Literal["allow", "deny"]
    schemes: Annotated[list[Literal["http", "https"]], Field(min_length=1, max_length=MAX_ENTRIES)] | None = None
    hosts: _Texts | None = None
    ports: Annotated[list[_Port], Field(min_length=1, max_length=MAX_ENTRIES)] | None = None
    methods: _Texts | None = None
    paths: _Texts | None = None
    secure_only: bool = False


class _Target(_Table):
    hosts: _Texts
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    client_key_password_file: str | None = None
    tls_min: Literal["1.2", "1.3"] | None = None
    pin_sha256: _Texts | None = None
    allow_ignore_tls: bool = True
    proxy: str | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=256)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    max_response_bytes: Annotated[int, Field(ge=LEAST_BYTES, le=MOST_BYTES)] | None = None
    headers: dict[str, Any] = {}
    redirect_headers: _Texts | None = None
    auth: Any = None
    proxy_auth: Any = None


class _File(_Table):
    mode: Literal["enforce", "observe"] = "enforce"
    default: Literal["allow", "deny"] = "deny"
    rule: Annotated[list[_Rule], Field(max_length=MAX_ENTRIES)] = []
    target: Annotated[list[_Target], Field(max_length=MAX_ENTRIES)] = []


@dataclass(frozen=True, slots=True)
class _Tables:
    """What a file says, each table by its number in it, from 1."""

    mode: str = "enforce"
    default: str = "deny"
    rules: Mapping[int, _Rule] = field(default_factory=dict)
    targets: Mapping[int, _Target] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy file that was read, with what it names."""

    rules: CallRules
    files: Mapping[Path, Stamp | None] = field(default_factory=dict)
    """The policy file and every file that it names, each as it was before it was read: a change in any of them changes the rules."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that no log line may contain."""
    certificates: tuple[tuple[str, Path], ...] = ()
    """The PEM files of certificates that are used, each with the table and key that names it."""

    @property
    def file(self) -> Path | None:
        """The policy file; None if there is none."""
        return next(iter(self.files), None)


class PolicyMistakes(ValueError):
    """The policy file that a setting names has these mistakes."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(mistake.text for mistake in mistakes))
        self.mistakes = [replace(mistake, independent=True) for mistake in mistakes]


def check_policy(path: Path) -> Path:
    """Accept a policy file that is valid, as are all the files that it names.

    Raises:
        PolicyMistakes: it has some.
    """
    try:
        load_policy(path)
    except ConfigurationError as error:
        raise PolicyMistakes(error.mistakes) from None
    return path


def load_policy(path: Path, admin: tuple[str, int] | None = None, trust: BaseTrust | None = None) -> LoadedPolicy:
    """Read a policy file, and every file that it names.

    Raises:
        ConfigurationError: with one entry for each mistake: table, key, and the nearest known key.
    """
    return _Loader(path, trust or BaseTrust()).load(admin)


class _Loader:
    """Reads one policy file, and notes every mistake in it."""

    def __init__(self, path: Path, trust: BaseTrust) -> None:
        self._path = path
        self._mistakes: list[Mistake] = []
        self._unlisted = 0
        self._files = {path: stamp_of(path)}
        self._secrets: list[str] = []
        self._certificates: list[tuple[str, Path]] = []
        self._tls = TlsReader(self, trust)

    def load(self, admin: tuple[str, int] | None) -> LoadedPolicy:
        tables = self._tables()
        rules = [self._rule(number, table) for number, table in tables.rules.items()]
        targets = [self._target(number, table) for number, table in tables.targets.items()]
        given = Counter(table.name for table in tables.rules.values() if table.name)
        for name in sorted(name for name, number in given.items() if number > 1):
            self.mistake(f"two rules have the name '{name}'")
        if self._mistakes:
            raise ConfigurationError(*self._mistakes, *self._further())
        policy = Policy(admin, rules, default_allows=tables.default == "allow", observe=tables.mode == "observe")
        return LoadedPolicy(CallRules(policy, tuple(targets)), self._files, tuple(self._secrets), tuple(self._certificates))

    # --- the file ---

    def _tables(self) -> _Tables:
        """Return the tables whose form is right, and note the mistakes in the others."""
        content = self._read_tables()
        if content is None:
            return _Tables()
        try:
            file = _File.model_validate(content)
        except ValidationError as error:
            faults = error.errors(include_input=False, include_context=False, include_url=False)
            for fault in faults[:MAX_MISTAKES]:
                self.mistake(_described(fault["loc"], fault["type"], fault["msg"], content))
            self._unlisted += len(faults[MAX_MISTAKES:])
            places = {fault["loc"][:2] for fault in faults}
            # All mistakes are to be reported at once: also those in the values of tables that stand beside these.
            return _Tables(rules=_unharmed(content, "rule", _Rule, places), targets=_unharmed(content, "target", _Target, places))
        return _Tables(file.mode, file.default, dict(enumerate(file.rule, start=1)), dict(enumerate(file.target, start=1)))

    def _read_tables(self) -> dict[str, Any] | None:
        import tomllib  # Here, because an agent without a policy file does not need it.

        try:
            data = read_regular(self._path, MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                self.mistake(f"is larger than {MAX_BYTES // (1024 * 1024)} MiB, the most that a policy file may be")
                return None
            return tomllib.loads(data.decode("utf-8-sig"))
        except OSError as error:
            self._mistakes.append(Mistake(VARIABLE, f"cannot read {self._path} ({error.strerror}){how_to_allow(self._path, error)}"))
        except UnicodeDecodeError:
            self.mistake("is not UTF-8 text")
        except tomllib.TOMLDecodeError as error:
            self.mistake(f"is not valid TOML: {_without_key(str(error))}")
        except (ValueError, RecursionError):
            self.mistake("is not valid TOML: it contains a number with too many digits, or brackets nested too deeply")
        return None

    def mistake(self, text: str) -> None:
        """Note a mistake."""
        if len(self._mistakes) < MAX_MISTAKES:
            self._mistakes.append(Mistake(VARIABLE, f"{self._path.name}: {text}"))
        else:
            self._unlisted += 1

    def _further(self) -> list[Mistake]:
        more = self._unlisted
        return [Mistake(VARIABLE, f"{self._path.name}: {more} more mistake{'' if more == 1 else 's'}")] if more else []

    def read(self, where: str, parse: Callable[[], _T], default: _T) -> _T:
        """Return what `parse` makes of a value, or note the mistake in it."""
        try:
            return parse()
        except ValueError as error:
            self.mistake(f"{where}: {error}")
            return default

    # --- rules ---

    def _rule(self, number: int, table: _Rule) -> Rule:
        name = table.name or f"rule {number}"
        where = f"[[rule]] {number}" + (f" ({table.name})" if table.name else "")
        if table.name and table.name != f"rule {number}" and is_reserved(table.name):
            self.mistake(f"{where}: name: must not begin with {_RESERVED_WORDS}, as the agent's own names of rules do")
        paths = [self.read(f"{where}: paths", lambda text=text: parse_path(text), None) for text in table.paths or ()]  # type: ignore[misc]
        return Rule(
            name=name,
            allows=table.action == "allow",
            schemes=None if table.schemes is None else frozenset(table.schemes),
            hosts=None if table.hosts is None else self._hosts(where, table.hosts),
            ports=None if table.ports is None else frozenset(table.ports),
            methods=None if table.methods is None else self._tokens(f"{where}: methods", table.methods, str.upper),
            paths=None if table.paths is None else tuple(path for path in paths if path is not None),
            secure_only=table.secure_only,
        )

    def _hosts(self, where: str, texts: Sequence[str]) -> HostPatterns:
        return self.read(f"{where}: hosts", lambda: parse_hosts(texts), HostPatterns())

    def _tokens(self, where: str, texts: Sequence[str], form: Callable[[str], str]) -> frozenset[str]:
        for text in texts:
            if text == "*" or not is_token(text):
                self.mistake(f"{where}: '{shown_name(text)}' matches nothing; write each name in its own quotes, without wildcards")
        return frozenset(map(form, texts))

    # --- targets ---

    def _target(self, number: int, table: _Target) -> TargetSettings:
        where = f"[[target]] {number} ({shown_host(table.hosts[0])}{', …' if len(table.hosts) > 1 else ''})"
        return TargetSettings(
            name=where,
            hosts=self._hosts(where, table.hosts),
            group=" ".join(sorted({text.lower() for text in table.hosts})),
            tls=self._tls.contexts(where, table),
            allow_ignore_tls=table.allow_ignore_tls,
            route=None if table.proxy is None else Route(self._proxy(where, table.proxy), where),
            max_concurrency=table.max_concurrency,
            timeout_seconds=table.timeout_seconds,
            max_response_bytes=table.max_response_bytes,
            headers=self._headers(where, table.headers),
            redirect_headers=self._redirect_headers(where, table.redirect_headers or ()),
            auth=self._credentials(where, "auth", table.auth, table),
            proxy_auth=self._credentials(where, "proxy_auth", table.proxy_auth, table),
        )

    def _proxy(self, where: str, text: str) -> Proxy | None:
        proxy = None if text.lower() == "none" else self.read(f"{where}: proxy", lambda: parse_proxy(text), None)
        if proxy is not None and proxy.password is not None:
            self._secrets.extend((proxy.password, *proxy_secrets(text), text))
        return proxy

    def _headers(self, where: str, headers: Mapping[str, Any]) -> Headers:
        found: list[tuple[str, str]] = []
        known: dict[str, str] = {}
        for name, given in headers.items():
            # No colon after the name: the redactor of the log would take the rest of the text for the field's value.
            here = f"{where}: header field {shown_name(name)} is unusable"
            value = self._secret(here, given, secret=SENSITIVE_FIELD.fullmatch(name) is not None)
            other = known.setdefault(folded_name(name), name)
            if other != name:
                also = "" if other.lower() == name.lower() else f", since many servers take it for {shown_name(other)}"
                self.mistake(f"{here}: there are two fields of this name{also}")
            if folded_name(name) in _NOT_INJECTED:
                self.mistake(f"{here}: cannot be set; the agent does")
            elif value is not None:
                found.append((name, value))
                try:
                    check_field(here, name, value)
                except BadRequest as error:
                    self.mistake(str(error))
        return tuple(found)

    def _redirect_headers(self, where: str, names: Sequence[str]) -> frozenset[str]:
        for name in names:
            if folded_name(name) in _NOT_REDIRECTED:
                self.mistake(f"{where}: redirect_headers: {name} cannot be passed on; the agent sets it for each request")
        return self._tokens(f"{where}: redirect_headers", names, str.lower)

    def _credentials(self, where: str, key: str, given: object, table: _Target) -> Credentials | None:
        if given is None:
            return None
        field_name = "authorization" if key == "auth" else "proxy-authorization"
        if any(folded_name(name) == folded_name(field_name) for name in table.headers):
            self.mistake(f"{where}: {key}: headers sets {field_name} too; keep one of the two")
        if key == "proxy_auth" and table.proxy is not None:
            if table.proxy.lower() == "none" or table.proxy.lower().startswith("socks"):
                self.mistake(f"{where}: proxy_auth: is for HTTP proxies only, and `proxy` is not an HTTP proxy")
            elif "@" in table.proxy:
                self.mistake(f"{where}: proxy_auth: proxy has a user too; keep one of the two")
        return read_credentials(f"{where}: {key}", given, self._secret, self.mistake)

    def _secret(self, where: str, given: object, *, secret: bool = True) -> str | None:
        """Return a value that is in the file itself, or in a file of its own: `{ file = "…" }`; white space around it is removed.

        `secret` says whether a value in the file itself is one: then no log line may contain it.
        """
        if isinstance(given, str):
            value: str | None = given.strip()
        elif isinstance(given, dict) and (unknown := [key for key in given if key != "file"]):
            for key in unknown:
                self.mistake(f"{where}: {unknown_key(key, ('file',))}")
            return None
        elif isinstance(given, dict) and isinstance(given.get("file"), str):
            value, secret = self.text_of(where, self.named(given["file"])), True
        else:
            self.mistake(f'{where}: must be a text, or {{ file = "…" }}')
            return None
        if value and secret:
            self.keep_secret(value)
            self._secrets += field_secrets(value)
        return value

    def text_of(self, where: str, path: Path) -> str | None:
        """Return the text of a secret's file, white space around it cut; None, and a mistake noted, if it has none."""
        try:
            content = read_regular(path, MAX_SECRET_BYTES + 1)
            text = content.decode("utf-8-sig").strip()
        except OSError as error:
            shown = shown_path(path, self.directory)
            cure = how_to_allow(path, error, secret=True) if shown == str(path) else ""
            self.mistake(f"{where}: cannot read {shown} ({error.strerror}){cure}")
        except UnicodeDecodeError:
            self.mistake(f"{where}: {path} is not UTF-8 text")
        except ValueError:
            self.mistake(f"{where}: {NUL}")
        else:
            if text and len(content) <= MAX_SECRET_BYTES:
                return text
            self.mistake(f"{where}: {path} is {f'larger than {MAX_SECRET_BYTES:,} bytes' if text else 'empty'}")
        return None

    @property
    def directory(self) -> Path:
        """The directory that the names in the file are relative to."""
        return self._path.parent

    def keep_secret(self, value: str) -> None:
        """Note a value that no log line may contain."""
        self._secrets.append(value)

    def use_certificate(self, where: str, path: Path) -> None:
        """Note a PEM file of certificates that is used; `where` names the table and key."""
        self._certificates.append((where, path))

    def named(self, name: str) -> Path:
        """Return the path of a file that the policy file names, relative to it, and note that the rules depend on it."""
        path = self.directory / name
        self._files.setdefault(path, stamp_of(path))
        return path


def _without_key(message: str) -> str:
    """Return tomllib's message without the key that it repeats: one in quotes may be a whole header field with its value."""
    kind, at, place = message.rpartition(" (at ")
    words = re.match(r"(?:Expected|Unescaped|Illegal character|Found invalid character) .*|[A-Za-z ]*", kind)
    return (words[0].rstrip() if words else "") + at + place


def _unharmed(content: Mapping[str, Any], key: str, form: type[_Form], places: Collection[tuple[int | str, ...]]) -> dict[int, _Form]:
    """Return the tables of one key without a mistake in their form; `places` are those of the mistakes."""
    if (key,) in places:
        return {}
    return {number: form.model_validate(row) for number, row in enumerate(content.get(key, ()), 1) if (key, number - 1) not in places}


def stamp_of(path: Path) -> Stamp | None:
    """Return what changes whenever a file does; None if the file cannot be found."""
    try:
        return stamp(path.stat())
    except (OSError, ValueError):  # A name with a NUL is that of no file.
        return None


def is_reserved(name: str) -> bool:
    """Return whether a rule's name could be taken for one of the agent's own: then a refusal would name the wrong rule."""
    return _RESERVED.match(name.strip()) is not None


_RESERVED_WORDS = "'built-in', 'default', 'observe:' or 'rule' and a number"
_RESERVED = re.compile(r"built-in|default|observe:|rule [0-9]+$", re.IGNORECASE)


def _described(place: tuple[int | str, ...], kind: str, message: str, content: Mapping[str, Any]) -> str:
    """Say where a mistake is and what it is; `place`, `kind` and `message` are pydantic's, and contain no value of the file."""
    table: type[_Table] = _File
    where = ""
    keys = [str(part) for part in place if isinstance(part, str)]
    if len(place) > 1 and isinstance(place[1], int):
        name = _name_of(content, str(place[0]), place[1])
        where = f"[[{place[0]}]] {place[1] + 1}{f' ({name})' if name else ''}: "
        table, keys = _TABLES[str(place[0])], keys[1:]
    key = ".".join(keys)
    if not key:
        return f"{where}must be a table of keys and values"
    if kind == "extra_forbidden" and where and key in _TOP_LEVEL:
        return f"{where}'{key}' is not a key of a table; write it above the first [[rule]] or [[target]]"
    if kind == "extra_forbidden":
        return f"{where}{unknown_key(key, table.model_fields)}"
    if kind == "list_type" and key in _TABLES and not where:
        return f"'{key}' must be written as [[{key}]], with two brackets"
    if kind == "too_long":
        return f"{where}{key}: has more than {MAX_ENTRIES:,} entries"
    if kind == "missing":
        return f"{where}'{key}' is missing"
    if kind == "too_short":
        cure = "name at least one host" if table is _Target and key == "hosts" else "remove it to match everything"
        return f"{where}{key}: is empty; {'remove it' if table is _Target and key != 'hosts' else cure}"
    if key == "tls_min" and "[[" in where and (version := content["target"][place[1]].get(key)) in (1.2, 1.3):
        return f'{where}{key}: write it in quotes: "{version}"'
    return f"{where}{key}: {message[:1].lower()}{message[1:]}"


_TOP_LEVEL = ("mode", "default")
_TABLES: dict[str, type[_Table]] = {"rule": _Rule, "target": _Target}


def _name_of(content: Mapping[str, Any], table: str, index: int) -> str | None:
    tables = content.get(table)
    row = tables[index] if isinstance(tables, list) and index < len(tables) else None
    if not isinstance(row, dict):
        return None
    if table == "target" and isinstance(hosts := row.get("hosts"), list) and hosts and isinstance(hosts[0], str):
        return shown_host(hosts[0]) + (", …" if len(hosts) > 1 else "")
    name = row.get("name")
    return name[:100] if isinstance(name, str) else None
