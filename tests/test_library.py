"""What a store knows of its videos: listed, found again, forgotten, pruned; no file of a video is touched."""

import json
import os
import time
from pathlib import Path

import pytest
import video_files
from click.testing import CliRunner
from indexes import files_in, make_index

from lvqa.cli.library import size_text
from lvqa.cli.main import lvqa_command
from lvqa.index import Store
from lvqa.library import Library
from lvqa.records import LvqaError
from lvqa.session import FRAME_FORMATS, INDEX_FORMATS
from lvqa.video import identity, inspect_video, store_metadata

SPEC = {"frames": {"model_revision": "abc", **FRAME_FORMATS}, **INDEX_FORMATS}
OLD_FRAMES = {"model_revision": "abc", **FRAME_FORMATS, "frames_format": 1}


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Let ids of files be kept at once, though they were just written."""
    monkeypatch.setattr(identity, "SETTLED_NS", 0)


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


@pytest.fixture
def keep(store, tmp_path):
    """Write a video of so many frames, and keep of it what `lvqa index` keeps. Returns its path and its id."""

    def make(name: str, num_frames: int = 30, *, spec=SPEC) -> tuple[Path, str]:
        path = tmp_path / "videos" / name
        path.parent.mkdir(exist_ok=True)
        video_files.write_video(path, num_frames)
        return path, keep_file(store, path, spec)

    return make


def keep_file(store: Store, path: Path, spec=SPEC) -> str:
    video = inspect_video(path, metadata_folder=store.folder)
    store_metadata(path, store.folder)
    store.save(make_index(3, video_id=video.id, spec=spec), video)
    store.tokens_path(video.id, spec["frames"]).write_bytes(b"tokens")
    return video.id


def states(store: Store) -> dict[str, tuple[Path, str]]:
    """Return the path and the state of each video, by id."""
    videos = Library(store).videos()
    return {video.id: (video.location.path, video.location.state) for video in videos}


def test_videos_are_listed_with_what_is_kept_of_them(store, keep):
    (a, a_id), (b, b_id) = keep("a.mp4"), keep("b.mkv", 60)
    first, second = Library(store).videos()
    assert [(first.id, first.location.path), (second.id, second.location.path)] == [(a_id, a), (b_id, b)]
    assert (first.location.state, first.duration_seconds) == ("ok", inspect_video(a).duration_seconds)
    (index,) = first.indexes
    assert (index.model, index.num_clips, index.problem) == ("tiny", 3, None)
    assert index.num_bytes == index.path.stat().st_size
    assert {path.name.split(".", 1)[1] for path in first.files} >= {"parquet", "tokens", "metadata.npz", "video.json"}
    assert first.num_bytes == sum(path.stat().st_size for path in first.files)
    assert {path.name for video in (first, second) for path in video.files} == files_in(store.folder)


def test_an_unknown_store_is_empty(tmp_path):
    assert Library(Store(tmp_path / "none")).videos() == [] and not (tmp_path / "none").exists()


def test_a_renamed_file_is_found_by_its_content_and_known_from_then_on(store, keep, tmp_path):
    a, a_id = keep("a.mp4")
    keep("other.mp4", 40)
    moved = a.with_name("video of the year.mp4")
    a.rename(moved)
    video_files.write_video(a.with_name("of equal size.mp4"), 30).write_bytes(bytes(moved.stat().st_size))
    (location,) = [video.location for video in Library(store).videos() if video.id == a_id]
    assert (location.path, location.state, location.previous_path) == (moved, "moved", a)
    assert states(store)[a_id] == (moved, "ok")


def test_a_file_that_is_seen_elsewhere_is_known_there(store, keep, tmp_path):
    a, a_id = keep("a.mp4")
    moved = tmp_path / "elsewhere.mp4"
    a.rename(moved)
    assert states(store)[a_id] == (a, "missing")
    index, modified_ns = store.paths()[0], store.paths()[0].stat().st_mtime_ns
    assert inspect_video(moved, metadata_folder=store.folder).id == a_id
    store_metadata(moved, store.folder)
    assert states(store)[a_id] == (moved, "ok")
    assert store.paths() == [index] and index.stat().st_mtime_ns == modified_ns, "nothing is built again"


def test_of_two_equal_files_the_one_that_is_left_is_named(store, keep, tmp_path):
    a, a_id = keep("a.mp4")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(a.read_bytes())
    store_metadata(copy, store.folder)
    assert states(store) == {a_id: (copy, "ok")}
    copy.unlink()
    assert states(store) == {a_id: (a, "ok")}


def test_a_touched_file_is_ok_and_a_changed_one_is_not(store, keep):
    a, a_id = keep("a.mp4")
    os.utime(a, (1, 1))
    assert states(store)[a_id] == (a, "ok")
    content = bytearray(a.read_bytes())
    content[-1] ^= 1
    a.write_bytes(content)
    assert states(store)[a_id] == (a, "changed")


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_file_any_more_is_changed(store, keep, kind):
    a, a_id = keep("a.mp4")
    a.unlink()
    a.mkdir() if kind == "folder" else os.mkfifo(a)
    assert states(store)[a_id] == (a, "changed")


def test_an_index_without_a_record_has_the_path_of_its_time(store, keep):
    a, a_id = keep("a.mp4")
    for path in store.folder.glob("*.json"):
        path.unlink()
    assert states(store)[a_id] == (a, "ok")
    a.unlink()
    assert states(store)[a_id] == (a, "missing")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"paths": 3}', b"[" * 100_000, None])
def test_a_damaged_record_counts_as_none_and_is_pruned(store, keep, content):
    a, a_id = keep("a.mp4")
    record = store.folder / f"{a_id}.video.json"
    if content is None:
        tree = json.loads(record.read_text())
        content = json.dumps({**tree, "size": 1e999, "paths": ["relative.mp4"]}).encode()
    record.write_bytes(content)
    assert states(store)[a_id] == (a, "ok")
    (removal,) = Library(store).prune()
    assert removal.files == (record,) and states(store)[a_id] == (a, "ok")


# --- forget and prune ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["path", "id", "gone"])
def test_all_that_is_kept_of_a_video_is_forgotten(store, keep, by):
    (a, a_id), (_, b_id) = keep("a.mp4"), keep("b.mp4", 40)
    if by == "gone":
        a.unlink()
    expected = {path.name for video in Library(store).videos() if video.id == b_id for path in video.files}
    before = sum(path.stat().st_size for path in store.folder.iterdir())
    if by == "path":  # its hash is kept while it is looked for
        next(store.folder.glob("*.identity.json")).unlink()
    (removal,) = Library(store).forget(a_id if by == "id" else a)
    assert files_in(store.folder) == expected and a.exists() == (by != "gone")
    assert by == "path" or removal.num_bytes == before - sum(path.stat().st_size for path in store.folder.iterdir())
    assert list(states(store)) == [b_id]


def test_a_forgotten_video_is_kept_again_when_it_is_seen_again(store, keep):
    a, a_id = keep("a.mp4")
    Library(store).forget(a)
    assert not files_in(store.folder)
    assert keep_file(store, a) == a_id
    assert states(store) == {a_id: (a, "ok")}
    assert (store.folder / f"{a_id}.metadata.npz").exists()


def test_another_video_at_an_old_path_is_not_meant_by_it(store, keep):
    """The first one is known under its new name: its old name is now the other one's."""
    a, a_id = keep("a.mp4")
    moved = a.with_name("moved.mp4")
    a.rename(moved)
    assert states(store)[a_id] == (moved, "moved")
    other, other_id = keep("a.mp4", 50)
    (removal,) = Library(store).forget(other)
    assert removal.video.id == other_id and states(store) == {a_id: (moved, "ok")}


def test_an_unknown_video_is_named(store, keep, tmp_path):
    keep("a.mp4")
    for video in (
        tmp_path / "none.mp4",
        "0123456789abcdef",
        "",
        "a\0b",
        video_files.write_video(tmp_path / "b.mp4", 9),
    ):
        with pytest.raises(LvqaError, match=r"knows no video .*`lvqa library list`"):
            Library(store).forget(video)


def test_pruning_removes_what_is_kept_of_lost_files_alone(store, keep):
    (kept, kept_id), (deleted, _), (changed, _) = keep("a.mp4"), keep("b.mp4", 40), keep("c.mp4", 50)
    deleted.unlink()
    changed.write_bytes(b"another content")
    before = files_in(store.folder)
    planned = Library(store).prune(dry_run=True)
    assert {removal.reason for removal in planned} == {"its file is missing", "its file is changed"}
    assert files_in(store.folder) == before
    assert Library(store).prune() == planned
    assert states(store) == {kept_id: (kept, "ok")} and kept.exists()
    assert changed.read_bytes() == b"another content"
    assert Library(store).prune() == []


def test_a_file_that_cannot_be_read_now_is_not_pruned(store, keep, monkeypatch):
    a, a_id = keep("a.mp4")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lvqa.library.catalog.has_content", refuse)
    assert states(store)[a_id] == (a, "unreadable")
    assert Library(store).prune() == []


def test_pruning_removes_what_this_version_cannot_read(store, keep):
    a, a_id = keep("a.mp4")
    before = files_in(store.folder)
    old = {**SPEC, "index_format": 1}
    older = {"frames": OLD_FRAMES, **INDEX_FORMATS}
    video = inspect_video(a)
    useless = {store.save(make_index(2, video_id=a_id, spec=spec), video).path for spec in (old, older)}
    (store.folder / f"{a_id}-0123456789abcdef.parquet").write_bytes(b"damaged")
    store.tokens_path(a_id, OLD_FRAMES).write_bytes(b"old tokens")
    (store.folder / "0123456789abcdef.identity.json").write_text('{"identity_format": 0}')
    leftover = store.folder / f".{a_id}.metadata.npz.0123.tmp"
    leftover.write_bytes(b"half")
    os.utime(leftover, (time.time() - 7200,) * 2)
    fresh = store.folder / ".fresh.tmp"
    fresh.write_bytes(b"being written")
    (store.folder / "notes.txt").write_text("not lvqa's")
    problems = [index.problem for video in Library(store).videos() for index in video.indexes]
    assert sum(problem is not None for problem in problems) == 3
    removed = {path for removal in Library(store).prune() for path in removal.files}
    assert removed > useless and len(removed) == 6
    assert files_in(store.folder) == before | {".fresh.tmp", "notes.txt"}


def test_visual_tokens_that_no_index_was_made_of_are_pruned(store, keep):
    """Those of settings that were tried once: they are as large as those that are used."""
    _, a_id = keep("a.mp4")
    before = files_in(store.folder)
    unneeded = store.tokens_path(a_id, {**SPEC["frames"], "frames_per_second": 2.0})
    unneeded.write_bytes(b"tokens of other frames")
    (video,) = Library(store).videos()
    assert video.num_token_bytes == len(b"tokenstokens of other frames")
    (removal,) = Library(store).prune()
    assert (removal.video.id, removal.files) == (a_id, (unneeded,))
    assert files_in(store.folder) == before and Library(store).prune() == []


def test_metadata_of_other_libraries_and_records_of_gone_names_are_pruned(store, keep, monkeypatch):
    a, a_id = keep("a.mp4")
    a.rename(a.with_name("b.mp4"))
    assert states(store)[a_id][1] == "moved"
    monkeypatch.setattr("lvqa.video.metadata.METADATA_FORMAT", 999)
    (removal,) = Library(store).prune()
    assert sorted(path.name.partition(".")[2] for path in removal.files) == ["identity.json", "metadata.npz"]
    assert states(store)[a_id][1] == "ok"


# --- the commands ----------------------------------------------------------------------------------------------------


def lvqa(*words: object, code: int = 0):
    result = CliRunner().invoke(lvqa_command, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def test_the_commands_print_lines_and_json(store, keep, tmp_path):
    (a, a_id), (b, b_id) = keep("a.mp4"), keep("b.mp4", 40)
    b.unlink()
    where = ("--store", tmp_path / "store")
    result = lvqa("library", "list", *where)
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["ok", "0:01", str(a)] and a_id in lines[0] and lines[2].split()[0] == "missing"
    assert "index of tiny: 3 clips" in lines[1]
    assert result.stderr.startswith("lvqa: 2 videos, ")
    videos = json.loads(lvqa("library", "list", *where, "--json").stdout)["videos"]
    assert [(video["path"], video["state"], video["id"]) for video in videos] == [
        (str(a), "ok", a_id),
        (str(b), "missing", b_id),
    ]
    planned = json.loads(lvqa("library", "prune", *where, "--json", "--dry-run").stdout)
    assert planned["dry_run"] and [removal["path"] for removal in planned["removed"]] == [str(b)]
    result = lvqa("library", "prune", *where)
    assert result.stdout.startswith(f"{b}, id {b_id}: its file is missing; ")
    assert (
        f"{size_text(planned['bytes'])} removed" in result.stderr and "no file of a video is touched" in result.stderr
    )
    forgotten = json.loads(lvqa("library", "forget", a, *where, "--json").stdout)
    assert forgotten["bytes"] > 0 and forgotten["removed"][0]["id"] == a_id
    assert lvqa("library", "forget", a, *where, code=1).stderr.startswith("lvqa: the store ")
    assert lvqa("library", "list", *where).stdout == "" and a.exists()


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (123_456, "123 kB"), (5_000_000_000, "5.0 GB")],
)
def test_sizes_are_short(num_bytes, text):
    assert size_text(num_bytes) == text
