"""A library of many videos is searched by a table of all clips, which finds what a search of all indexes finds."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexes import SPEC, make_index
from library_writer import save_video

import lvqa.library.background
import lvqa.library.find
from lvqa.index import Store
from lvqa.library import Library, LibraryFilter
from lvqa.library.codes import MIN_WIDTH, ClipCodes
from lvqa.library.find import ClipFinder
from lvqa.library.indexed import ALL_VIDEOS, indexed_states
from lvqa.library.moments import join_moments
from lvqa.library.table import MAX_SMALL_SEGMENTS, BusyError, ClipTable
from lvqa.records import Candidate, Clip, LvqaError, Video

TESTS = Path(__file__).parent


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def no_video_is_few(monkeypatch):
    """The table has to have every video, so that nothing is read from the indexes."""
    monkeypatch.setattr(lvqa.library.find, "FEW_VIDEOS", 0)


def query(seed: int, dim: int = 32) -> np.ndarray:
    return np.random.default_rng(10_000 + seed).normal(size=dim)


def both(store: Store, vector: np.ndarray, k: int = 10, condition: LibraryFilter = ALL_VIDEOS, **options) -> list:
    """What is found with the table, which must be what a search of all indexes finds."""
    clips = ClipFinder(store, SPEC, **options).find(vector, k, condition)
    exact = ClipFinder(store, SPEC, **options).find(vector, k, condition, exact=True)
    places = [(hit.video.id, hit.candidate.clip) for hit in clips]
    # Scores are sums in other orders, so that clips whose scores differ by rounding alone may change places.
    assert set(places) == {(hit.video.id, hit.candidate.clip) for hit in exact}
    scores = [[hit.candidate.embed_score for hit in hits] for hits in (clips, exact)]
    assert np.allclose(*scores, atol=2e-7 if not options.get("centred") else 1e-3)
    return places


def segments(store: Store) -> list[Path]:
    return sorted(store.folder.parent.glob("library/*/*.segment"))


def table_files(store: Store) -> list[Path]:
    return sorted(path for path in store.folder.parent.glob("library/*/*.segment/*") if path.is_file())


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("dim", [5, 32, MIN_WIDTH, MIN_WIDTH + 37])
def test_the_table_finds_what_a_search_of_all_indexes_finds(store, no_video_is_few, dim, centred):
    for number in range(12):
        save_video(store, number, num_clips=30, dim=dim)
    for seed in range(3):
        assert len(both(store, query(seed, dim), centred=centred)) == 10
    assert len(segments(store)) == 1


def test_a_few_videos_need_no_table(store):
    for number in range(3):
        save_video(store, number)
    assert len(both(store, query(0))) == 10 and not (store.folder.parent / "library").exists()
    assert len(ClipFinder(store, SPEC).find(query(0), None, ALL_VIDEOS)) == 36


def test_equal_clips_come_in_the_order_of_videos_and_times(store, no_video_is_few):
    for number in range(3):
        video_id = f"{number:016x}"
        save_video(store, number)
        index = make_index(12, 32, seed=0, video_id=video_id)
        store.save(index, store_video(video_id))
    places = both(store, query(1), 6)
    assert [video_id for video_id, _ in places] == [f"{i:016x}" for i in (0, 1, 2, 0, 1, 2)]


def store_video(video_id: str) -> Video:
    return Video(Path("/videos/a.mp4"), video_id, 192.0, 48, 64, 25.0)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whatever_happens_to_the_store_a_search_is_that_of_all_indexes(data, tmp_path_factory):
    store, seed = Store(tmp_path_factory.mktemp("store")), 100
    save_video(store, 0)
    few, lvqa.library.find.FEW_VIDEOS = lvqa.library.find.FEW_VIDEOS, 2
    try:
        for step in data.draw(st.lists(st.sampled_from(["add", "replace", "forget", "lose", "damage"]), max_size=8)):
            numbers = [int(video_id, 16) for video_id in indexed_states(store, SPEC)]
            seed += 1
            if step == "add":
                for _ in range(4):
                    save_video(store, max(numbers) + 1)
                    numbers.append(max(numbers) + 1)
            elif step == "replace":
                number = data.draw(st.sampled_from(numbers))
                store.save(make_index(9, 32, seed=seed, video_id=f"{number:016x}"), store_video(f"{number:016x}"))
            elif step == "forget" and len(numbers) > 1:
                Library(store).forget(f"{data.draw(st.sampled_from(numbers)):016x}")
            elif step == "lose":
                shutil.rmtree(store.folder.parent / "library", ignore_errors=True)
            elif step == "damage" and (files := table_files(store)):
                damage(data.draw(st.sampled_from(files)), data.draw(st.integers(0, 3)))
            both(store, query(seed))
    finally:
        lvqa.library.find.FEW_VIDEOS = few


def damage(path: Path, way: int) -> None:
    """Damage a file, but not a code: a wrong code costs a candidate, and nothing tells it.

    The segment is not the one that this process had open before, as it would be for another process.
    """
    (info,) = path.parent.glob("*.json")
    os.utime(info, ns=(0, info.stat().st_mtime_ns + 1))
    content = bytearray(path.read_bytes())
    if way == 0:
        path.unlink()
    elif way == 1:
        path.write_bytes(content[: len(content) // 2])
    elif way == 2:
        path.write_bytes(bytes(content) + b"\0" * 64)
    elif path.name != "codes":
        for i in range(0, len(content), 7):
            content[i] ^= 0x15
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["codes", "vectors", "clips", "segment.json"])
@pytest.mark.parametrize("way", range(4))
def test_a_damaged_table_is_reported_and_made_again(store, no_video_is_few, caplog, name, way):
    for number in range(8):
        save_video(store, number)
    before = both(store, query(0))
    (path,) = (path for path in table_files(store) if path.name == name)
    damage(path, way)
    assert both(store, query(0)) == before
    is_noticed = (name, way) != ("codes", 3)
    assert [message.split(" cannot be used: ")[0] for message in caplog.messages] == [str(path.parent)] * is_noticed
    caplog.clear()
    assert both(store, query(0)) == before and caplog.messages == []


def test_an_index_that_cannot_be_used_is_left_out_with_a_line(store, no_video_is_few, caplog):
    ids = [save_video(store, number) for number in range(6)]
    store.path_of(ids[2], SPEC).write_bytes(b"no index")
    assert ids[2] not in {video_id for video_id, _ in both(store, query(0), 60)}
    assert "left out: " in caplog.text


# --- which videos are searched ---------------------------------------------------------------------------------------


@pytest.mark.slow
@given(
    videos=st.lists(st.sampled_from(["0" * 16, "/videos/1/1.mp4", "/videos/1"]), max_size=2),
    folder=st.sampled_from([None, "/videos", "/videos/1", "/videos/1/", "/vid"]),
    lengths=st.tuples(*[st.sampled_from([None, 100.0, 192.0, 200.0])] * 2),
)
@settings(max_examples=60, deadline=None)
def test_a_filter_holds_in_the_table_as_in_the_indexes(videos, folder, lengths, filtered_store):
    condition = LibraryFilter(tuple(videos), folder and Path(folder), None, None, *lengths)
    places = both(filtered_store, query(0), 100, condition)
    paths = {f"{number:016x}": f"/videos/{number % 3}/{number}.mp4" for number in range(9)}
    expected = {
        video_id
        for video_id, path in paths.items()
        if (not videos or video_id in videos or path in videos)
        and (folder is None or Path(folder) in Path(path).parents)
        and (lengths[0] is None or lengths[0] <= 192)
        and (lengths[1] is None or lengths[1] >= 192)
    }
    assert {video_id for video_id, _ in places} == expected and len(places) == min(100, 12 * len(expected))


@pytest.fixture(scope="module")
def filtered_store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("filtered"))
    few, lvqa.library.find.FEW_VIDEOS = lvqa.library.find.FEW_VIDEOS, 0
    for number in range(9):
        save_video(store, number)
    yield store
    lvqa.library.find.FEW_VIDEOS = few


def test_videos_are_told_by_when_their_files_were_changed(store, no_video_is_few, tmp_path):
    for number in range(4):
        path = tmp_path / f"{number}.mp4"
        path.touch()
        os.utime(path, (1000.0 * number, 1000.0 * number))
        video_id = f"{number:016x}"
        store.save(
            make_index(3, 32, seed=number, video_id=video_id),
            Video(path, video_id, 48.0, 48, 64, 25.0),
        )
    places = both(store, query(0), 10, LibraryFilter(since=1000.0, until=3000.0))
    assert {int(video_id, 16) for video_id, _ in places} == {1, 2}
    with pytest.raises(LvqaError, match="since must be a finite number, got nan"):
        LibraryFilter(since=float("nan"))


# --- who writes it ---------------------------------------------------------------------------------------------------


def test_many_small_segments_are_joined(store):
    table = ClipTable(store, SPEC)
    for number in range(3 * MAX_SMALL_SEGMENTS):
        save_video(store, number)
        table.update(indexed_states(store, SPEC))
        assert len(segments(store)) <= MAX_SMALL_SEGMENTS + 1
    assert table.read(indexed_states(store, SPEC)).lacking == []


def test_while_another_process_writes_nothing_is_missed(store, no_video_is_few, monkeypatch):
    for number in range(5):
        save_video(store, number)
    expected = both(store, query(0))
    with ClipTable(store, SPEC)._locked():
        save_video(store, 5)
        finder = ClipFinder(store, SPEC)
        assert len(finder.find(query(0), 10, ALL_VIDEOS)) == len(expected)
        (warning,) = finder.warnings
        assert "another process is adding" in warning and "1 video" in warning
        with pytest.raises(BusyError):
            ClipTable(store, SPEC).update(indexed_states(store, SPEC))
        both(store, query(0))


def test_a_store_that_cannot_be_written_is_searched(store, no_video_is_few):
    for number in range(4):
        save_video(store, number)
    (store.folder.parent / "library").write_text("no folder")
    finder = ClipFinder(store, SPEC)
    assert len(finder.find(query(0), 10, ALL_VIDEOS)) == 10 and "cannot write" in finder.warnings[0]
    both(store, query(0))


@contextmanager
def writer_of(store: Store, first: int, last: int, at_once: int) -> Iterator[subprocess.Popen]:
    words = [sys.executable, TESTS / "library_writer.py", store.folder.parent, first, last, at_once]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    with subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True, env=environment) as writer:
        try:
            yield writer
        finally:
            writer.kill()


@pytest.mark.slow
def test_a_killed_writer_loses_no_video_that_it_has_reported(store, no_video_is_few):
    rng, reported = random.Random(3), set[str]()
    for run in range(5):
        with writer_of(store, 1000 * run, 1000 * run + 999, at_once=2) as writer:
            lines = [writer.stdout.readline() for _ in range(3)]
            time.sleep(rng.uniform(0, 0.4))
            writer.kill()
            reported |= {line.strip() for line in [*lines, *writer.stdout.readlines()] if line.endswith("\n")}
    assert len(reported) >= 15
    places = both(store, query(0), 12 * 6000)
    assert {video_id for video_id, _ in places} >= reported and len(places) == len(set(places))
    assert ClipTable(store, SPEC).read(indexed_states(store, SPEC)).lacking == []
    save_video(store, 9000)
    both(store, query(0))  # who writes next removes what a killed writer has left
    assert not list(store.folder.parent.glob("library/*/.*.tmp"))


@pytest.mark.slow
def test_several_writers_add_each_video_once(store, no_video_is_few):
    with ExitStack() as stack:
        writers = [stack.enter_context(writer_of(store, first, first + 40, at_once=3)) for first in (0, 20, 100)]
        outputs = [writer.communicate()[0].split() for writer in writers]
        assert [writer.returncode for writer in writers] == [0, 0, 0]
    places = both(store, query(0), 12 * 200)
    assert {video_id for video_id, _ in places} == {line for lines in outputs for line in lines}
    assert len(places) == len(set(places)) == 12 * 100


def test_what_is_forgotten_is_in_no_table(store, no_video_is_few):
    ids = [save_video(store, number) for number in range(4)]
    halves = store.load(ids[1], SPEC).halves.tobytes()
    both(store, query(0))
    assert any(halves in path.read_bytes() for path in table_files(store))
    Library(store).forget(ids[1])
    assert not any(halves in path.read_bytes() for path in table_files(store))
    assert {video_id for video_id, _ in both(store, query(0), 48)} == {ids[0], ids[2], ids[3]}


def test_prune_removes_tables_that_no_search_uses(store, no_video_is_few):
    ids = [save_video(store, number) for number in range(3)]
    both(store, query(0))
    for video_id in ids:
        store.path_of(video_id, SPEC).unlink()
    (removal,) = Library(store).prune()
    assert removal.reason == "no index is searched by it any more" and removal.num_bytes > 0
    assert list((store.folder.parent / "library").glob("*")) == []


# --- codes and moments -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_codes_of_one_bit_rank_nearly_as_the_vectors():
    rng, dim = np.random.default_rng(0), 2048
    centres = rng.normal(size=(50, dim)) / np.sqrt(np.arange(1, dim + 1))
    vectors = centres[rng.integers(0, 50, 6000)] + rng.normal(size=(6000, dim)) / np.sqrt(np.arange(1, dim + 1)) + 0.1
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    coder, mean = ClipCodes(dim), vectors[:1000].mean(axis=0)
    codes = coder.encode(vectors, mean)
    assert codes.shape == (6000, coder.num_bytes) and coder.num_bytes < dim / 7
    recalls = []
    for i in range(20):
        _, rows = coder.nearest(vectors[i], mean, coder.load(codes), 200)
        recalls.append(len({*rows} & {*np.argsort(-(vectors @ vectors[i]))[:50]}) / 50)
        masked = coder.nearest(vectors[i], mean, coder.load(codes), 200, np.arange(6000) % 3 == 1)[1]
        assert (masked % 3 == 1).all() and len(masked) == 200
    assert np.mean(recalls) > 0.99


clip_lists = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), unique=True, max_size=20)


@settings(deadline=None)
@given(clip_lists, st.integers(1, 5))
def test_moments_are_runs_of_the_best_clips(places, top):
    candidates = [Candidate(Clip(v, 16.0 * i, 16.0 * i + 16), -float(n)) for n, (v, i) in enumerate(places)]
    moments = join_moments(candidates, top)
    assert len(moments) <= top and (len(moments) >= 1 or not places)
    for number, moment in enumerate(moments):
        inside = [c for c in candidates if covers(moment.clip, c.clip)]
        assert sum(c.end_seconds - c.start_seconds for c in inside) == moment.end_seconds - moment.start_seconds
        assert moment.embed_score == max(c.embed_score for c in inside)
        for other in moments[:number]:
            assert other.embed_score > moment.embed_score and not covers(other.clip, moment.clip)
    covered = [any(covers(moment.clip, c.clip) for moment in moments) for c in candidates]
    assert covered == sorted(covered, reverse=True)  # no clip is left out for one that is worse


def covers(outer: Clip, inner: Clip) -> bool:
    is_inside = outer.start_seconds <= inner.start_seconds and inner.end_seconds <= outer.end_seconds
    return outer.video_id == inner.video_id and is_inside
