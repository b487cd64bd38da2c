"""About how long the videos of a run are, before any worker has opened one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from lvqa.places import RemotePath
from lvqa.workers import Pool

STALL_SECONDS = 30.0
"""How long a header may take."""
BYTES_PER_SECOND = 125_000
"""What a second of video takes, where no header of a run says more."""


def video_lengths(paths: Sequence[Path]) -> dict[Path, float]:
    """Return about how many seconds each video has: what its header says, or by its size what those of others say.

    Headers are read in a child process, since FFmpeg may crash at a damaged file. Of a file elsewhere the size is all
    that is known before it is fetched.
    """
    here = [path for path in paths if not isinstance(path, RemotePath)]
    with Pool[Path, float](_make_header_reader, workers=0, stall_seconds=STALL_SECONDS) as pool:
        declared = {outcome.item: outcome.value for outcome in pool.run(here)}
    seconds = {path: value for path, value in declared.items() if value}
    sizes = {path: _size(path) for path in paths}
    rate = statistics.median(sizes[path] / value for path, value in seconds.items()) if seconds else BYTES_PER_SECOND
    return {path: seconds.get(path) or sizes[path] / (rate or BYTES_PER_SECOND) for path in paths}


def _make_header_reader() -> Callable[[Path], float]:
    from lvqa.video import declared_seconds

    return declared_seconds


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
