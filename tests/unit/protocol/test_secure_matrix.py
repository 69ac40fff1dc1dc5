"""Every message that either side of a secure command makes or sees, given to everything that reads a message (PROTOCOL §5).

The platform is the adversary: it keeps, repeats, swaps, alters and forges messages, and assigns the commands' ids. One table for
each side has the outcome of each message at each reader.
"""

from __future__ import annotations

import gzip
import json
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import jwt as pyjwt
import pytest
import requests
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from joserfc.errors import JoseError
from requests import exceptions as failures

from relay_agent.cli import send as cli_sender
from relay_agent.cli.send import decrypt, encrypt, send
from relay_agent.config.settings import variables
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import RelayError, SecureCommandError
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, HttpRequest, HttpResponse, Update
from relay_agent.pipelines.client import CommandClient
from relay_agent.pipelines.encoding import Answer, request_payload
from relay_agent.pipelines.requests_adapter import RelayAdapter
from relay_agent.protocol.jwe import MAX_JTI_CHARACTERS, MAX_VALID_SECONDS, look_inside, open_answer, open_command
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.payload_reader import Download
from relay_agent.storage import retention
from tests.envelopes import b64, by_hand, by_joserfc, unb64
from tests.worlds import AGENT, CANARY, GDC, NOW, SECONDS, V2, Target, World, message, response, sealed

KEY = bytes(range(32))
OTHER_AGENT = "agent-2"
URL = f"http://target.example/{CANARY}"
HIDDEN = {"url": URL, "method": "POST", "headers": [{"X-Secret": CANARY}], "body": CANARY, "encrypt_response": True}
PLAIN = {"url": "http://platform.example/"}
"""A plain command of the platform's own, which it may post; nothing in it is secret."""


class Secretive(Target):
    """Answers secure requests with a secret."""

    def execute(self, request: HttpRequest, deadline: Deadline, before_send: Callable[[], None]) -> HttpResponse | Failure:
        if request.secure and not self.answers:
            self.answers.append(response(f"answer {CANARY}".encode(), headers=(("Set-Cookie", CANARY),)))
        return super().execute(request, deadline, before_send)


class Agent(World):
    """An agent, with everything that it sends to the platform."""

    def __init__(self, directory: Path, agent_id: str = AGENT) -> None:
        directory.mkdir(exist_ok=True)
        super().__init__(directory, agent_id)
        self.target = Secretive()
        self.updates: list[Update] = []

    def give(self, payload: object, command_id: str | None = None, action: str = V2, **fields: Any) -> Update | None:
        """Put a command into the queue, valid for five minutes; returns None if the agent does not take it as a new one."""
        fields = {"targetId": self.agent_id, "expiresAt": (self.now + timedelta(minutes=5)).isoformat()} | fields
        taken = self.take(message(payload, commandId=command_id or str(uuid.uuid4()), action=action, **fields))
        for task in taken.tasks:
            fetched = self.reader.download(Download(task)) if task.needs_download else task
            assert fetched is not None
            self.updates.append(self.process(fetched)[0])
        return self.updates[-1] if taken.tasks else None

    def forget(self) -> None:
        """Deliver all updates, and forget the commands as a busy agent does."""
        self.journal.flush()
        ids = [found for found, _ in self.journal.undelivered()]
        self.journal.acked(ids)
        self.journal.deliver(ids)
        with patch.object(retention, "KEEP_IDS", 0):
            self.journal.retention.prune()

    def body(self, update: Update | None) -> Any:
        """The response body as the sender gets it."""
        assert update is not None
        if update.spool is not None:
            return json.loads(gzip.decompress(self.spool.path(update.spool).read_bytes()))
        return json.loads(update.message)["body"]

    def outcome(self, update: Update | None) -> str:
        """The outcome of a message at the agent, in one word."""
        if update is None:
            return "known"
        body = self.body(update)
        return "RUN" if "statusCode" in body else str(body["code"])

    def check_nothing_leaked(self) -> None:
        """Nothing secret was sent to the platform, and no secure request was sent twice."""
        spooled = [gzip.decompress(path.read_bytes()) for path in self.spool.directory.iterdir() if path.suffix == ".gz"]
        sent = [text for update in self.updates for text in (update.message, update.fallback or "")] + [str(self.reports)]
        assert not [text for text in sent if CANARY in text]
        assert not [text for text in spooled if CANARY.encode() in text]
        used = [request.jti for request, _ in self.target.asked if request.secure]
        assert len(used) == len(set(used))


# --- at the agent ---


def altered(jwe: str, part: int) -> str:
    """Change one bit of one part."""
    parts = jwe.split(".")
    data = bytearray(unb64(parts[part]))
    data[len(data) // 2] ^= 1
    return ".".join([*parts[:part], b64(bytes(data)), *parts[part + 1 :]])


def renamed(jwe: str, **members: Any) -> str:
    """Change members of the protected header; None removes a member."""
    head, rest = jwe.split(".", 1)
    header = json.loads(unb64(head)) | members
    return f"{b64(json.dumps({name: value for name, value in header.items() if value is not None}).encode())}.{rest}"


class Scene:
    """An agent that has answered commands of every kind, and every message that the platform has then seen or can make."""

    def __init__(self, directory: Path) -> None:
        self.agent = Agent(directory / "agent")
        self.other = Agent(directory / "other", OTHER_AGENT)
        used, fresh = sealed(HIDDEN, jti="used"), sealed(HIDDEN, jti="fresh")
        answer = self._answered(used, command_id="used")
        claims = {"typ": "relay-command", "aud": AGENT, "exp": SECONDS + 300, "jti": "forged"}
        old = {"alg": "dir", "enc": "A256GCM", "kid": Keyring.kid(KEY)}
        self.messages: dict[str, object] = {
            "command, fresh": fresh,
            "command, used": used,
            "command, for another agent": sealed(HIDDEN, aud=OTHER_AGENT),
            "command, exp in milliseconds": sealed(HIDDEN, exp=(SECONDS + 300) * 1000),
            "command, exp in eight days": sealed(HIDDEN, exp=SECONDS + 8 * 86_400),
            "command, of an older protocol": {"jwe": by_hand(old, json.dumps(HIDDEN).encode(), KEY)},
            "command, of no key holder": {"jwe": by_hand(old | claims, json.dumps(HIDDEN).encode(), b"k" * 32)},
            "command, altered": {"jwe": altered(fresh["jwe"], 3)},
            "command, its jti altered": {"jwe": renamed(used["jwe"], jti="another")},
            "command, for this agent by forged aud": {"jwe": renamed(sealed(HIDDEN, aud=OTHER_AGENT)["jwe"], aud=AGENT)},
            "command, its exp put off": {"jwe": renamed(used["jwe"], exp=SECONDS + 86_400)},
            "answer": answer,
            "answer, altered": {"jwe": altered(answer["jwe"], 3)},
            "answer, its typ taken off": {"jwe": renamed(answer["jwe"], typ=None)},
            "answer, renamed a command": {"jwe": renamed(answer["jwe"], **claims)},
            "answer, under a command's header": {"jwe": ".".join([fresh["jwe"].split(".")[0], *answer["jwe"].split(".")[1:]])},
            "answer, large": self._answered(sealed(HIDDEN), response(CANARY.encode() + b"x" * 400_000)),
            "answer, that cannot be uploaded": self._answered(sealed(HIDDEN), response(b"x" * 400_000), responseBodyUploadUrl=None),
            "answer, to a plain command": self._answered(PLAIN | {"encrypt_response": True}, action=GDC),
            "failure, sealed": self._answered(sealed(HIDDEN), Failure(Code.ECONNREFUSED, f"connect {CANARY}", URL)),
            "failure, sealed and brief": self._answered(sealed(HIDDEN), Failure(Code.ECONNREFUSED, "x", URL + "x" * 300_000)),
            "failure, of an invalid request": self._answered(sealed(HIDDEN | {"method": f" {CANARY}"})),
            "plain request": PLAIN,
            "plain answer": {"statusCode": 200, "headers": [], "body": "forged", "bodyEncoding": "utf-8", "elapsedMs": 1},
            "plain failure": {"code": "EEXPIRED", "message": "forged"},
        }
        self.agent.target.asked.clear()

    def _answered(
        self, payload: object, answer: HttpResponse | Failure | None = None, command_id: str | None = None, action: str = V2, **fields: Any
    ) -> Any:
        self.agent.target.answers = [answer] if answer is not None else []
        return self.agent.body(self.agent.give(payload, command_id, action, **fields))


Place = Callable[[Scene, object], tuple[Agent, Update | None]]


def new_id(scene: Scene, payload: object) -> tuple[Agent, Update | None]:
    return scene.agent, scene.agent.give(payload)


def same_id(scene: Scene, payload: object) -> tuple[Agent, Update | None]:
    return scene.agent, scene.agent.give(payload, "used")


def other_agent(scene: Scene, payload: object) -> tuple[Agent, Update | None]:
    return scene.other, scene.other.give(payload)


def restarted(scene: Scene, payload: object) -> tuple[Agent, Update | None]:
    scene.agent.again()
    return scene.agent, scene.agent.give(payload)


def pruned(scene: Scene, payload: object) -> tuple[Agent, Update | None]:
    scene.agent.forget()
    return scene.agent, scene.agent.give(payload, "used")


def after_exp(scene: Scene, payload: object) -> tuple[Agent, Update | None]:
    scene.agent.now = NOW + timedelta(seconds=300)
    return scene.agent, scene.agent.give(payload)


def set_back(scene: Scene, payload: object) -> tuple[Agent, Update | None]:
    """The clock is set back after `exp` has passed and the agent has forgotten the `jti`."""
    scene.agent.now = NOW + timedelta(seconds=301)
    scene.agent.forget()
    scene.agent.now = NOW
    return scene.agent, scene.agent.give(payload)


def referenced(scene: Scene, payload: object) -> tuple[Agent, Update | None]:
    scene.agent.bucket.bodies["https://s3.example/get"] = json.dumps(payload).encode()
    return scene.agent, scene.agent.give(payload, body=None, bodyDelivery="referenced", bodyUrl="https://s3.example/get")


def plain(scene: Scene, payload: object) -> tuple[Agent, Update | None]:
    return scene.agent, scene.agent.give(payload, action=GDC)


PLACES: tuple[Place, ...] = (new_id, same_id, other_agent, restarted, pruned, after_exp, set_back, referenced, plain)
NO_COMMAND = "EDECRYPT known EDECRYPT EDECRYPT EDECRYPT EDECRYPT EDECRYPT EDECRYPT EBADCOMMAND"
NO_ENVELOPE = "EBADCOMMAND known EBADCOMMAND EBADCOMMAND EBADCOMMAND EBADCOMMAND EBADCOMMAND EBADCOMMAND EBADCOMMAND"
AT_THE_AGENT = {
    #                               new_id    same_id  other_agent  restarted  pruned    after_exp  set_back  referenced  plain
    "command, fresh": "            RUN       known    EDECRYPT     RUN        RUN       EDECRYPT   EREPLAY   RUN         EBADCOMMAND",
    "command, used": "             EREPLAY   known    EDECRYPT     EREPLAY    EREPLAY   EDECRYPT   EREPLAY   EREPLAY     EBADCOMMAND",
    "command, for another agent": "EDECRYPT  known    RUN          EDECRYPT   EDECRYPT  EDECRYPT   EDECRYPT  EDECRYPT    EBADCOMMAND",
    "command, exp in milliseconds": NO_COMMAND,
    "command, exp in eight days": NO_COMMAND,
    "command, of an older protocol": NO_COMMAND,
    "command, of no key holder": NO_COMMAND,
    "command, altered": NO_COMMAND,
    "command, its jti altered": NO_COMMAND,
    "command, for this agent by forged aud": NO_COMMAND,
    "command, its exp put off": NO_COMMAND,
    "answer": NO_COMMAND,
    "answer, altered": NO_COMMAND,
    "answer, its typ taken off": NO_COMMAND,
    "answer, renamed a command": NO_COMMAND,
    "answer, under a command's header": NO_COMMAND,
    "answer, large": NO_COMMAND,
    "answer, that cannot be uploaded": NO_COMMAND,
    "answer, to a plain command": NO_COMMAND,
    "failure, sealed": NO_COMMAND,
    "failure, sealed and brief": NO_COMMAND,
    "failure, of an invalid request": NO_COMMAND,
    "plain request": NO_ENVELOPE.removesuffix("EBADCOMMAND") + "RUN",
    "plain answer": NO_ENVELOPE,
    "plain failure": NO_ENVELOPE,
}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.agent.journal.close()
    made.other.journal.close()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_the_agent_runs_what_the_key_holder_asked_for_once_and_nothing_else(scene: Scene, place: Place) -> None:
    found, ran = {}, []
    for name, payload in scene.messages.items():
        agent, update = place(scene, payload)
        found[name] = agent.outcome(update)
        ran += [name] * len(agent.target.asked)
        agent.target.asked.clear()
    column = PLACES.index(place)
    assert found == {name: row.split()[column] for name, row in AT_THE_AGENT.items()}
    assert ran == [name for name, outcome in found.items() if outcome == "RUN"]
    scene.agent.check_nothing_leaked()
    scene.other.check_nothing_leaked()


def test_a_message_that_arrives_again_while_it_runs_runs_once(scene: Scene) -> None:
    """Under its own id and under another, before the journal has written anything of it to disk."""
    payload = sealed(HIDDEN, jti="twice")
    texts = [message(payload, commandId=command_id, action=V2) for command_id in ("first", "first", "second")]
    taken = scene.agent.intake.admit([(text, f"receipt-{place}") for place, text in enumerate(texts)])
    outcomes = {task.command.id: scene.agent.outcome(scene.agent.process(task)[0]) for task in taken.tasks}
    assert outcomes == {"first": "RUN", "second": "EREPLAY"}
    assert len(scene.agent.target.asked) == 1


# --- at the sender ---

TOKEN = pyjwt.encode({"sub": "sender"}, "k" * 32, algorithm="HS256")
KEY_TEXT = b64(KEY)
MINE = "mine"
Finished = tuple[str, Any]
Forge = Callable[["Platform", dict[str, Any]], Finished]


class Platform(requests.Session):
    """The platform as a sender sees it, with a real agent to which it may give any commands before it answers."""

    def __init__(self, agent: Agent, forge: Forge) -> None:
        super().__init__()
        self.agent, self._forge = agent, forge
        self.posted: list[Any] = []
        self.stand_in: dict[str, Any] | None = None
        """The payload that the forger gets in place of the one that the sender posted."""

    def request(self, method: str | bytes, url: Any, *args: Any, **options: Any) -> requests.Response:
        if method == "POST":
            self.posted.append(json.loads(options["data"]))
            return self._response({"id": MINE, "status": "PENDING"})
        return self._response(self.tell(self.posted[-1]["payload"]))

    def tell(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The finished command, as the platform's API shows it."""
        status, body = self._forge(self, payload if self.stand_in is None else self.stand_in)
        return {"id": MINE, "status": status, "responseBody": body}

    def run(self, payload: object, answer: HttpResponse | Failure | None = None, *, action: str = V2, **fields: Any) -> Any:
        """The agent's answer to a payload, with the id of the sender's command unless another is given."""
        self.agent.target.answers = [answer] if answer is not None else []
        return self.agent.body(self.agent.give(payload, action=action, **{"command_id": MINE} | fields))

    @staticmethod
    def _response(body: dict[str, Any]) -> requests.Response:
        answer = requests.Response()
        answer.status_code = 200
        answer._content = json.dumps(body).encode()
        answer._content_consumed = True
        return answer


def another(agent: Agent) -> dict[str, str]:
    """A secure command of another sender, or an earlier one of this sender."""
    return sealed(HIDDEN, exp=int(agent.now.timestamp()) + 300)


def forged(status: int = 200) -> dict[str, Any]:
    return {"statusCode": status, "headers": [], "body": "forged", "bodyEncoding": "utf-8", "url": "http://h/", "elapsedMs": 1}


def of_an_older_protocol(_platform: Platform, _payload: dict[str, Any]) -> Finished:
    header = {"alg": "dir", "enc": "A256GCM", "kid": Keyring.kid(KEY)}
    return "SUCCESS", {"statusCode": 200, "jwe": by_hand(header, json.dumps(forged()).encode(), KEY)}


def by_an_agent_without_cjti(platform: Platform, payload: dict[str, Any]) -> Finished:
    """The agent of another key holder, which does not set `cjti`; ours always does."""
    answer = platform.run(payload)
    header = {"alg": "dir", "enc": "A256GCM", "kid": Keyring.kid(KEY), "typ": "relay-answer", "cid": MINE}
    return "SUCCESS", {"statusCode": 200, "jwe": by_hand(header, look_inside(answer["jwe"], Keyring([KEY]))[1], KEY)}


def id_given_twice(platform: Platform, payload: dict[str, Any]) -> Finished:
    """Another command is answered under this one's id; this one never reaches the agent."""
    return "SUCCESS", platform.run(another(platform.agent))


def id_of_a_plain_command(platform: Platform, payload: dict[str, Any]) -> Finished:
    """The platform has the agent answer a plain command, encrypted, and gives its id to the next secure command."""
    return "SUCCESS", platform.run(PLAIN | {"encrypt_response": True}, response(b"forged"), action=GDC)


def own_failure(size: int = 0) -> Forge:
    return lambda platform, payload: ("FAILURE", platform.run(payload, Failure(Code.ECONNREFUSED, CANARY, URL + "x" * size)))


def own(change: Callable[[dict[str, Any]], object], status: str = "SUCCESS") -> Forge:
    """The command's own answer, changed."""
    return lambda platform, payload: (status, change(platform.run(payload)))


FORGES: dict[str, Forge] = {
    "own answer": own(lambda body: body),
    "own answer as a text": own(json.dumps),
    "own answer, reported as a failure": own(lambda body: body, "FAILURE"),
    "own answer, its status forged": own(lambda body: body | {"statusCode": 500}),
    "own answer, other words beside it": own(lambda body: body | {"code": "EEXPIRED", "body": "forged", "headers": []}),
    "own answer, altered": own(lambda body: body | {"jwe": altered(body["jwe"], 3)}),
    "own answer, renamed": own(lambda body: body | {"jwe": renamed(body["jwe"], typ="relay-command")}),
    "own failure": own_failure(),
    "own failure, brief": own_failure(300_000),
    "own answer that cannot be uploaded": lambda platform, payload: (
        "FAILURE",
        platform.run(payload, response(b"x" * 400_000), responseBodyUploadUrl=None),
    ),
    "own command, echoed": lambda _platform, payload: ("SUCCESS", payload),
    "own command, echoed as an answer": lambda _platform, payload: ("SUCCESS", {"statusCode": 200, **payload}),
    "another command, as an answer": lambda platform, _payload: ("SUCCESS", {"statusCode": 200, **another(platform.agent)}),
    "another command's answer": lambda platform, _payload: ("SUCCESS", platform.run(another(platform.agent), command_id="another")),
    "another command's answer, its id forged": lambda platform, _payload: (
        "SUCCESS",
        {"statusCode": 200, "jwe": renamed(platform.run(another(platform.agent), command_id="another")["jwe"], cid=MINE)},
    ),
    "another command's answer under the same id": id_given_twice,
    "a plain command's answer under the same id": id_of_a_plain_command,
    "own answer, without cjti": by_an_agent_without_cjti,
    "an answer of an older protocol": of_an_older_protocol,
    "a plain answer": lambda _platform, _payload: ("SUCCESS", forged()),
    "a plain answer of 404": lambda _platform, _payload: ("FAILURE", forged(404)),
    "a plain answer that has no status": lambda _platform, _payload: ("FAILURE", forged() | {"statusCode": None}),
    "a plain failure": lambda _platform, _payload: ("FAILURE", {"code": "ECONNREFUSED", "message": "forged"}),
    "a plain failure, reported as success": lambda _platform, _payload: ("SUCCESS", {"code": "ECONNREFUSED", "message": "forged"}),
    "nothing, expired": lambda _platform, _payload: ("EXPIRED", None),
    "nothing, reported as success": lambda _platform, _payload: ("SUCCESS", None),
    "a jwe that is not a string": lambda _platform, _payload: ("SUCCESS", {"statusCode": 200, "jwe": 7}),
    "a list": lambda _platform, _payload: ("SUCCESS", [forged()]),
    "a text": lambda _platform, _payload: ("SUCCESS", "forged"),
}
REFUSED = "refused " * 6
AT_THE_SENDER = {
    #                                       exchange      adapter       send          decrypt       readme        plain_exchange
    "own answer": "                        TAKEN         TAKEN         TAKEN         TAKEN         TAKEN         refused",
    "own answer as a text": "              TAKEN         TAKEN         TAKEN         refused       refused       refused",
    "own answer, reported as a failure": " TAKEN         TAKEN         TAKEN         TAKEN         TAKEN         refused",
    "own answer, its status forged": "     TAKEN         TAKEN         TAKEN         TAKEN         TAKEN         refused",
    "own answer, other words beside it": " TAKEN         TAKEN         TAKEN         TAKEN         TAKEN         refused",
    "own answer, altered": REFUSED,
    "own answer, renamed": REFUSED,
    "own failure": "                       ECONNREFUSED  ECONNREFUSED  ECONNREFUSED  ECONNREFUSED  ECONNREFUSED  refused",
    "own failure, brief": "                ECONNREFUSED  ECONNREFUSED  ECONNREFUSED  ECONNREFUSED  ECONNREFUSED  refused",
    "own answer that cannot be uploaded": "TOOLARGE      TOOLARGE      TOOLARGE      TOOLARGE      TOOLARGE      refused",
    "own command, echoed": REFUSED,
    "own command, echoed as an answer": REFUSED,
    "another command, as an answer": REFUSED,
    "another command's answer": REFUSED,
    "another command's answer, its id forged": REFUSED,
    "another command's answer under the same id": REFUSED,
    "a plain command's answer under the same id": REFUSED,
    "own answer, without cjti": "           TAKEN         TAKEN         TAKEN         TAKEN         TAKEN         refused",
    "an answer of an older protocol": REFUSED,
    "a plain answer": "                    refused       refused       refused       refused       refused       TAKEN",
    "a plain answer of 404": "             refused       refused       refused       refused       refused       TAKEN",
    "a plain answer that has no status": " refused       refused       refused       refused       refused       FAILURE",
    "a plain failure": "                   ECONNREFUSED  ECONNREFUSED  ECONNREFUSED  refused       refused       ECONNREFUSED",
    "a plain failure, reported as success": "refused       refused       refused       refused       refused       ECONNREFUSED",
    "nothing, expired": "                  EXPIRED       EXPIRED       EXPIRED       refused       refused       EXPIRED",
    "nothing, reported as success": "       refused       refused       refused       refused       refused       SUCCESS",
    "a jwe that is not a string": REFUSED,
    "a list": REFUSED,
    "a text": "                            refused       refused       refused       refused       refused       SUCCESS",
}
OWN = f"answer {CANARY}"


class Sender:
    """The readers of an answer; each returns in one word what it took the message for."""

    def __init__(self, platform: Platform, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.platform = platform
        self._client = CommandClient("https://api.example", "acme", TOKEN, AGENT, platform)
        for variable in variables():
            for name in (variable.name, variable.name.upper()):
                monkeypatch.delenv(name, raising=False)
        given = {"API_TARGET": "https://api.example", "ORG_SLUG": "acme", "AGENT_ID": AGENT, "JWT": TOKEN, "SECURE_COMMAND_KEY": KEY_TEXT}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(directory)
        monkeypatch.setattr(cli_sender, "platform_session", lambda _settings: platform)

    def exchange(self) -> str:
        return self._exchanged(Keyring([KEY]))

    def plain_exchange(self) -> str:
        """The sender of a plain command gets the answer to another sender's secure one."""
        self.platform.stand_in = another(self.platform.agent)
        return self._exchanged(None)

    def _exchanged(self, keyring: Keyring | None) -> str:
        payload = request_payload("POST", URL, [], CANARY.encode(), 30.0)
        try:
            answer = self._client.exchange(payload, timeout_seconds=30.0, keyring=keyring)
            return self._word(answer, answer.content())
        except RelayError:
            return "refused"

    @staticmethod
    def _word(answer: Answer, content: bytes) -> str:
        assert not answer.http or content in (OWN.encode(), b"forged")
        return "TAKEN" if answer.http else answer.code.removeprefix("ERESPONSE")

    def adapter(self) -> str:
        with requests.Session() as session:
            session.mount("http://", RelayAdapter(self._client, keyring=Keyring([KEY])))
            try:
                assert session.post(URL, data=CANARY).text == OWN
                return "TAKEN"
            except failures.RequestException as error:
                return self._code(str(error))

    def send(self) -> str:
        result = CliRunner().invoke(send, ["--secure", "-d", CANARY, URL])
        assert result.stdout == (OWN if result.exit_code == 0 else "")
        return "TAKEN" if result.exit_code == 0 else self._code(result.stderr.removeprefix("Error: "))

    @staticmethod
    def _code(text: str) -> str:
        code = text.partition(":")[0]
        return code.removeprefix("ERESPONSE") if code.isupper() and code != "EDECRYPT" else "refused"

    def decrypt(self) -> str:
        request = json.dumps(HIDDEN)
        payload = json.loads(CliRunner().invoke(encrypt, ["--jti", "mine-too"], input=request).stdout)
        body = json.dumps(self.platform.tell(payload)["responseBody"])
        result = CliRunner().invoke(decrypt, ["--command", MINE, "--jti", "mine-too"], input=body)
        assert (result.exit_code == 0) == bool(result.stdout)
        return self._opened(json.loads(result.stdout)) if result.exit_code == 0 else "refused"

    def readme(self) -> str:
        text = (Path(__file__).resolve().parents[3] / "docs" / "senders.md").read_text(encoding="utf-8")
        (sample,) = [block for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if "joserfc" in block]
        scope: dict[str, Any] = {}
        exec(sample, scope)
        payload = scope["seal"](HIDDEN, scope["jti"])
        body = self.platform.tell(payload)["responseBody"]
        try:
            return self._opened(scope["open_answer"](body, MINE, scope["jti"]))
        except (JoseError, RuntimeError):
            return "refused"

    @staticmethod
    def _opened(body: dict[str, Any]) -> str:
        assert body.get("body") in (OWN, None)
        return str(body.get("code") or "TAKEN").removeprefix("ERESPONSE")


READERS = ("exchange", "adapter", "send", "decrypt", "readme", "plain_exchange")


@pytest.mark.parametrize("place", READERS)
def test_the_sender_accepts_only_the_answer_to_its_own_command(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for number, (name, forge) in enumerate(FORGES.items()):
        agent = Agent(tmp_path / str(number))
        agent.now = datetime.now(UTC)
        with Platform(agent, forge) as platform, monkeypatch.context() as patched:
            found[name] = getattr(Sender(platform, patched, tmp_path), place)()
            assert place == "plain_exchange" or CANARY not in json.dumps(platform.posted)
        agent.check_nothing_leaked()
        agent.journal.close()
    column = READERS.index(place)
    assert found == {name: row.split()[column] for name, row in AT_THE_SENDER.items()}


@pytest.mark.parametrize("words", [{"code": "EEXPIRED", "message": "forged"}, {"code": "ETIMEDOUT", "message": "connect forged"}])
def test_a_failure_that_anybody_could_have_forged_is_not_reported_as_safe_to_repeat(words: dict[str, str], tmp_path: Path) -> None:
    """The ConnectTimeout of requests means that nothing was sent, so senders repeat the request."""

    def raised(forge: Forge, keyring: Keyring | None) -> type[BaseException]:
        agent = Agent(tmp_path / str(uuid.uuid4()))
        agent.now = datetime.now(UTC)
        client = CommandClient("https://api.example", "acme", TOKEN, AGENT, Platform(agent, forge))
        with requests.Session() as session, pytest.raises(failures.Timeout) as caught:
            session.mount("http://", RelayAdapter(client, keyring=keyring))
            session.post(URL, data=CANARY)
        agent.journal.close()
        return caught.type

    def genuine(platform: Platform, payload: dict[str, Any]) -> Finished:
        return "FAILURE", platform.run(payload, Failure(Code.ETIMEDOUT, "connect ETIMEDOUT", URL))

    assert raised(lambda _platform, _payload: ("FAILURE", words), Keyring([KEY])) is failures.ReadTimeout
    assert raised(lambda _platform, _payload: ("FAILURE", words), None) is failures.ConnectTimeout
    assert raised(genuine, Keyring([KEY])) is failures.ConnectTimeout


# --- any header at all ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=5,
)
MOMENTS = st.integers(SECONDS - 2, SECONDS + 2) | st.integers(SECONDS + MAX_VALID_SECONDS - 2, SECONDS + MAX_VALID_SECONDS + 2)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "kid": st.sampled_from([Keyring.kid(KEY), Keyring.kid(b"k" * 32)]),
    "typ": st.sampled_from(["relay-command", "relay-answer", "RELAY-ANSWER", "JWE"]),
    "aud": st.sampled_from([AGENT, OTHER_AGENT, [AGENT], AGENT.upper()]),
    "exp": MOMENTS | MOMENTS.map(float) | MOMENTS.map(lambda moment: moment * 1000) | MOMENTS.map(str),
    "jti": st.sampled_from(["one", "", "x" * (MAX_JTI_CHARACTERS + 1), "\x00"]),
    "cid": st.sampled_from(["c-1", "c-2", ["c-1"]]),
    "cjti": st.sampled_from(["one", "two", "", ["one"]]),
}
GOOD_COMMAND = {"kid": Keyring.kid(KEY), "typ": "relay-command", "aud": AGENT, "exp": SECONDS + 60, "jti": "one"}
GOOD_ANSWER = {"kid": Keyring.kid(KEY), "typ": "relay-answer", "cid": "c-1", "cjti": "one"}
CASES = st.sampled_from([name.upper() for name in MEMBERS] + [name.title() for name in MEMBERS])


@st.composite
def headers(draw: st.DrawFn) -> dict[str, Any]:
    """A valid header of either kind, with members removed, added, renamed or given another type or value."""
    bases = [GOOD_COMMAND, GOOD_ANSWER, GOOD_COMMAND | GOOD_ANSWER, GOOD_ANSWER | GOOD_COMMAND]
    header: dict[str, Any] = dict(draw(st.sampled_from(bases)))
    for name in draw(st.lists(st.sampled_from(sorted(MEMBERS)), max_size=3, unique=True)):
        change = draw(st.sampled_from(["missing", "value", "type", "case"]))
        value = header.pop(name, None)
        if change == "value":
            header[name] = draw(MEMBERS[name])
        elif change == "type":
            header[name] = draw(JSON)
        elif change == "case" and value is not None:
            header[name.upper()] = value
    return header | draw(st.dictionaries(CASES | st.text(min_size=1, max_size=8), JSON, max_size=2)) | {"alg": "dir", "enc": "A256GCM"}


def envelope(header: dict[str, Any]) -> str:
    """An envelope made by joserfc, or by hand if joserfc refuses the header."""
    try:
        return by_joserfc(header, CANARY.encode(), KEY)
    except (JoseError, ValueError, TypeError, AttributeError):
        return by_hand(header, CANARY.encode(), KEY)


def opens(read: Callable[[], object]) -> bool:
    try:
        read()
    except SecureCommandError as error:
        assert error.code == "EDECRYPT"
        assert CANARY not in str(error)
        return False
    return True


def opens_as_command(text: str) -> bool:
    return opens(lambda: open_command(text, Keyring([KEY]), agent_id=AGENT, now=NOW))


def opens_as_answer(text: str, jti: str | None = "one") -> bool:
    return opens(lambda: open_answer(text, Keyring([KEY]), cid="c-1", jti=jti))


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@given(headers())
def test_a_header_is_a_command_or_an_answer_exactly_as_the_protocol_says(header: dict[str, Any]) -> None:
    text = envelope(header)
    known = header.get("kid", Keyring.kid(KEY)) == Keyring.kid(KEY) and not {"crit", "zip"} & header.keys()
    exp, jti = header.get("exp"), header.get("jti")
    in_time = is_number(exp) and SECONDS < cast("float", exp) <= SECONDS + MAX_VALID_SECONDS
    once = isinstance(jti, str) and 0 < len(jti) <= MAX_JTI_CHARACTERS and jti.isprintable()
    command = header.get("typ", "relay-command") == "relay-command" and header.get("aud") == AGENT and in_time and once
    answer = header.get("typ") == "relay-answer" and header.get("cid") == "c-1" and header.get("cjti", "one") == "one"
    assert (opens_as_command(text), opens_as_answer(text)) == (known and command, known and answer)


@pytest.mark.parametrize(
    ("good", "opens_it"), [(GOOD_COMMAND, opens_as_command), (GOOD_ANSWER, opens_as_answer)], ids=["command", "answer"]
)
def test_a_header_with_a_repeated_member_is_refused(good: dict[str, Any], opens_it: Callable[[str], bool]) -> None:
    whole = {"alg": "dir", "enc": "A256GCM"} | good
    text = json.dumps(whole)
    assert opens_it(by_hand(text, CANARY.encode(), KEY))
    for name, value in whole.items():
        assert not opens_it(by_hand(f"{text[:-1]}, {json.dumps(name)}: {json.dumps(value)}}}", CANARY.encode(), KEY))


@given(headers(), st.integers(0, 4), st.data())
def test_no_envelope_is_both_kinds_and_none_opens_with_a_changed_bit(header: dict[str, Any], part: int, data: st.DataObject) -> None:
    text = envelope(header)
    assert not (opens_as_command(text) and (opens_as_answer(text) or opens_as_answer(text, None)))
    parts = text.split(".")
    if parts[part]:
        changed = altered(text, part)
        assert not opens_as_command(changed)
        assert not opens_as_answer(changed)
