"""What every request passes first: who may ask, from where, and how much may be sent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import logging
import secrets
import socket
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lvqa.server.errors import describe, error_response
from lvqa.server.pages import is_public
from lvqa.server.settings import ServerSettings

_log = logging.getLogger(__name__)

COOKIE = "lvqa"
"""The name of the cookie that pages have in place of the token."""
LOGIN = "/api/login"
"""Here a page changes the token into the cookie."""
UPLOADS = ("/api/uploads/", "/v1/files")
"""A request to one of these may have a body as large as an upload."""
MAX_BODY_BYTES = 32 << 20
"""Any other request may have so large a body: a question with a picture or a short video in it."""
MAX_SILENCE_SECONDS = 30.0
"""A body that pauses for so long is given up."""
LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFETY_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


def cookie_value(token: str) -> str:
    """Return what stands in the cookie of one who knows the token: it does not give the token away."""
    return hmac.new(token.encode(), b"lvqa cookie", hashlib.sha256).hexdigest()


def is_same_secret(given: str, secret: str) -> bool:
    """Compare two secrets in constant time."""
    return secrets.compare_digest(given.encode("utf-8", "surrogateescape"), secret.encode())


class Guard:
    """Lets through what may come in, bounds it, and adds the headers that keep browsers safe."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings
        self._names = {*LOCAL_NAMES, settings.host.lower(), *(name.lower() for name in settings.host_names)}
        if not settings.is_local:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # there are no web sockets here
            return await send({"type": "websocket.close", "code": 1008})
        headers, started = Headers(scope=scope), time.perf_counter()
        sender = _Sender(send, is_public=bool(self._settings.origins))
        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                status, message = refusal
                extra = {"www-authenticate": "Bearer"} if status == 401 else None
                await error_response(status, message, extra)(scope, receive, sender)
            else:
                bounded = _BoundedBody(receive, self._max_body(scope["path"]))
                await self._app(scope, bounded, sender)
        except Exception as error:
            status, message = describe(error)
            if not sender.status:
                with contextlib.suppress(OSError):
                    await error_response(status, message)(scope, receive, sender)
        finally:
            if self._settings.log_requests:
                seconds = time.perf_counter() - started
                _log.info("%s %s %d %.3f s", scope["method"], scope["path"], sender.status, seconds)

    def _max_body(self, path: str) -> int:
        return self._settings.max_upload_bytes + (1 << 20) if path.startswith(UPLOADS) else MAX_BODY_BYTES

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return why a request is refused, or None."""
        if not self._is_known_host(headers.get("host", "")):
            return 403, "this Host is not served here; `lvqa serve --host-name NAME` adds a name"
        if not self._is_own_origin(headers, scope["method"]):
            return 403, "requests from other sites' pages are refused; `lvqa serve --allow-origin URL` allows one"
        if not self._is_known_user(scope, headers):
            return 401, "a token is needed: send the header 'Authorization: Bearer TOKEN'"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body(scope["path"]):
            return 413, f"the body is too large: {self._max_body(scope['path']) >> 20} MiB are allowed here"
        return None

    def _is_known_host(self, host: str) -> bool:
        """Return whether the request was sent to a name of this server: a foreign name may be rebound to it by DNS."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._names:
            return True
        if self._settings.is_local:
            return False
        with contextlib.suppress(ValueError):  # an address is nobody's to rebind
            return bool(ipaddress.ip_address(name))
        return False

    def _is_own_origin(self, headers: Headers, method: str) -> bool:
        """Return whether a request comes from no page at all, a page of this server, or an origin that is allowed."""
        origin = headers.get("origin")
        if origin is not None:
            return origin in self._settings.origins or origin.partition("://")[2] == headers.get("host")
        is_reading = method in ("GET", "HEAD", "OPTIONS")
        return is_reading or headers.get("sec-fetch-site", "none") in ("none", "same-origin")

    def _is_known_user(self, scope: Scope, headers: Headers) -> bool:
        token = self._settings.token
        if token is None or scope["path"] == LOGIN or is_public(scope["path"]):
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and is_same_secret(given.strip(), token):
            return True
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return is_same_secret(cookie, cookie_value(token))


class _BoundedBody:
    """Receives a body up to a size, and not more slowly than a client that is there would send it."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive, self._left, self._is_whole = receive, max_bytes, False

    async def __call__(self) -> Message:
        if self._is_whole:  # what comes now is that the client is gone
            return await self._receive()
        try:
            async with asyncio.timeout(MAX_SILENCE_SECONDS):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"the body paused for {MAX_SILENCE_SECONDS:g} s") from None
        self._left -= len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._left < 0:
            raise HTTPException(413, "the body is too large")
        return message


class _Sender:
    """Sends a response with the headers that keep browsers safe, and remembers its status."""

    def __init__(self, send: Send, *, is_public: bool) -> None:
        self._send, self.status = send, 0
        self._added = {**SAFETY_HEADERS, "cross-origin-resource-policy": "cross-origin" if is_public else "same-origin"}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(self._added)
            headers.setdefault("cache-control", "no-store")
        await self._send(message)
