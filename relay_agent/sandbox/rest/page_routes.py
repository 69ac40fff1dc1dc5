"""The sandbox's web pages: agents, commands, and a form to send a command.

This module owns the pages' routes. It must not know how commands are delivered or who may use the pages: `same_origin` decides. The
pages work without scripts; the only one refreshes what is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response as BaseResponse

from relay_agent.core.clock import iso
from relay_agent.sandbox.agents import Agent, Agents
from relay_agent.sandbox.commands import STATUSES, Command, Commands, Search
from relay_agent.sandbox.forms import ApiError, Json
from relay_agent.sandbox.rest import page_views
from relay_agent.sandbox.rest.command_routes import ACTIONS, CommandRoutes, Platform
from relay_agent.sandbox.rest.same_origin import check_form, secure
from relay_agent.sandbox.rest.sender_code import sender_code

_LISTED = 200
_LATEST = 10
_DEFAULT_TIMEOUT = 30.0
_MAX_TIMEOUT = 900.0
_GRACE_SECONDS = 60


class FormError(Exception):
    """A field of the form is wrong: `field` is its name, `problem` says why."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field
        self.problem = problem


class Pages:
    """The pages of one sandbox as a Flask blueprint."""

    def __init__(self, agents: Agents, commands: Commands, routes: CommandRoutes, platform: Platform, now: Callable[[], datetime]) -> None:
        self._agents = agents
        self._commands = commands
        self._routes = routes
        self._platform = platform
        self._now = now
        self.blueprint = self._blueprint()

    def _blueprint(self) -> Blueprint:
        pages = Blueprint("pages", "relay_agent.sandbox", static_folder="static", static_url_path="/static")
        pages.before_request(check_form)
        pages.after_request(secure)
        pages.get("/")(self.overview)
        pages.get("/commands", endpoint="list")(self.listing)
        pages.get("/commands/<command_id>")(self.detail)
        pages.post("/commands/<command_id>/again")(self.again)
        pages.get("/send")(self.form)
        pages.post("/send")(self.send)
        pages.post("/agents/<agent_id>/enabled")(self.enabled)
        pages.post("/agents/<agent_id>/queue")(self.queue)
        pages.get("/agents/<agent_id>/purge")(self.ask_to_purge)
        pages.post("/agents/<agent_id>/purge")(self.purge)
        return pages

    def overview(self) -> str:
        """Show the agents, and the latest commands."""
        now = self._now()
        agents = [page_views.agent_line(agent, now) for agent in self._agents.all()]
        return render_template("overview.html", agents=agents, commands=self._lines(Search(), _LATEST))

    def listing(self) -> str:
        """Show the commands, all or those with one status, the newest first."""
        status = request.args.get("status", "")
        search = Search(statuses=frozenset({status} if status in STATUSES else ()))
        return render_template("commands.html", commands=self._lines(search, _LISTED), statuses=STATUSES, status=status, listed=_LISTED)

    def detail(self, command_id: str) -> str:
        """Show one command: request, response, history."""
        command, now = self._known(command_id), self._now()
        return render_template(
            "command.html",
            command=command,
            line=self._line(command),
            expires=page_views.moment(command.expires_at, now),
            sent=page_views.request_side(command),
            answered=page_views.response_side(command),
            history=page_views.history_lines(command, now),
            repeatable=page_views.repeatable(command),
            editable=page_views.form_fields(command) is not None,
            code=sender_code(command, request.host_url.rstrip("/")),
        )

    def again(self, command_id: str) -> BaseResponse:
        """Send the same command once more, valid for as long, and redirect to the new one."""
        command = self._known(command_id)
        if not page_views.repeatable(command):
            raise BadRequest("A secure command can be used only once: its sender must seal a new one.")
        body = {"targetId": command.target_id, "action": command.action, "payload": command.payload, "metadata": command.metadata}
        lifetime = command.expires_at - command.created_at
        repeated = self._routes.parse({**body, "payloadDelivery": command.delivery, "expiresAt": iso(self._now() + lifetime)})
        repeated.group = command.group
        self._platform.dispatch(repeated)
        return redirect(url_for("pages.detail", command_id=repeated.id), 303)

    def form(self) -> str:
        """Show the form, empty or filled in with what a command holds."""
        like = request.args.get("like")
        fields = page_views.form_fields(self._known(like)) if like else None
        return self._form(fields or {"target": request.args.get("target", "")})

    def send(self) -> BaseResponse | tuple[str, int]:
        """Send a command and redirect to it, or show the form with what is wrong."""
        fields = request.form.to_dict()
        try:
            command = self._command(fields)
            self._platform.dispatch(command)
        except FormError as error:
            return self._form(fields, error), 400
        except ApiError as error:
            return self._form(fields, FormError("", "; ".join([error.message, *error.validation]))), 400
        return redirect(url_for("pages.detail", command_id=command.id), 303)

    def enabled(self, agent_id: str) -> BaseResponse:
        """Enable or disable an agent's connection."""
        self._agents.enable(self._agent(agent_id), request.form.get("enabled") == "true")
        return redirect(url_for("pages.overview"), 303)

    def queue(self, agent_id: str) -> BaseResponse:
        """Enable or disable an agent's queue."""
        self._agents.enable_queue(self._agent(agent_id), request.form.get("enabled") == "true")
        return redirect(url_for("pages.overview"), 303)

    def ask_to_purge(self, agent_id: str) -> str:
        """Ask before an agent's queue is emptied."""
        agent = self._agent(agent_id)
        return render_template("purge.html", agent=agent, waiting=len(self._commands.waiting(agent.id)))

    def purge(self, agent_id: str) -> BaseResponse:
        """Empty an agent's queue."""
        self._platform.purge(self._agent(agent_id).id)
        return redirect(url_for("pages.list"), 303)

    def _form(self, fields: Mapping[str, str], error: FormError | None = None) -> str:
        return render_template("send.html", agents=self._agents.all(), actions=ACTIONS[:2], fields=fields, error=error)

    def _command(self, fields: Mapping[str, str]) -> Command:
        timeout = _timeout(fields.get("timeout", ""))
        expires_at = self._now() + timedelta(seconds=timeout + _GRACE_SECONDS)
        return self._routes.parse(
            {
                "targetId": fields.get("target", ""),
                "action": fields.get("action") or ACTIONS[0],
                "expiresAt": iso(expires_at),
                "payload": _payload(fields, timeout),
            }
        )

    def _known(self, command_id: str) -> Command:
        command = self._commands.get(command_id)
        if command is None:
            raise NotFound("There is no such command in this sandbox.")
        return command

    def _agent(self, agent_id: str) -> Agent:
        agent = self._agents.get(agent_id)
        if agent is None:
            raise NotFound("There is no such agent in this sandbox.")
        return agent

    def _lines(self, search: Search, limit: int) -> list[page_views.CommandLine]:
        return [self._line(command) for command in search.run(self._commands.all())[:limit]]

    def _line(self, command: Command) -> page_views.CommandLine:
        return page_views.command_line(command, self._agents.get(command.target_id), self._now())


def _payload(fields: Mapping[str, str], timeout: float) -> Json:
    url = fields.get("url", "").strip()
    if not url:
        raise FormError("url", "Give the URL to call, such as https://lims.lab.example/api.")
    payload: dict[str, Any] = {"method": fields.get("method", "").strip() or "GET", "url": url, "timeout": timeout}
    payload["headers"] = _headers(fields.get("headers", ""))
    if fields.get("body"):
        payload["body"] = {"mode": "raw", "raw": fields["body"].replace("\r\n", "\n")}
    if fields.get("ignore_tls_certificate"):
        payload["ignore_tls_certificate"] = True
    return payload


def _headers(text: str) -> list[Json]:
    headers = []
    for number, line in enumerate(text.splitlines(), 1):
        name, colon, value = line.partition(":")
        if line.strip() and not (colon and name.strip()):
            raise FormError("headers", f"Line {number} is not a header: write Name: value.")
        if line.strip():
            headers.append({name.strip(): value.strip()})
    return headers


def _timeout(text: str) -> float:
    try:
        seconds = float(text or _DEFAULT_TIMEOUT)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise FormError("timeout", f"The timeout must be a number of seconds up to {_MAX_TIMEOUT:g}.")
    return int(seconds) if seconds.is_integer() else seconds
