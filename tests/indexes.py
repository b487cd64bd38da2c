"""What the tests of indexes share: indexes made at random, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvqa.index import ClipIndex, IndexFileError, Store
from lvqa.records import Clip, Video

VIDEO = Video(Path("/videos/a video.mp4"), "0123456789abcdef", 90.0, 48, 64, 25.0)
SPEC = {"grid": {"frames_per_second": 1.0}, "model": "tiny", "layer": -1, "index_format": 2}


def make_index(
    n: int = 6, dim: int = 8, seed: int = 0, *, video_id: str = VIDEO.id, spec: Mapping[str, Any] = SPEC
) -> ClipIndex:
    """Return an index of n clips whose vectors are random, and not of unit length."""
    vectors = np.random.default_rng(seed).normal(size=(n, dim)) * 7
    clips = [Clip(video_id, 16.0 * i, 16.0 * i + 16) for i in range(n)]
    return ClipIndex.of(clips, vectors, video_id=video_id, spec=spec, model="tiny")


def save_small(folder: Path) -> tuple[Store, ClipIndex, Path]:
    """Save a small index into a store in this folder; return the store, the index and its file."""
    store, index = Store(folder), make_index(3, 4)
    path = store.save(index, VIDEO).path
    assert path is not None
    return store, index, path


def load(store: Store) -> ClipIndex | None:
    """Return the index of VIDEO under SPEC."""
    return store.load(VIDEO.id, SPEC)


def is_same(one: ClipIndex, two: ClipIndex) -> bool:
    """Return whether two indexes are the same to the bit, wherever they are stored."""
    return (
        one.clips == two.clips
        and (one.video_id, one.spec) == (two.video_id, two.spec)
        and one.vectors.dtype == two.vectors.dtype == np.float32
        and one.vectors.tobytes() == two.vectors.tobytes()
        and one.halves.tobytes() == two.halves.tobytes()
    )


def files_in(folder: Path) -> set[str]:
    """Return the names of all that is in a folder and is no folder itself."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def refusal(call: Callable[[], object]) -> str:
    """Return the message with which a call refuses an index file: one line."""
    with pytest.raises(IndexFileError) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)
