"""A video is known by its whole content, which is hashed once, and by nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import video_files
from PIL import Image

import lvqa.video.identity
from lvqa.image import read_image
from lvqa.records import Question
from lvqa.session import MediaKey
from lvqa.video import VideoError, inspect_video, store_metadata
from lvqa.video.identity import identify
from lvqa.video.metadata import keep_metadata, read_metadata

FRAME_BYTES = 160 * 96 * 3 // 2
NUM_FRAMES = 16 * 2**20 // FRAME_BYTES + 1
"""So many uncompressed frames take 16 MiB."""


def write_y4m(path: Path, change: Callable[[bytearray], None] = lambda _: None) -> Path:
    """Write 16 MiB of uncompressed video, whose pictures are `change`d."""
    frames = bytearray(bytes(range(240)) * (NUM_FRAMES * FRAME_BYTES // 240))
    change(frames)
    parts = [b"YUV4MPEG2 W160 H96 F25:1 Ip A1:1 C420jpeg\n"]
    for i in range(NUM_FRAMES):
        parts += [b"FRAME\n", frames[i * FRAME_BYTES : (i + 1) * FRAME_BYTES]]
    path.write_bytes(b"".join(parts))
    return path


def forget() -> None:
    """Forget what this process knows of files, as a new process does."""
    for cache in (identify, read_metadata, keep_metadata):
        cache.cache_clear()


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are as trusted as if the tests had waited for two seconds after each change."""
    monkeypatch.setattr(lvqa.video.identity, "SETTLED_NS", 0)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed."""
    names: list[str] = []
    file_digest = hashlib.file_digest

    def digest(file, *args):
        names.append(Path(file.name).name)
        return file_digest(file, *args)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    return names


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return video_files.write_video(tmp_path / "video.mp4", 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The store's folder."""
    path = tmp_path / "store"
    path.mkdir()
    return path


def id_in_new_process(path: Path, folder: Path | None) -> str:
    """Return the video's id as a new process with this store determines it, which keeps what it learns."""
    forget()
    video = inspect_video(path, metadata_folder=folder)
    if folder is not None:
        store_metadata(path, folder)
    return video.id


@pytest.mark.slow
@pytest.mark.parametrize("middle", [slice(8 << 20, 8 << 20 | 1), slice(9 << 20, 15 << 20)], ids=["a byte", "minutes"])
def test_two_videos_that_differ_anywhere_have_two_ids(tmp_path: Path, middle: slice) -> None:
    def darken(frames: bytearray) -> None:
        frames[middle] = bytes(b // 2 for b in frames[middle])

    first, second = write_y4m(tmp_path / "first.y4m"), write_y4m(tmp_path / "second.y4m", darken)
    assert first.stat().st_size == second.stat().st_size >= 16 << 20
    assert inspect_video(first).id != inspect_video(second).id


def test_a_file_that_was_finished_in_place_is_read_again(tmp_path: Path, folder: Path) -> None:
    """Its size and its time of change stay; the second half had been zeros."""

    def cut(frames: bytearray) -> None:
        frames[len(frames) // 2 :] = bytes(len(frames) - len(frames) // 2)

    whole = write_y4m(tmp_path / "whole.y4m")
    path = write_y4m(tmp_path / "download.y4m", cut)
    status = path.stat()
    half = id_in_new_process(path, folder)
    with path.open("r+b") as file:
        file.write(whole.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    now = path.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (status.st_size, status.st_mtime_ns, status.st_ino)
    in_this_process = inspect_video(path, metadata_folder=folder).id
    assert in_this_process == id_in_new_process(path, folder) == inspect_video(whole).id != half


def test_a_touched_copied_moved_or_renamed_file_keeps_its_id(video: Path, tmp_path: Path, folder: Path) -> None:
    expected = id_in_new_process(video, folder)
    assert len(expected) == 16 and int(expected, 16) >= 0
    os.utime(video, ns=(1, 1))
    assert inspect_video(video, metadata_folder=folder).id == id_in_new_process(video, folder) == expected
    copy = Path(shutil.copy(video, tmp_path / "copy.mkv"))
    assert id_in_new_process(copy, folder) == expected
    (tmp_path / "elsewhere").mkdir()
    moved = video.rename(tmp_path / "elsewhere" / "renamed.mp4")
    assert id_in_new_process(moved, folder) == expected
    other = video_files.write_video(video, 21)
    assert id_in_new_process(other, folder) != expected, "another file under the old name"


def test_a_known_file_is_not_hashed_again(video: Path, folder: Path, hashed: list[str]) -> None:
    first = id_in_new_process(video, folder)
    assert hashed == [video.name]
    for _ in range(2):
        assert id_in_new_process(video, folder) == first
    assert hashed == [video.name]
    os.utime(video)
    assert id_in_new_process(video, folder) == id_in_new_process(video, folder) == first
    assert hashed == [video.name] * 2, "a touched file is hashed once more, and then known again"
    twin = video.with_name("twin.mp4")
    shutil.copy(video, twin)
    twin.replace(video)
    assert id_in_new_process(video, folder) == first and len(hashed) == 3, "another inode"


def test_without_a_store_a_file_is_hashed_once_in_each_process(video: Path, hashed: list[str]) -> None:
    assert id_in_new_process(video, None) == inspect_video(video).id
    assert hashed == [video.name]
    id_in_new_process(video, None)
    assert hashed == [video.name] * 2


def test_a_file_is_hashed_when_its_id_is_first_used(video: Path, hashed: list[str]) -> None:
    first, second = inspect_video(video), inspect_video(video)
    assert first.duration_seconds and not hashed
    copy = pickle.loads(pickle.dumps(first))
    assert hashed == [video.name] and "id" in copy.__dict__ and isinstance(copy.__dict__["id"], str)
    assert first == second == copy and len({first, second, copy}) == 1
    assert first.id == hashlib.sha256(video.read_bytes()).hexdigest()[:16]
    assert dataclasses.replace(first, height=1).id == first.id
    assert hashed == [video.name]


def test_a_file_that_was_changed_before_its_id_was_used_is_noticed(video: Path) -> None:
    inspected = inspect_video(video)
    with video.open("ab") as file:
        file.write(b"more")
    with pytest.raises(VideoError, match=r"video.mp4: the file was changed after it was inspected; inspect it again"):
        _ = inspected.id
    assert inspect_video(video).id == hashlib.sha256(video.read_bytes()).hexdigest()[:16]
    video.unlink()
    with pytest.raises(VideoError, match="No such file"):
        _ = inspected.id


def test_reading_frames_needs_no_hash(video: Path, hashed: list[str]) -> None:
    """As in a worker, which gets a video that another one has inspected."""
    inspected = inspect_video(video)
    forget()
    hashed.clear()
    assert video_files.frame_numbers(video_files.read_pixels(inspected, [0.0, 0.4])[0]) == [0, 10]
    assert hashed == []


def test_the_hash_of_a_file_that_was_just_changed_is_not_kept(
    video: Path, folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system's clock may be too coarse to tell the next change from the last one."""
    monkeypatch.setattr(lvqa.video.identity, "SETTLED_NS", 3600 * 10**9)
    first = id_in_new_process(video, folder)
    assert id_in_new_process(video, folder) == first and len(hashed) == 2
    assert not list(folder.glob("*.identity.json"))


def test_a_picture_that_was_changed_in_place_is_read_again(tmp_path: Path) -> None:
    """Its size stays, and a program has set its time of modification back."""
    path = tmp_path / "picture.bmp"
    keys, values = set(), []
    for value in (10, 200):
        Image.new("RGB", (32, 32), (value, 0, 0)).save(path)
        os.utime(path, ns=(1, 1))
        values.append(int(read_image(path)[0, 0, 0]))
        keys.add(MediaKey.of(Question("", image=path)))
        time.sleep(0.05)  # longer than a step of the file system's clock
    assert values == [10, 200] and len(keys) == 2


def replace_in(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a list": lambda path: path.write_text("[1, 2]"),
    "deep": lambda path: path.write_text("[" * 60000),
    "large": lambda path: path.write_text(path.read_text() + " " * (1 << 20)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "no id": lambda path: replace_in(path, id=None),
    "another id": lambda path: replace_in(path, id="../../etc/passwd"),
    "another size": lambda path: replace_in(path, size=1),
    "another time of modification": lambda path: replace_in(path, modified_ns=1),
    "another time of change": lambda path: replace_in(path, changed_ns=1),
    "another inode": lambda path: replace_in(path, inode=1),
    "another path": lambda path: replace_in(path, path="/another"),
    "another format": lambda path: replace_in(path, identity_format=0),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_kept_of_another_file_or_damaged_does_not_count(
    damage: Callable[[Path], object], video: Path, folder: Path, hashed: list[str]
) -> None:
    first = id_in_new_process(video, folder)
    (path,) = folder.glob("*.identity.json")
    damage(path)
    assert id_in_new_process(video, folder) == first
    assert hashed == [video.name] * 2
