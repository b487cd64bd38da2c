"""Damaged and foreign files in a store: each is refused in one line, and none gives a wrong index."""

import os
import re
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from indexes import SPEC, VIDEO, files_in, is_same, load, make_index, refusal, save_small

from lvqa.index import ClipIndex, IndexFileError, Store, StoreError
from lvqa.records import Clip


def test_a_truncated_file_is_refused_at_every_length(tmp_path):
    store, _, path = save_small(tmp_path)
    content = path.read_bytes()
    for length in [*range(0, 40), *range(40, len(content), 29), *range(len(content) - 20, len(content))]:
        path.write_bytes(content[:length])
        message = refusal(lambda: load(store))
        assert str(path) in message and "--rebuild" in message and "delete" in message
    path.write_bytes(content + b"x")
    refusal(lambda: load(store))


@pytest.mark.slow
def test_a_flipped_bit_never_gives_a_wrong_index(tmp_path):
    store, index, path = save_small(tmp_path)
    content = path.read_bytes()
    refused = 0
    for i in range(len(content)):
        damaged = bytearray(content)
        damaged[i] ^= 1 << i % 8
        path.write_bytes(damaged)
        try:
            loaded = load(store)
        except IndexFileError as error:
            assert "\n" not in str(error)
            refused += 1
        else:  # a byte that nothing depends on
            assert loaded is not None and is_same(loaded, index) and loaded.video_path == VIDEO.path
    assert refused > 0.2 * len(content)


def store_good(folder: Path) -> tuple[Store, Path]:
    """Save the index whose columns are GOOD."""
    clips = [Clip(VIDEO.id, 0, 16), Clip(VIDEO.id, 16, 32)]
    index = ClipIndex.of(clips, np.eye(4)[:2], video_id=VIDEO.id, spec=SPEC)
    store = Store(folder)
    path = store.save(index, VIDEO).path
    assert path is not None
    return store, path


def parquet(path: Path, columns: dict, metadata: dict | None = None) -> None:
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)


def lists(values: object, dim: int) -> pyarrow.Array:
    flat = pyarrow.array(np.asarray(values, np.float16).ravel())
    return pyarrow.FixedSizeListArray.from_arrays(flat, dim)


HALVES = pyarrow.list_(pyarrow.float16(), 2)
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
        # Before version 26 pyarrow itself does not read such a file.
        ({"embedding": pyarrow.array([None, np.float16([1, 0])], HALVES)}, "missing|size=2"),
        ({"embedding": pyarrow.array([[None, np.float16(1)], np.float16([1, 0])], HALVES)}, "missing"),
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
    store, _, path = save_small(tmp_path)
    metadata = pyarrow.parquet.read_schema(path).metadata
    parquet(path, {**GOOD, **change}, metadata)
    message = refusal(lambda: load(store))
    assert str(path) in message and re.search(reason, message)


def test_the_files_of_these_tests_are_refused_for_their_fault_alone(tmp_path):
    store, path = store_good(tmp_path)
    parquet(path, GOOD, pyarrow.parquet.read_schema(path).metadata)
    assert load(store) is not None


def test_other_metadata_are_refused(tmp_path):
    store, path = store_good(tmp_path)
    good = pyarrow.parquet.read_schema(path).metadata
    deep = b"[" * 100_000
    for key, value in [
        *((key, value) for key in (b"lvqa", b"lvqa.video") for value in (b"", b"[]", b"\xff", b"{}", b"nul", deep)),
        (b"lvqa", b'{"video": "../../x", "spec": {}}'),
        (b"lvqa", b'{"video": "0123456789abcdef"}'),
        (b"lvqa", b'{"video": "0123456789abcdef", "spec": [1]}'),
        (b"lvqa", b'{"video": "0123456789abcdef", "spec": {"layer": NaN}}'),
        (b"lvqa.video", b'{"path": 3}'),
        (b"lvqa.digest", b"0" * 64),
    ]:
        parquet(path, GOOD, {**good, key: value})
        refusal(lambda: load(store))
    for key in good:
        if key.startswith(b"lvqa"):
            parquet(path, GOOD, {other: value for other, value in good.items() if other != key})
            refusal(lambda: load(store))
    parquet(path, GOOD)
    refusal(lambda: load(store))


@pytest.mark.slow
def test_a_small_file_that_unfolds_into_a_large_one_is_refused_unread(tmp_path, monkeypatch):
    store, _, path = save_small(tmp_path)
    n = 200_000
    columns = {
        "start_seconds": np.zeros(n),
        "end_seconds": np.ones(n),
        "embedding": lists(np.ones((n, 16)), 16),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    assert path.stat().st_size < 1e6
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read", lambda self: pytest.fail("it was read"))
    assert "200000 rows" in refusal(lambda: load(store))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 2, b"start_seconds,end_seconds\n0,16\n", b"\0" * 5000])
def test_a_file_that_is_not_parquet_is_refused(tmp_path, content):
    store, _, path = save_small(tmp_path)
    path.write_bytes(content)
    assert str(path) in refusal(lambda: load(store))


def test_what_is_not_a_regular_file_is_refused(tmp_path):
    store, _, path = save_small(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert "regular" in refusal(lambda: load(store))
    path.unlink()
    path.mkdir()
    assert "regular" in refusal(lambda: load(store))
    with pytest.raises(StoreError, match=r"directory|not empty"):
        store.save(make_index(3, 4), VIDEO)
    assert files_in(tmp_path) == set()


def test_a_file_that_is_gone_is_named(tmp_path):
    assert "no such index" in refusal(lambda: Store(tmp_path).read(tmp_path / "index" / "x-1.parquet"))
