"""The Flask app that carries every route of the sandbox.

This room owns how routes and errors come together. It must not hold rules of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from flask import Blueprint, Flask, Response, jsonify, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException

from relay_agent.sandbox.rest import fail
from relay_agent.sandbox.wire import ApiError

_log = logging.getLogger(__name__)
# Pages answer errors as pages; everything under these is an API.
_API = ("/v1/", "/internal", "/api/")


class _Json(DefaultJSONProvider):
    """What came in goes out in the same order."""

    sort_keys = False


def build_app(blueprints: Iterable[Blueprint]) -> Flask:
    """Put the routes together."""
    app = Flask("relay_agent.sandbox", static_folder=None, template_folder="templates")
    app.json = _Json(app)
    app.url_map.strict_slashes = False
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    app.register_error_handler(ApiError, fail)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)
    return app


def _http_error(error: HTTPException) -> tuple[Response, int] | HTTPException:
    return fail(error) if request.path.startswith(_API) else error


def _unexpected(error: Exception) -> tuple[Response, int]:
    _log.error("the sandbox could not answer %s %s", request.method, request.path, exc_info=error)
    return jsonify(ApiError(500, "An internal server error occurred").to_json()), 500
