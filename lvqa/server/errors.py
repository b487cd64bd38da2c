"""How the server says no: one line of JSON, in the form that OpenAI's clients read."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from lvqa.records import LvqaError, shorten

_log = logging.getLogger(__name__)

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""Status -> what OpenAI's API calls the kind of error; others are `invalid_request_error`."""

SOURCES = (("body",), ("query",), ("path",))
"""Where a field of a request may stand, as the place of its fault begins."""
MAX_LOGGED_FRAMES = 6
"""So many places of a call stack are logged."""


class ApiError(Exception):
    """A request that is refused, with its status and one line."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


def error_json(status: int, message: str) -> dict[str, Any]:
    """Return an error as JSON."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": " ".join(message.split()), "type": kind, "param": None, "code": status}}


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error as a response."""
    return JSONResponse(error_json(status, message), status, headers)


def describe(error: Exception) -> tuple[int, str]:
    """Return status and line of an error; of a bug only where it is, since its message may have private content."""
    if isinstance(error, ApiError):
        return error.status, error.message
    if isinstance(error, LvqaError):
        return 400, str(error)
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail)
    if isinstance(error, RequestValidationError | ValidationError):
        return 400, _describe_field(error.errors()[0])
    if isinstance(error, ClientDisconnect):
        return 499, "the client went away"
    frames = traceback.extract_tb(error.__traceback__)[-MAX_LOGGED_FRAMES:]
    places = ", ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    _log.error("a bug: %s at %s", type(error).__name__, places)
    return 500, f"internal error ({type(error).__name__}); the server's log says where"


def add_handlers(app: FastAPI) -> None:
    """Have all errors of an application answered in one form."""

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        status, message = describe(error)
        return error_response(status, message, error.headers if isinstance(error, ApiError) else None)

    for kind in (ApiError, LvqaError, HTTPException, RequestValidationError, ValidationError, ClientDisconnect):
        app.add_exception_handler(kind, refuse)


def _describe_field(first: Mapping[str, Any]) -> str:
    """Return what is wrong with a field of a request, in one line."""
    place = first["loc"][1:] if first["loc"][:1] in SOURCES else first["loc"]
    name = ".".join(map(str, place))
    got = f", got {shorten(first['input'])}" if isinstance(first.get("input"), str | int | float) else ""
    return f"{name or 'the request'}: {first['msg']}{got}"
