"""The store: what is saved comes back the same, under its own spec alone, and a failing write leaves nothing behind."""

import errno
import json
import logging
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from indexes import SPEC, VIDEO, files_in, is_same, load, make_index, refusal, save_small

import lvqa.index
from lvqa.index import ClipIndex, Store, StoreError, default_store, fingerprint
from lvqa.library.indexed import indexed_states, read_indexes


@pytest.mark.slow
@pytest.mark.parametrize(("n", "dim"), [(1, 1), (6, 8), (500, 3584)])
def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path, n, dim):
    store, index = Store(tmp_path), make_index(n, dim)
    saved, loaded = store.save(index, VIDEO), load(store)
    assert loaded is not None and is_same(index, loaded) and is_same(index, saved)
    assert saved.path == loaded.path == store.path_of(VIDEO.id, SPEC) and loaded.video_path == VIDEO.path
    query = np.linspace(-1, 1, dim)
    assert loaded.search(query) == index.search(query)
    assert files_in(tmp_path) == {f"index/{store.path_of(VIDEO.id, SPEC).name}"}


def test_the_name_is_the_video_and_the_fingerprint_of_the_spec(tmp_path):
    store = Store(tmp_path)
    path = store.path_of(VIDEO.id, SPEC)
    assert path == tmp_path / "index" / f"{VIDEO.id}-{fingerprint(SPEC)}.parquet"
    assert store.path_of(VIDEO.id, dict(reversed(SPEC.items()))) == path
    assert store.path_of(VIDEO.id, {**SPEC, "layer": -2}) != path
    layers = [store.path_of(VIDEO.id, {**SPEC, "layer": layer}) for layer in ((1, 2), [1, 2])]
    assert layers[0] == layers[1]
    assert store.path_of("fedcba9876543210", SPEC) != path
    for video_id in (None, "", "../../etc", "a/b", "a-b"):
        with pytest.raises(ValueError, match="video"):
            store.path_of(video_id, SPEC)


def test_anyone_can_read_the_file(tmp_path):
    index = make_index()
    path = Store(tmp_path).save(index, VIDEO).path
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == ["start_seconds", "end_seconds", "embedding"]
    assert table.schema.types == [pyarrow.float64(), pyarrow.float64(), pyarrow.list_(pyarrow.float16(), 8)]
    assert table["start_seconds"].to_pylist() == [clip.start_seconds for clip in index.clips]
    assert np.array(table["embedding"].to_pylist(), np.float16).tobytes() == index.halves.tobytes()
    assert json.loads(table.schema.metadata[b"lvqa"]) == {"video": VIDEO.id, "spec": SPEC}
    names = {"name": "a video.mp4", "path": "/videos/a video.mp4", "model": "tiny"}
    assert json.loads(table.schema.metadata[b"lvqa.video"]) == {**names, "frames": 0, "frames_substituted": 0}


def indexes_of(store, spec) -> list[ClipIndex]:
    """The indexes that a search of the library reads."""
    return list(read_indexes(store, spec, list(indexed_states(store, spec))))


def test_another_spec_is_another_index_and_never_used_silently(tmp_path):
    store = Store(tmp_path)
    old = {**SPEC, "model": "older"}
    assert load(store) is None and store.paths() == []
    store.save(make_index(spec=old), VIDEO)
    assert load(store) is None
    store.path_of(VIDEO.id, old).rename(store.path_of(VIDEO.id, SPEC))
    assert "another index" in refusal(lambda: load(store))
    assert "another index" in refusal(lambda: store.read(store.path_of(VIDEO.id, SPEC)))


def test_an_index_of_another_video_is_never_used_silently(tmp_path):
    store, other = Store(tmp_path), replace(VIDEO, id="fedcba9876543210")
    path = store.save(make_index(video_id=other.id), other).path
    path.rename(store.path_of(VIDEO.id, SPEC))
    assert "another index" in refusal(lambda: load(store))


def test_an_index_of_another_video_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="of video"):
        Store(tmp_path).save(make_index(), replace(VIDEO, id="fedcba9876543210"))


def test_saving_again_replaces(tmp_path):
    store = Store(tmp_path)
    store.save(make_index(seed=1), VIDEO)
    store.save(make_index(seed=2), VIDEO)
    loaded = load(store)
    assert loaded is not None and is_same(loaded, make_index(seed=2)) and len(store.paths()) == 1


def test_the_library_is_all_indexes_and_a_bad_one_is_a_warning(tmp_path, caplog):
    store = Store(tmp_path)
    for video_id in ("aaaa", "bbbb", "cccc"):
        store.save(make_index(video_id=video_id), replace(VIDEO, id=video_id, path=Path(f"/{video_id}.mp4")))
    (tmp_path / "index" / "notes.txt").write_text("not one of them")
    bad = store.path_of("bbbb", SPEC)
    bad.write_bytes(bad.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        indexes = indexes_of(store, SPEC)
    assert [index.video_path for index in indexes] == [Path("/aaaa.mp4"), Path("/cccc.mp4")]
    assert [index.clips[0].video_id for index in indexes] == ["aaaa", "cccc"]
    assert len(caplog.messages) == 1 and str(bad) in caplog.messages[0]


def test_an_index_of_lvqa_0_1_is_left_out_with_one_line(tmp_path, caplog):
    """Format 1 had the video among the settings, and the version of lvqa; its columns were those of today."""
    store = Store(tmp_path)
    path = store.save(make_index(), VIDEO).path
    table = pyarrow.parquet.read_table(path)
    old = {"video": VIDEO.id, **SPEC, "version": "0.1.0"}
    table = table.replace_schema_metadata({**table.schema.metadata, b"lvqa": json.dumps(old).encode()})
    path.unlink()
    pyarrow.parquet.write_table(table, path.with_name(f"{VIDEO.id}-{fingerprint(old)}.parquet"))
    with caplog.at_level(logging.WARNING):
        assert indexes_of(store, old) == [] and indexes_of(store, SPEC) == [] and load(store) is None
    (line,) = caplog.messages
    assert line.startswith("left out: ") and "it was made by lvqa 0.1" in line and "\n" not in line


def test_a_path_that_is_not_utf8_comes_back(tmp_path):
    video = replace(VIDEO, path=Path(os.fsdecode(b"/videos/\xff \xc3\xa4\n.mp4")))
    store = Store(tmp_path)
    store.save(make_index(), video)
    loaded = load(store)
    assert loaded is not None and loaded.video_path == video.path


def test_where_the_store_is_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("LVQA_HOME", str(tmp_path / "here"))
    assert default_store() == tmp_path / "here"
    monkeypatch.delenv("LVQA_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_store() == tmp_path / "lvqa"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_store() == tmp_path / "home" / ".cache" / "lvqa"


def test_without_a_home_folder_the_store_must_be_named(monkeypatch):
    for name in ("LVQA_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", dict[int, object]().__getitem__)  # no user is in the system's list
    with pytest.raises(StoreError, match=r"LVQA_HOME.*--store"):
        default_store()


# --- writing that fails --------------------------------------------------------------------------------------------


def failing(error: BaseException):
    def fail(*args, **kwargs):
        raise error

    return fail


INTERRUPTIONS = [KeyboardInterrupt(), SystemExit(), MemoryError(), OSError(errno.ENOSPC, "No space left on device")]


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", INTERRUPTIONS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("before", [None, 5])
def test_stopped_in_the_middle_it_leaves_what_was_there(tmp_path, monkeypatch, where, error, before):
    store = Store(tmp_path)
    if before is not None:
        store.save(make_index(seed=before), VIDEO)
    names = files_in(tmp_path)
    with monkeypatch.context() as patched, pytest.raises((type(error), StoreError)):
        patched.setattr(where, failing(error))
        store.save(make_index(), VIDEO)
    assert files_in(tmp_path) == names
    loaded = load(store)
    assert loaded is None if before is None else loaded is not None and is_same(loaded, make_index(seed=before))


def test_a_full_disk_is_one_line_that_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    for attempt in (lambda: Store(tmp_path).save(make_index(), VIDEO), Store(tmp_path).prepare):
        with pytest.raises(StoreError) as caught:
            attempt()
        message = str(caught.value)
        assert str(tmp_path / "index") in message and "No space left" in message and "make room" in message
        assert "\n" not in message and files_in(tmp_path) == set()


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from indexes import VIDEO, make_index
from lvqa.index import Store, StoreError
store = Store(Path(sys.argv[1]))
store.save(make_index(3, 4), VIDEO)
big = make_index(400, 256)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.save(big, VIDEO)
except StoreError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_a_file_that_grows_too_large_for_the_system_leaves_the_old_one(tmp_path):
    # A real failing write: 200 kB where the process may write files of 100 kB.
    command = [sys.executable, "-c", LIMITED, str(tmp_path), str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1, result.stderr
    message = result.stderr.strip()
    assert str(tmp_path / "index") in message and "File too large" in message and "\n" not in message
    store = Store(tmp_path)
    assert files_in(tmp_path) == {f"index/{store.path_of(VIDEO.id, SPEC).name}"}
    loaded = load(store)
    assert loaded is not None and is_same(loaded, make_index(3, 4))


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "store").write_text("in the way")
    store = Store(tmp_path / "store")
    for attempt in (lambda: store.save(make_index(), VIDEO), store.prepare):
        with pytest.raises(StoreError, match=r"Not a directory|File exists") as caught:
            attempt()
        assert str(tmp_path / "store") in str(caught.value)
    assert str(tmp_path / "store") in refusal(lambda: load(store))


@contextmanager
def unprivileged():
    """Root may write everywhere: step down to nobody meanwhile."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_without_permission(tmp_path):
    store, _, path = save_small(tmp_path)
    path.parent.chmod(0o500)
    try:
        with unprivileged():
            for attempt in (lambda: store.save(make_index(), VIDEO), store.prepare):
                with pytest.raises(StoreError, match="Permission denied"):
                    attempt()
            if os.getuid() == 0:
                assert "Permission denied" in refusal(lambda: load(store))
    finally:
        path.parent.chmod(0o700)


def test_prepare_makes_the_folder_and_leaves_nothing_in_it(tmp_path):
    Store(tmp_path / "a" / "b").prepare()
    assert (tmp_path / "a" / "b" / "index").is_dir() and files_in(tmp_path) == set()


def test_an_interrupt_while_a_store_is_tried_leaves_nothing_in_it(tmp_path, monkeypatch):
    """Ctrl-C right after the file was written."""

    def interrupted(path, content):
        write_atomically(path, content)
        raise KeyboardInterrupt

    write_atomically = lvqa.index.write_atomically
    monkeypatch.setattr(lvqa.index, "write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).prepare()
    assert files_in(tmp_path) == set()
