"""The Flask app with every route of the sandbox.

This module owns how routes and error handlers are put together. It must not hold rules of the platform.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from flask import Blueprint, Flask, Response, render_template, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException, InternalServerError, NotFound, default_exceptions

from relay_agent.sandbox.forms import ApiError
from relay_agent.sandbox.rest.agent_routes import fail
from relay_agent.sandbox.rest.front import CONTROL
from relay_agent.sandbox.rest.same_origin import secure

_log = logging.getLogger(__name__)
# Paths of the APIs, which answer errors as JSON; all others answer them as pages.
_API = ("/v1/", "/internal", "/api/", CONTROL)


class _Json(DefaultJSONProvider):
    """Keeps the order of keys."""

    sort_keys = False


def build_app(blueprints: Iterable[Blueprint]) -> Flask:
    """Return the app with these routes."""
    app = Flask("relay_agent.sandbox", static_folder=None, template_folder="templates")
    app.json = _Json(app)
    app.url_map.strict_slashes = False
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    app.register_error_handler(ApiError, _api_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)
    return app


def _api_error(error: ApiError) -> tuple[Response, int] | Response:
    if request.path.startswith(_API):
        return fail(error)
    return _problem(default_exceptions.get(error.status, InternalServerError)(error.message))


def _http_error(error: HTTPException) -> tuple[Response, int] | Response | HTTPException:
    if request.path.startswith(_API):
        return fail(error)
    # A redirect is an exception too.
    return _problem(error) if error.code is not None and error.code >= 400 else error


def _unexpected(error: Exception) -> tuple[Response, int] | Response:
    _log.error("the sandbox could not answer %s %s", request.method, request.path, exc_info=error)
    return _api_error(ApiError(500, "An internal server error occurred"))


def _problem(error: HTTPException) -> Response:
    """Return a page that says what is wrong, with links to the other pages."""
    words = "There is no such page in this sandbox." if error.description == NotFound.description else error.description
    page = render_template("problem.html", code=error.code, name=error.name, words=words)
    # Only the text of the error's own response is replaced, so that a 405 keeps its `Allow`.
    response = Response(page, error.code, [header for header in error.get_headers() if header[0].lower() != "content-type"], "text/html")
    return secure(response)
