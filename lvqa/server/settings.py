"""The settings of a server: what it serves, to whom, and how much of it."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from lvqa.config import Config
from lvqa.index import Store
from lvqa.places import local_folder
from lvqa.records import LvqaError

MIN_TOKEN_CHARACTERS = 16
"""A shorter token could be guessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """All that decides what a server does; it is safe as it is by default."""

    config: Config
    """The settings of the pipeline."""
    paths: tuple[Path, ...] = ()
    """The folders and the files that are served, with the folders' subfolders. Nothing outside them is read."""
    has_model: bool = True
    """Whether a model is loaded; without one, runs can be seen and nothing can be asked."""
    runs: tuple[Path, ...] = ()
    """Run folders of `lvqa eval`, and folders of such folders."""
    host: str = "127.0.0.1"
    """The address to listen at; another one than this machine's own needs a token."""
    port: int = 8765
    token: str | None = field(default=None, repr=False)
    """Who knows it may ask; None: whoever reaches the address."""
    host_names: tuple[str, ...] = ()
    """Further names under which the server is reached."""
    origins: tuple[str, ...] = ()
    """Origins of other pages ("https://chat.example.org") that may call it from a browser."""
    allow_urls: bool = False
    """Whether videos may be fetched from public addresses."""
    max_upload_mib: int = 4096
    """The bound on a file that is uploaded or fetched."""
    max_waiting: int = 64
    """So many questions wait at most; further ones are refused until one is answered."""
    workers: int = 0
    """So many processes on Ray hold the model; 0: this one does."""
    ray_address: str | None = None
    """The Ray cluster of the workers; None: RAY_ADDRESS, or this machine."""
    gpus_per_worker: float = 0
    """The share of a GPU that each worker has."""
    log_requests: bool = False
    """Whether each request is logged, by method, path and status."""

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < MIN_TOKEN_CHARACTERS:
            raise LvqaError(
                f"the token has {len(self.token)} characters; it must have {MIN_TOKEN_CHARACTERS} or more, "
                f"for example {secrets.token_urlsafe(24)}"
            )
        if self.token is None and not self.is_local:
            raise LvqaError(
                f"host {self.host!r} can be reached from other machines, which needs a token: "
                "--token TOKEN, or LVQA_TOKEN in the environment"
            )
        if self.ray_address is not None and not self.workers:
            raise LvqaError("workers must be at least 1 with a ray_address; got 0 (--workers N)")
        for path in self.paths:
            if not path.exists():
                raise LvqaError(f"{path}: there is no such file or folder to serve")

    @property
    def is_local(self) -> bool:
        """Whether the address can be reached from this machine alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def uploads(self) -> Path:
        """The folder of files that were uploaded or fetched."""
        return local_folder(Store(self.config.store.folder).folder) / "uploads"

    @property
    def max_upload_bytes(self) -> int:
        """The bound on a file that is uploaded or fetched."""
        return self.max_upload_mib << 20
