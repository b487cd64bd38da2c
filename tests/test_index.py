import errno
import json
import logging
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import lvqa.index
from lvqa.index import ClipIndex, IndexFileError, Store, StoreError, default_store
from lvqa.records import Clip, LvqaError, Video

VIDEO = Video(Path("/films/a film.mp4"), "0123456789abcdef", 90.0, 48, 64, 25.0)
STAMP = {"video": VIDEO.id, "grid": {"frames_per_second": 1.0}, "model": "tiny", "layer": -1, "version": "0.1.0"}


def made(n: int = 6, dim: int = 8, seed: int = 0, stamp: dict | None = None) -> ClipIndex:
    stamp = stamp or STAMP
    vectors = np.random.default_rng(seed).normal(size=(n, dim)) * 7
    return ClipIndex.of([Clip(stamp["video"], 16.0 * i, 16.0 * i + 16) for i in range(n)], vectors, stamp)


def same(one: ClipIndex, two: ClipIndex) -> bool:
    return (
        one.clips == two.clips
        and one.stamp == two.stamp
        and one.vectors.dtype == two.vectors.dtype == np.float32
        and one.vectors.tobytes() == two.vectors.tobytes()
        and one.halves.tobytes() == two.halves.tobytes()
    )


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def refusal(call) -> str:
    with pytest.raises(IndexFileError) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


# --- searching -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [None, 1, 3, 300, 1000])
def test_search_is_brute_force_over_cosines(k):
    index = made(300, 32)
    query = np.random.default_rng(9).normal(size=32) * 3
    found = index.search(query, k)
    cosines = index.vectors.astype(np.float64) @ (query / np.linalg.norm(query))
    best = np.argsort(-cosines)[:k]
    assert [index.clips.index(candidate.clip) for candidate in found] == best.tolist()
    np.testing.assert_allclose([candidate.embed_score for candidate in found], cosines[best], atol=1e-6)
    assert all(candidate.rerank_score is None for candidate in found)


@pytest.mark.parametrize("k", [1, 2, 5, None])
def test_equal_clips_come_in_the_order_of_time(k):
    vectors = np.tile([[3.0, 4.0], [4.0, 3.0]], (40, 1))
    index = ClipIndex.of([Clip(VIDEO.id, i, i + 1) for i in range(80)], vectors, STAMP)
    found = [int(candidate.clip.start_seconds) for candidate in index.search(np.array([1.0, 0.0]), k)]
    assert found == ([*range(1, 80, 2), *range(0, 80, 2)])[:k]


def test_vectors_have_length_one_and_the_callers_are_left_alone():
    vectors = np.random.default_rng(0).normal(size=(4, 3584)).astype(np.float32)
    before = vectors.copy()
    index = ClipIndex.of([Clip(VIDEO.id, i, i + 1) for i in range(4)], vectors, STAMP)
    np.testing.assert_allclose(np.linalg.norm(index.vectors.astype(np.float64), axis=1), 1, atol=1e-7)
    assert (vectors == before).all()
    query = index.vectors[2]
    assert index.search(query)[0].clip == index.clips[2] and (query == index.vectors[2]).all()


@pytest.mark.parametrize(
    ("clips", "vectors"),
    [
        ([Clip(VIDEO.id, 0, 1)], np.zeros((1, 4))),
        ([Clip(VIDEO.id, 0, 1)], np.full((1, 4), np.nan)),
        ([Clip(VIDEO.id, 0, 1)], np.array([[np.inf, 1]])),
        ([Clip(VIDEO.id, 0, 1)], np.ones((2, 4))),
        ([Clip(VIDEO.id, 0, 1)], np.ones(4)),
        ([], np.ones((0, 4))),
        ([Clip("feedfeed", 0, 1)], np.ones((1, 4))),
        ([Clip(VIDEO.id, 1, 2), Clip(VIDEO.id, 0, 1)], np.ones((2, 4))),
    ],
)
def test_what_only_a_bug_can_cause_is_refused_at_once(clips, vectors):
    with pytest.raises(ValueError, match=r"clip|vector"):
        ClipIndex.of(clips, vectors, STAMP)


@pytest.mark.parametrize("query", [np.zeros(8), np.ones(7), np.ones((1, 8)), np.full(8, np.nan), np.full(8, np.inf)])
def test_a_query_that_cannot_be_compared_is_refused(query):
    with pytest.raises(ValueError, match="query"):
        made().search(query)


def test_an_index_file_of_another_width_is_refused_by_name(tmp_path):
    index = Store(tmp_path).save(made(dim=8), VIDEO)
    message = refusal(lambda: index.search(np.ones(16)))
    assert str(index.path) in message and "8 numbers" in message and "16" in message


def test_centred_is_less_the_mean_and_leaves_the_rest(tmp_path):
    index = made(50, 16)
    shared = ClipIndex.of(index.clips, index.vectors + 20, STAMP)
    before, centred = shared.vectors.copy(), shared.centred()
    rows = shared.vectors.astype(np.float64) - shared.vectors.astype(np.float64).mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query = np.random.default_rng(4).normal(size=16)
    found = centred.search(query)
    best = np.argsort(-(rows @ query))
    assert [shared.clips.index(candidate.clip) for candidate in found] == best.tolist()
    np.testing.assert_allclose([c.embed_score for c in found], (rows @ query)[best] / np.linalg.norm(query), atol=1e-6)
    assert (shared.vectors == before).all() and centred.clips == shared.clips
    Store(tmp_path).save(centred, VIDEO)
    loaded = Store(tmp_path).load(STAMP)
    assert loaded is not None and same(loaded, shared)


def test_centred_clips_that_are_all_alike_score_zero():
    for n in (1, 3):
        index = ClipIndex.of([Clip(VIDEO.id, i, i + 1) for i in range(n)], np.full((n, 7), 0.3), STAMP)
        assert [candidate.embed_score for candidate in index.centred().search(np.ones(7))] == [0.0] * n


def test_k_must_be_positive():
    with pytest.raises(LvqaError, match="1 or more, got 0"):
        made().search(np.ones(8), 0)


def test_a_searched_index_travels_to_another_process():
    index = made()
    found = index.search(np.ones(8))
    assert pickle.loads(pickle.dumps(index)).search(np.ones(8)) == found


# --- the store -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "dim"), [(1, 1), (6, 8), (500, 3584)])
def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path, n, dim):
    store, index = Store(tmp_path), made(n, dim)
    saved, loaded = store.save(index, VIDEO), store.load(STAMP)
    assert loaded is not None and same(index, loaded) and same(index, saved)
    assert saved.path == loaded.path == store.path_of(STAMP) and loaded.video_path == VIDEO.path
    query = np.linspace(-1, 1, dim)
    assert loaded.search(query) == index.search(query)
    assert everything_in(tmp_path) == {f"index/{store.path_of(STAMP).name}"}


def test_the_name_is_the_video_and_a_hash_of_the_stamp(tmp_path):
    store = Store(tmp_path)
    path = store.path_of(STAMP)
    assert path.parent == tmp_path / "index" and path.name.startswith(f"{VIDEO.id}-") and path.suffix == ".parquet"
    assert store.path_of(dict(reversed(STAMP.items()))) == path
    assert store.path_of({**STAMP, "layer": -2}) != path
    assert store.path_of({**STAMP, "layer": (1, 2)}) == store.path_of({**STAMP, "layer": [1, 2]})
    for video_id in (None, "", "../../etc", "a/b", "a-b"):
        with pytest.raises(ValueError, match="video"):
            store.path_of({**STAMP, "video": video_id})


def test_anyone_can_read_the_file(tmp_path):
    index = made()
    path = Store(tmp_path).save(index, VIDEO).path
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == ["start_seconds", "end_seconds", "embedding"]
    assert table.schema.types == [pyarrow.float64(), pyarrow.float64(), pyarrow.list_(pyarrow.float16(), 8)]
    assert table["start_seconds"].to_pylist() == [clip.start_seconds for clip in index.clips]
    assert np.array(table["embedding"].to_pylist(), np.float16).tobytes() == index.halves.tobytes()
    assert json.loads(table.schema.metadata[b"lvqa"]) == STAMP
    assert json.loads(table.schema.metadata[b"lvqa.video"]) == {"name": "a film.mp4", "path": "/films/a film.mp4"}


def test_another_stamp_is_another_index_and_never_used_silently(tmp_path):
    store = Store(tmp_path)
    old = {**STAMP, "model": "older"}
    assert store.load(STAMP) is None and store.others(VIDEO.id, STAMP) == [] and store.paths() == []
    store.save(made(stamp=old), VIDEO)
    assert store.load(STAMP) is None
    assert store.others(VIDEO.id, STAMP) == [store.path_of(old)] and store.others(VIDEO.id, old) == []
    assert store.others("0123", STAMP) == []
    store.path_of(old).rename(store.path_of(STAMP))
    assert "another index" in refusal(lambda: store.load(STAMP))
    assert "another index" in refusal(lambda: store.read(store.path_of(STAMP)))


def test_an_index_of_another_video_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="of video"):
        Store(tmp_path).save(made(), replace(VIDEO, id="fedcba9876543210"))


def test_saving_again_replaces(tmp_path):
    store = Store(tmp_path)
    store.save(made(seed=1), VIDEO)
    store.save(made(seed=2), VIDEO)
    loaded = store.load(STAMP)
    assert loaded is not None and same(loaded, made(seed=2)) and len(store.paths()) == 1


def test_the_library_is_all_indexes_and_a_bad_one_is_a_warning(tmp_path, caplog):
    store = Store(tmp_path)
    ids = ["aaaa", "bbbb", "cccc"]
    for video_id in ids:
        store.save(made(stamp={**STAMP, "video": video_id}), replace(VIDEO, id=video_id, path=Path(f"/{video_id}.mp4")))
    (tmp_path / "index" / "notes.txt").write_text("not one of them")
    bad = store.path_of({**STAMP, "video": "bbbb"})
    bad.write_bytes(bad.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        found = list(store.all())
    assert [index.video_path for index in found] == [Path("/aaaa.mp4"), Path("/cccc.mp4")]
    assert [index.clips[0].video_id for index in found] == ["aaaa", "cccc"]
    assert len(caplog.messages) == 1 and str(bad) in caplog.messages[0]


def test_a_path_that_is_not_utf8_comes_back(tmp_path):
    video = replace(VIDEO, path=Path(os.fsdecode(b"/films/\xff \xc3\xa4\n.mp4")))
    store = Store(tmp_path)
    store.save(made(), video)
    loaded = store.load(STAMP)
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


# --- damage --------------------------------------------------------------------------------------------------------


def stored(folder: Path) -> tuple[Store, ClipIndex, Path]:
    store, index = Store(folder), made(3, 4)
    path = store.save(index, VIDEO).path
    assert path is not None
    return store, index, path


def test_a_truncated_file_is_refused_at_every_length(tmp_path):
    store, _, path = stored(tmp_path)
    content = path.read_bytes()
    for length in [*range(0, 40), *range(40, len(content), 29), *range(len(content) - 20, len(content))]:
        path.write_bytes(content[:length])
        message = refusal(lambda: store.load(STAMP))
        assert str(path) in message and "--rebuild" in message and "delete" in message
    path.write_bytes(content + b"x")
    refusal(lambda: store.load(STAMP))


def test_a_flipped_bit_never_gives_a_wrong_index(tmp_path):
    store, index, path = stored(tmp_path)
    content = path.read_bytes()
    refused = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            loaded = store.load(STAMP)
        except IndexFileError as error:
            assert "\n" not in str(error)
            refused += 1
        else:  # a byte that nothing depends on
            assert loaded is not None and same(loaded, index) and loaded.video_path == VIDEO.path
    assert refused > 0.2 * len(content)


def parquet(path: Path, columns: dict, metadata: dict | None = None) -> None:
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)


def lists(values: object, dim: int) -> pyarrow.Array:
    flat = pyarrow.array(np.asarray(values, np.float16).ravel())
    return pyarrow.FixedSizeListArray.from_arrays(flat, dim)


GOOD = {"start_seconds": [0.0, 16.0], "end_seconds": [16.0, 32.0], "embedding": lists(np.eye(4)[:2], 4)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"embedding": pyarrow.array([[1.0, 0.0], [0.0, 1.0]])}, "other types"),
        ({"embedding": pyarrow.array(["a", "b"])}, "other types"),
        ({"embedding": lists([[np.nan, 0], [0, 1]], 2)}, "not finite"),
        ({"embedding": lists([[np.inf, 0], [0, 1]], 2)}, "not finite"),
        ({"embedding": lists([[0, 0], [0, 1]], 2)}, "unit length"),
        ({"embedding": lists([[3, 4], [0, 1]], 2)}, "unit length"),
        ({"embedding": pyarrow.array([None, [1.0, 0.0]], pyarrow.list_(pyarrow.float16(), 2))}, "missing"),
        ({"embedding": pyarrow.array([[None, 1.0], [1.0, 0.0]], pyarrow.list_(pyarrow.float16(), 2))}, "missing"),
        ({"start_seconds": [16.0, 0.0]}, "order of time"),
        ({"start_seconds": [0.0, 0.0]}, "order of time"),
        ({"start_seconds": [-1.0, 16.0]}, "a clip must end"),
        ({"start_seconds": [0.0, np.nan]}, "not finite"),
        ({"start_seconds": [0.0, None]}, "missing"),
        ({"start_seconds": [0, 16]}, "other types"),
        ({"end_seconds": [16.0, 15.0]}, "order of time"),
        ({"end_seconds": [-1.0, 32.0]}, "a clip must end"),
        ({"end_seconds": [16.0, np.inf]}, "not finite"),
        ({"extra": [1, 2]}, "columns are not"),
        ({}, "digest"),
    ],
)
def test_a_file_whose_contents_are_no_index_is_refused(tmp_path, change, reason):
    store, _, path = stored(tmp_path)
    metadata = pyarrow.parquet.read_schema(path).metadata
    parquet(path, {**GOOD, **change}, metadata)
    message = refusal(lambda: store.load(STAMP))
    assert str(path) in message and reason in message


def test_the_files_of_these_tests_are_refused_for_their_fault_alone(tmp_path):
    store = Store(tmp_path)
    path = store.save(ClipIndex.of([Clip(VIDEO.id, 0, 16), Clip(VIDEO.id, 16, 32)], np.eye(4)[:2], STAMP), VIDEO).path
    assert path is not None
    parquet(path, GOOD, pyarrow.parquet.read_schema(path).metadata)
    assert store.load(STAMP) is not None


def test_other_metadata_are_refused(tmp_path):
    store = Store(tmp_path)
    path = store.save(ClipIndex.of([Clip(VIDEO.id, 0, 16), Clip(VIDEO.id, 16, 32)], np.eye(4)[:2], STAMP), VIDEO).path
    assert path is not None
    good = pyarrow.parquet.read_schema(path).metadata
    deep = b"[" * 100_000
    for key, value in [
        *((key, value) for key in (b"lvqa", b"lvqa.video") for value in (b"", b"[]", b"\xff", b"{}", b"nul", deep)),
        (b"lvqa", b'{"video": "../../x"}'),
        (b"lvqa", b'{"video": "0123456789abcdef", "layer": NaN}'),
        (b"lvqa.video", b'{"path": 3}'),
        (b"lvqa.digest", b"0" * 64),
    ]:
        parquet(path, GOOD, {**good, key: value})
        refusal(lambda: store.load(STAMP))
    for key in good:
        if key.startswith(b"lvqa"):
            parquet(path, GOOD, {other: value for other, value in good.items() if other != key})
            refusal(lambda: store.load(STAMP))
    parquet(path, GOOD)
    refusal(lambda: store.load(STAMP))


def test_a_small_file_that_unfolds_into_a_large_one_is_refused_unread(tmp_path, monkeypatch):
    store, _, path = stored(tmp_path)
    n = 200_000
    columns = {
        "start_seconds": np.zeros(n),
        "end_seconds": np.ones(n),
        "embedding": lists(np.ones((n, 16)), 16),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    assert path.stat().st_size < 1e6
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read", lambda self: pytest.fail("it was read"))
    assert "200000 rows" in refusal(lambda: store.load(STAMP))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 2, b"start_seconds,end_seconds\n0,16\n", b"\0" * 5000])
def test_a_file_that_is_not_parquet_is_refused(tmp_path, content):
    store, _, path = stored(tmp_path)
    path.write_bytes(content)
    assert str(path) in refusal(lambda: store.load(STAMP))


def test_what_is_not_a_regular_file_is_refused(tmp_path):
    store, _, path = stored(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert "regular" in refusal(lambda: store.load(STAMP))
    path.unlink()
    path.mkdir()
    assert "regular" in refusal(lambda: store.load(STAMP))
    with pytest.raises(StoreError, match=r"directory|not empty"):
        store.save(made(3, 4), VIDEO)
    assert everything_in(tmp_path) == set()


def test_a_file_that_is_gone_is_named(tmp_path):
    assert "no such index" in refusal(lambda: Store(tmp_path).read(tmp_path / "index" / "x-1.parquet"))


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
        store.save(made(seed=before), VIDEO)
    names = everything_in(tmp_path)
    with monkeypatch.context() as patched, pytest.raises((type(error), StoreError)):
        patched.setattr(where, failing(error))
        store.save(made(), VIDEO)
    assert everything_in(tmp_path) == names
    loaded = store.load(STAMP)
    assert loaded is None if before is None else loaded is not None and same(loaded, made(seed=before))


def test_a_full_disk_is_one_line_that_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    for attempt in (lambda: Store(tmp_path).save(made(), VIDEO), Store(tmp_path).prepare):
        with pytest.raises(StoreError) as caught:
            attempt()
        message = str(caught.value)
        assert str(tmp_path / "index") in message and "No space left" in message and "make room" in message
        assert "\n" not in message and everything_in(tmp_path) == set()


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_index import VIDEO, STAMP, made
from lvqa.index import Store, StoreError
store = Store(Path(sys.argv[1]))
store.save(made(3, 4), VIDEO)
big = made(400, 256)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.save(big, VIDEO)
except StoreError as error:
    sys.exit(str(error))
"""


def test_a_file_that_grows_too_large_for_the_system_leaves_the_old_one(tmp_path):
    # A real failing write: 200 kB where the process may write files of 100 kB.
    command = [sys.executable, "-c", LIMITED, str(tmp_path), str(Path(__file__).parent)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended.stderr
    message = ended.stderr.strip()
    assert str(tmp_path / "index") in message and "File too large" in message and "\n" not in message
    store = Store(tmp_path)
    assert everything_in(tmp_path) == {f"index/{store.path_of(STAMP).name}"}
    loaded = store.load(STAMP)
    assert loaded is not None and same(loaded, made(3, 4))


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "store").write_text("in the way")
    store = Store(tmp_path / "store")
    for attempt in (lambda: store.save(made(), VIDEO), store.prepare):
        with pytest.raises(StoreError, match=r"Not a directory|File exists") as caught:
            attempt()
        assert str(tmp_path / "store") in str(caught.value)
    assert str(tmp_path / "store") in refusal(lambda: store.load(STAMP))


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
    store, _, path = stored(tmp_path)
    path.parent.chmod(0o500)
    try:
        with unprivileged():
            for attempt in (lambda: store.save(made(), VIDEO), store.prepare):
                with pytest.raises(StoreError, match="Permission denied"):
                    attempt()
            if os.getuid() == 0:
                assert "Permission denied" in refusal(lambda: store.load(STAMP))
    finally:
        path.parent.chmod(0o700)


def test_prepare_makes_the_folder_and_leaves_nothing_in_it(tmp_path):
    Store(tmp_path / "a" / "b").prepare()
    assert (tmp_path / "a" / "b" / "index").is_dir() and everything_in(tmp_path) == set()


def test_an_interrupt_while_a_store_is_tried_leaves_nothing_in_it(tmp_path, monkeypatch):
    """Ctrl-C right after the file was written."""

    def interrupted(path, content):
        write_whole(path, content)
        raise KeyboardInterrupt

    write_whole = lvqa.index._write_whole
    monkeypatch.setattr(lvqa.index, "_write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).prepare()
    assert everything_in(tmp_path) == set()
