"""Fetch a video from a public address, if the server may: never from a private one, however it is named."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from lvqa.records import shorten
from lvqa.server.attachments import UploadedFile, upload_name
from lvqa.server.errors import ApiError
from lvqa.server.settings import ServerSettings

MAX_REDIRECTS = 5
MAX_SECONDS = 600.0
"""A file may take so long in all."""
SILENCE_SECONDS = 15.0
"""A host that is silent for so long is given up."""
CHUNK_BYTES = 1 << 20
PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)


async def fetch(address: str, settings: ServerSettings) -> Path:
    """Fetch a file into the folder of uploads, and return its path.

    Raises:
        ApiError: The server may not, the address is private or no video's, or the host fails.
    """
    if not settings.allow_urls:
        raise ApiError(403, "videos are not fetched from addresses here; `lvqa serve --allow-urls` allows it")
    name = upload_name(unquote(_checked(address).path))
    file = UploadedFile(settings.uploads, name, max_bytes=settings.max_upload_bytes)
    return await file.write(_in_thread(_chunks(address)))


async def _in_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


def _chunks(address: str) -> Iterator[bytes]:
    """Yield the content at an address; each redirect is checked anew."""
    deadline = time.monotonic() + MAX_SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        url = _checked(address)
        try:
            with closing(_connect(url)) as connection:
                path = (url.path or "/") + (f"?{url.query}" if url.query else "")
                connection.request("GET", path, headers={"User-Agent": "lvqa", "Accept": "video/*,*/*"})
                response = connection.getresponse()
                location = response.headers.get("location")
                if response.status in REDIRECTS and location:
                    address = urljoin(address, location)
                    continue
                if response.status != 200:
                    raise ApiError(502, f"{shorten(address)} answers with status {response.status}")
                while chunk := response.read(CHUNK_BYTES):
                    if time.monotonic() > deadline:
                        raise ApiError(504, f"{shorten(address)} takes longer than {MAX_SECONDS:g} s")
                    yield chunk
                return
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(502, f"{shorten(address)} can't be fetched: {error or type(error).__name__}") from error
    raise ApiError(502, f"{shorten(address)} redirects more than {MAX_REDIRECTS} times")


def _checked(address: str) -> SplitResult:
    """Return the parts of an address of the web; ApiError for any other."""
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError:
        raise ApiError(400, f"{shorten(address)} is not an address") from None
    if url.scheme not in PORTS or not url.hostname or url.username is not None or port == 0:
        raise ApiError(400, f"{shorten(address)}: expected http://HOST/... or https://HOST/..., without a password")
    if any(ord(c) <= 32 or ord(c) == 127 for c in address):
        raise ApiError(400, f"{shorten(address)} has characters that no address has")
    return url


def _connect(url: SplitResult) -> http.client.HTTPConnection:
    """Return a connection to the very address that was checked, so that a second look-up can't change it."""
    host, port = url.hostname or "", url.port or PORTS[url.scheme]
    connection = socket.create_connection((public_address(host, port), port), SILENCE_SECONDS)
    client: http.client.HTTPConnection
    if url.scheme == "https":
        client = http.client.HTTPSConnection(host, port, timeout=SILENCE_SECONDS)
        connection = ssl.create_default_context().wrap_socket(connection, server_hostname=host)
    else:
        client = http.client.HTTPConnection(host, port, timeout=SILENCE_SECONDS)
    client.sock = connection
    return client


def public_address(host: str, port: int) -> str:
    """Return the first address of a host, all of which must be public.

    Raises:
        ApiError: One of them is private, of this machine, or reserved.
        OSError: Nobody knows the host.
    """
    found_addresses = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found_addresses:
        ip = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None) or ip
        if not (ip.is_global and mapped.is_global) or ip.is_multicast:
            raise ApiError(403, f"{shorten(host)} is not a public host, so nothing is fetched from it")
    return found_addresses[0]
