"""The hosts of files that lie elsewhere: what an object is like, its content, the list of a folder."""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from lvqa.records import LvqaError

CONNECT_SECONDS, SILENCE_SECONDS, TRIES = 5.0, 20.0, 3
"""A host has so long to accept a connection, and may be silent for so long; then it is tried again, so often in all."""
CHUNK_BYTES = 8 << 20
"""So much of an object is in memory as it is fetched."""

VIDEO_PAGES = (
    *("youtube.com", "youtu.be", "vimeo.com", "bilibili.com", "dailymotion.com", "twitch.tv", "tiktok.com"),
    *("facebook.com", "instagram.com", "x.com", "twitter.com"),
)
"""Sites whose addresses lead to pages with a player, not to files."""


class PlaceError(LvqaError, OSError):
    """A file elsewhere that can't be read or written: one line, and an errno that tells the kinds apart."""

    def __str__(self) -> str:
        return " ".join(str(self.args[1] if len(self.args) > 1 else self.args[0]).split())


class MissingObjectError(PlaceError, FileNotFoundError):
    """There is no such object."""


@dataclass(frozen=True, slots=True)
class ObjectState:
    """An object as it is now: one that was changed has another state."""

    size: int
    """In bytes."""
    modified_ns: int
    """When it was written, since 1970; 0 if the host does not say."""
    tag: str
    """What the host tells this content from others by (ETag, generation); "" if it does not."""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that tell this state from others."""
        return hashlib.sha256(repr((self.size, self.modified_ns, self.tag)).encode()).hexdigest()[:16]


class Host(Protocol):
    """What the files of one place are asked for. Locations are URLs; errors are PlaceError."""

    def state(self, url: str) -> ObjectState:
        """Return what an object is like now; MissingObjectError if there is none."""
        ...

    def chunks(self, url: str) -> Iterator[bytes]:
        """Yield the content of an object."""
        ...

    def is_folder(self, url: str) -> bool:
        """Return whether there are objects below."""
        ...

    def list(self, url: str, *, recursive: bool) -> list[str]:
        """Return the URLs of the objects in a folder, sorted; with `recursive` those of its subfolders too."""
        ...

    def write(self, url: str, content: bytes) -> None:
        """Write an object in one step."""
        ...

    def delete(self, url: str) -> None:
        """Delete an object; MissingObjectError if there is none."""
        ...


class ObjectStorage:
    """Buckets of objects, through pyarrow's file systems."""

    def __init__(self, scheme: str, filesystem: Any) -> None:
        """Take a file system whose paths are BUCKET/KEY.

        Args:
            scheme: How its URLs begin.
            filesystem: A pyarrow.fs.FileSystem.
        """
        self._scheme, self._fs = scheme, filesystem

    def state(self, url: str) -> ObjectState:
        """Return what an object is like now, in one request."""
        with _one_line(url), self._fs.open_input_file(self._key(url)) as file:
            about = {key.lower(): _text(value) for key, value in (file.metadata() or {}).items()}
            tag = next((about[key] for key in ("etag", "generation", "versionid") if about.get(key)), "")
            return ObjectState(file.size(), _nanoseconds(about.get("last-modified") or about.get("updated")), tag)

    def chunks(self, url: str) -> Iterator[bytes]:
        """Yield the content of an object, in ranges that are tried again one by one."""
        with _one_line(url), self._fs.open_input_file(self._key(url)) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def is_folder(self, url: str) -> bool:
        """Return whether there are objects below."""
        from pyarrow.fs import FileType

        with _one_line(url):
            return bool(self._fs.get_file_info(self._key(url)).type == FileType.Directory)

    def list(self, url: str, *, recursive: bool) -> list[str]:
        """Return the URLs of the objects in a folder; none if there is no such folder."""
        from pyarrow.fs import FileSelector

        with _one_line(url):
            selector = FileSelector(self._key(url), recursive=recursive, allow_not_found=True)
            infos = self._fs.get_file_info(selector)
        prefix = url.removesuffix("/")[: len(url.removesuffix("/")) - len(self._key(url))]
        return sorted(prefix + info.path for info in infos if info.is_file)

    def write(self, url: str, content: bytes) -> None:
        """Write an object in one step."""
        with _one_line(url), self._fs.open_output_stream(self._key(url)) as stream:
            stream.write(content)

    def delete(self, url: str) -> None:
        """Delete an object."""
        with _one_line(url):
            self._fs.delete_file(self._key(url))

    def _key(self, url: str) -> str:
        """Return BUCKET/KEY; who asks stands before an @, as in pyarrow's own URLs."""
        return url.removeprefix(f"{self._scheme}://").removeprefix("anonymous@").removesuffix("/")


class Web:
    """Files behind https:// and http://, through fsspec. Nothing can be listed or written there."""

    def __init__(self, filesystem: Any) -> None:
        """Take a file system of fsspec whose paths are URLs."""
        self._fs = filesystem

    def state(self, url: str) -> ObjectState:
        """Return what a file is like now.

        Raises:
            PlaceError: The address leads to a page, or the host does not say how long the file is.
        """
        _refuse_page(url, is_page=_is_video_page(url))
        with _one_line(url):
            about = self._fs.info(url)
        _refuse_page(url, is_page=str(about.get("mimetype", "")).startswith("text/html"))
        if about.get("size") is None:
            raise PlaceError(errno.EINVAL, f"{url}: the host does not say how long the file is; download it first")
        changed = _nanoseconds(about.get("Last-Modified"))
        return ObjectState(int(about["size"]), changed, str(about.get("ETag") or about.get("Content-MD5") or ""))

    def chunks(self, url: str) -> Iterator[bytes]:
        """Yield the content of a file as it comes."""
        with _one_line(url), self._fs.open(url, "rb", block_size=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def is_folder(self, url: str) -> bool:
        """Return False: the web has no folders."""
        return False

    def list(self, url: str, *, recursive: bool) -> list[str]:
        """Refuse."""
        raise PlaceError(errno.EROFS, f"{url}: files on the web can't be listed; name each one")

    def write(self, url: str, content: bytes) -> None:
        """Refuse."""
        raise PlaceError(errno.EROFS, f"{url}: nothing can be written there; a store lies in a folder, s3:// or gs://")

    def delete(self, url: str) -> None:
        """Refuse."""
        self.write(url, b"")


def host_of(url: str) -> Host:
    """Return the host of a URL. Raises PlaceError if what it takes is not installed."""
    scheme, _, rest = url.partition("://")
    return _make_host(scheme, rest.partition("/")[0], os.getpid(), _environment())


def forget_hosts() -> None:
    """Have each host be made again, as in a new process."""
    _make_host.cache_clear()


def _environment() -> tuple[str, ...]:
    """Return what of the environment decides who asks whom: a host that was made under another one is not used."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID")
    return tuple(os.environ.get(name, "") for name in (*names, "AWS_PROFILE", "STORAGE_EMULATOR_HOST"))


@functools.lru_cache(maxsize=32)
def _make_host(scheme: str, bucket: str, process: int, environment: tuple[str, ...]) -> Host:
    """Make a host; another process, forked from this one, makes its own."""
    return HOSTS[scheme](bucket)


def _s3(bucket: str) -> Host:
    from pyarrow import fs

    is_anonymous, name = bucket.startswith("anonymous@"), bucket.removeprefix("anonymous@")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    with _one_line(f"s3://{name}"):
        options: dict[str, Any] = {
            "anonymous": is_anonymous,
            "region": region or ("us-east-1" if endpoint else fs.resolve_s3_region(name)),
            "connect_timeout": CONNECT_SECONDS,
            "request_timeout": SILENCE_SECONDS,
            "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
        }
        # pyarrow does not read the variables of the endpoint.
        return ObjectStorage("s3", fs.S3FileSystem(**options, **({"endpoint_override": endpoint} if endpoint else {})))


def _gs(bucket: str) -> Host:
    from pyarrow import fs

    with _one_line(f"gs://{bucket}"):
        limit = timedelta(seconds=TRIES * SILENCE_SECONDS)
        options: dict[str, Any] = {"anonymous": bucket.startswith("anonymous@"), "retry_time_limit": limit}
        if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
            url = urlsplit(emulator if "://" in emulator else f"http://{emulator}")
            options |= {"endpoint_override": url.netloc, "scheme": url.scheme, "anonymous": True}
        return ObjectStorage("gs", fs.GcsFileSystem(**options))


def _web(bucket: str) -> Host:
    if any(importlib.util.find_spec(name) is None for name in ("fsspec", "aiohttp")):
        raise PlaceError(errno.ENOPKG, "files behind https:// take the extra web: pip install 'lvqa[web]'")
    import aiohttp
    import fsspec

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
    options = {"client_kwargs": {"timeout": timeout, "trust_env": True}, "use_listings_cache": False}
    return Web(fsspec.filesystem("https", skip_instance_cache=True, **options))


HOSTS: Mapping[str, Callable[[str], Host]] = {"s3": _s3, "gs": _gs, "https": _web, "http": _web}
"""How a URL begins -> what makes the host of a bucket or a site there."""


@contextmanager
def _one_line(url: str) -> Iterator[None]:
    """Turn every error of the libraries inside the block into a PlaceError: one line that names the URL."""
    try:
        yield
    except PlaceError:
        raise
    except Exception as error:
        raise _place_error(url, error) from error


def _place_error(url: str, error: Exception) -> PlaceError:
    """Return what an error of a library says of a URL. The libraries tell the reasons apart by their texts alone."""
    if isinstance(error.__cause__, Exception):  # fsspec calls every failure a file that is not there
        error = error.__cause__
    text, status = f"{type(error).__name__}: {error}", getattr(error, "status", None)
    scheme = url.partition("://")[0]
    if isinstance(error, FileNotFoundError) or status == 404 or re.search("NO_SUCH_|NoSuch|HTTP 404", text):
        kind = "file" if scheme.startswith("http") else "object or bucket"
        return MissingObjectError(errno.ENOENT, f"{url}: there is no such {kind}")
    if isinstance(error, PermissionError) or status in (401, 403) or re.search(_DENIED, text):
        hint = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "gs": "GOOGLE_APPLICATION_CREDENTIALS"}
        advice = f"; set {hint[scheme]}, or say {scheme}://anonymous@... of a public one" if scheme in hint else ""
        return PlaceError(errno.EACCES, f"{url}: access is denied{advice}")
    reason = " ".join((str(error) or type(error).__name__).split())
    code = error.errno if isinstance(error, OSError) and (error.errno or 0) > 0 else errno.ETIMEDOUT
    return PlaceError(code, f"{url}: the host can't be reached, or fails ({reason[-160:]})")


_DENIED = (
    "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|HTTP 40[13]|Permanent error.*40[13]"
)


def _is_video_page(url: str) -> bool:
    site = (urlsplit(url).hostname or "").removeprefix("www.").removeprefix("m.")
    return site in VIDEO_PAGES or site.endswith(tuple(f".{page}" for page in VIDEO_PAGES))


def _refuse_page(url: str, *, is_page: bool) -> None:
    if is_page:
        raise PlaceError(
            errno.EINVAL, f"{url} is the address of a page; download its video first: yt-dlp -o video.mp4 {url}"
        )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _nanoseconds(date: str | None) -> int:
    """Return a date of a header since 1970, in either of the two forms; 0 for none."""
    if not date:
        return 0
    try:
        moment = datetime.fromisoformat(date) if date[:1].isdigit() else parsedate_to_datetime(date)
    except ValueError:
        return 0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000) * 1_000_000
