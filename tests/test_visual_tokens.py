"""The store of visual tokens, with a model whose tokens name the frames that were encoded."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import video_files
from torch import Tensor

import lvqa.video.pixel_reader
import lvqa.visual_tokens
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.pairs import Pair, aligned_pairs, pairs_of_clip, runs_of_pairs
from lvqa.records import Clip, Counts, Video
from lvqa.token_file import TokenBound, TokenFile
from lvqa.video import DecodeOptions, FrameGrid, PixelReader, cut_clips, inspect_video
from lvqa.visual_tokens import VisualTokens

CELL, CELLS = 16, 60
PAIR_BYTES = CELLS * 2 * 4
FRAMES_PER_STEP = 5  # video frames from one grid frame to the next


class NumberModel:
    """A model whose tokens are the numbers of the two video frames that they were made from. It records its work."""

    max_pixels = 1 << 20

    def __init__(self) -> None:
        self.counts = Counts()
        self.encoded: list[Pair] = []
        self.calls = 0
        self.at_once = 12

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        return height, width

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        return height // CELL, width // CELL

    def pairs_at_once(self, height: int, width: int) -> int:
        return self.at_once

    def encode_pairs(self, pixels: np.ndarray) -> Tensor:
        numbers = [tuple(video_files.number_of(frame) for frame in pair) for pair in pixels]
        self.encoded += [(a // FRAMES_PER_STEP, b // FRAMES_PER_STEP) for a, b in numbers]
        self.calls += 1
        self.counts.pairs_encoded += len(pixels)
        return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, CELLS, -1).clone()


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Video:
    """Write 16.2 s at 25 frames a second, which are 81 grid frames at 5 a second."""
    return inspect_video(video_files.write_video(tmp_path_factory.mktemp("visual") / "video.mp4", 405))


@pytest.fixture
def model() -> NumberModel:
    return NumberModel()


@pytest.fixture
def store(video, model) -> VisualTokens:
    return make_store(video, model)


def make_store(video: Video, model: NumberModel, **options) -> VisualTokens:
    return VisualTokens(video, FrameGrid.exact(video, 5.0), model, **options)


def read(store: VisualTokens, groups: Sequence[Sequence[Pair]]) -> list[list[Pair]]:
    """Return the grid frames that the tokens of each group were made from."""
    pairs_of_groups = []
    for tokens in store.stream(groups):
        assert all(token.shape == (CELLS, 2) and (token == token[0]).all() for token in tokens)
        pairs_of_groups.append([grid_pair(token) for token in tokens])
    return pairs_of_groups


def grid_pair(tokens: Tensor) -> Pair:
    return tuple((tokens[0] / FRAMES_PER_STEP).int().tolist())


def pairs(*firsts: int) -> list[Pair]:
    return [(first, first + 1) for first in firsts]


SECONDS = FrameGrid(np.arange(50.0), 1.0)


# --- naming pairs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "num_frames", "rate", "expected"),
    [
        (0, 4, 10, 1.0, [(0, 1), (2, 3)]),
        (4, 10, 10, 1.0, [(4, 5), (6, 7), (8, 9)]),
        (8, 10.7, 11, 1.0, [(8, 9), (10, 10)]),  # the last frame of an odd grid is alone
        (8, 8.5, 9, 1.0, [(8, 8)]),
        (0, 0.4, 1, 1.0, [(0, 0)]),
        (0, 2, 8, 2.0, [(0, 1), (2, 3)]),
        (2, 4, 7, 2.0, [(4, 5), (6, 6)]),
        (0, 8, 4, 0.5, [(0, 1), (2, 3)]),
    ],
)
def test_pairs_of_a_clip(start, end, num_frames, rate, expected):
    assert pairs_of_clip(Clip("video", start, end), FrameGrid(np.arange(num_frames) / rate)) == expected


@pytest.mark.parametrize("num_frames", [1, 2, 3, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("rate", [0.3, 1.0, 5.0, 29.97])
@pytest.mark.parametrize("clip_seconds", [1.0, 4.0, 16.0])
def test_clips_share_out_all_pairs_of_a_grid(num_frames, rate, clip_seconds):
    video = Video(Path("/video.mp4"), "video", num_frames / rate, 96, 160, 25.0)
    grid = FrameGrid(np.arange(num_frames) / rate, 1 / rate)
    all_pairs = [pair for clip in cut_clips(video, grid, clip_seconds) for pair in pairs_of_clip(clip, grid)]
    assert all_pairs == [(k, min(k + 1, num_frames - 1)) for k in range(0, num_frames, 2)]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([], []),
        ([0], [(0, 0)]),
        ([1], [(1, 1)]),
        ([0, 1], [(0, 1)]),
        ([1, 0, 1], [(0, 1)]),
        ([1, 2], [(1, 1), (2, 2)]),  # neighbours, but of two pairs
        ([1, 2, 3], [(1, 1), (2, 3)]),
        ([0, 1, 2], [(0, 1), (2, 2)]),
        ([8, 3, 9, 40], [(3, 3), (8, 9), (40, 40)]),
        (range(5), [(0, 1), (2, 3), (4, 4)]),
    ],
)
def test_aligned_pairs(frames, expected):
    assert aligned_pairs(frames, SECONDS) == expected
    assert aligned_pairs(iter(frames), SECONDS) == expected


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ([], []),
        ([(0, 1)], [[(0, 1)]]),
        ([(0, 1), (2, 3)], [[(0, 1), (2, 3)]]),
        ([(0, 1), (4, 5)], [[(0, 1)], [(4, 5)]]),
        ([(1, 1), (2, 3), (4, 4), (6, 7)], [[(1, 1), (2, 3), (4, 4)], [(6, 7)]]),
        ([(3, 3), (5, 5)], [[(3, 3)], [(5, 5)]]),
        ([(0, 0), (2, 3)], [[(0, 0)], [(2, 3)]]),  # frame 1 is lacking between them
    ],
)
def test_runs_of_pairs(sequence, expected):
    assert runs_of_pairs(sequence, SECONDS) == expected


def test_no_pair_and_no_run_goes_across_a_gap():
    grid = FrameGrid(np.array([0.0, 1, 2, 600, 601]), 1.0)
    assert [grid.pair(pair_id) for pair_id in range(grid.num_pairs)] == [(0, 1), (2, 2), (3, 4)]
    assert aligned_pairs(range(5), grid) == [(0, 1), (2, 2), (3, 4)]
    assert runs_of_pairs([(0, 1), (2, 2), (3, 4)], grid) == [[(0, 1), (2, 2)], [(3, 4)]]


# --- the store ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tokens_are_those_of_the_frames_that_were_named(store):
    groups = [pairs(0, 2), [(5, 5)], pairs(8), [(80, 80)]]
    assert read(store, groups) == groups
    assert store.counts == Counts(frames_decoded=8, pairs_encoded=5)


def test_a_pair_is_decoded_and_encoded_once(store, model):
    everything = [pairs(*range(first, first + 10, 2)) for first in range(0, 80, 10)]
    assert read(store, everything) == everything
    spent = Counts(frames_decoded=80, pairs_encoded=40)
    assert store.counts == spent
    assert read(store, everything) == everything
    assert read(store, [pairs(78, 4, 40)]) == [pairs(78, 4, 40)]
    assert store.counts == spent
    assert sorted(model.encoded) == pairs(*range(0, 80, 2))


def test_only_what_is_new_is_decoded(store):
    read(store, [pairs(0, 2)])
    assert read(store, [pairs(0, 2, 4), pairs(10)]) == [pairs(0, 2, 4), pairs(10)]
    assert store.counts == Counts(frames_decoded=8, pairs_encoded=4)


def test_a_frame_alone_is_a_pair_of_its_own(store):
    read(store, [pairs(4)])
    assert read(store, [aligned_pairs([4], store.grid)]) == [[(4, 4)]]
    assert store.counts == Counts(frames_decoded=3, pairs_encoded=2)
    assert read(store, [aligned_pairs([4, 5], store.grid)]) == [pairs(4)]
    assert store.counts == Counts(frames_decoded=3, pairs_encoded=2)


def test_a_stream_reads_the_video_once_and_encodes_a_group_together(store, model, monkeypatch):
    openings = []

    def counted(*args, **options):
        openings.append(args[1])
        return read_frames(*args, **options)

    read_frames = lvqa.video.pixel_reader.read_frames
    monkeypatch.setattr(lvqa.video.pixel_reader, "read_frames", counted)
    groups = [pairs(*range(first, first + 16, 2)) for first in range(0, 80, 16)]
    assert read(store, groups) == groups
    assert len(openings) == 1 and len(openings[0]) == 80
    assert model.calls == len(groups)
    assert read(store, groups) == groups
    assert [len(times) for times in openings] in ([80], [80, 0])


@pytest.mark.parametrize(("at_once", "batches"), [(1, 5), (15, 5), (16, 3), (23, 3), (24, 2), (1000, 1)])
def test_groups_are_encoded_together_as_far_as_they_fill_a_batch(store, model, at_once, batches):
    model.at_once = at_once
    groups = [pairs(*range(first, first + 16, 2)) for first in range(0, 80, 16)]
    assert read(store, groups) == groups
    assert model.calls == batches
    assert model.encoded == pairs(*range(0, 80, 2))


def test_a_pair_of_two_groups_is_encoded_once(store, model):
    model.at_once = 1000
    assert read(store, [pairs(0, 2), pairs(2, 4)]) == [pairs(0, 2), pairs(2, 4)]
    assert model.encoded == pairs(0, 2, 4)


def test_a_stream_is_lazy(store):
    stream = store.stream([pairs(*range(first, first + 16, 2)) for first in range(0, 80, 16)])
    assert store.counts == Counts()
    next(stream)
    assert store.counts.pairs_encoded == 8
    stream.close()
    assert store.counts.pairs_encoded == 8
    deadline = time.monotonic() + 5
    while any(thread.name == "lvqa-decode" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the decoder goes on although nobody listens"
        time.sleep(0.01)
    assert read(store, [pairs(0, 40)]) == [pairs(0, 40)]


@pytest.mark.parametrize("max_pairs", [0, 1, 3, 7])
def test_memory_is_bounded_and_the_tokens_stay_correct(video, model, max_pairs):
    store = make_store(video, model, memory_bytes=max_pairs * PAIR_BYTES)
    groups = [pairs(*range(first, first + 10, 2)) for first in range(0, 80, 10)]
    for _ in range(2):
        stream = store.stream(groups)
        for group in groups:
            assert [grid_pair(tokens) for tokens in next(stream)] == group
    assert store.counts == Counts(frames_decoded=160, pairs_encoded=80)  # each pair was dropped before its next turn
    last = pairs(*range(80 - 2 * max_pairs, 80, 2))
    for (tokens,) in store.stream([[pair] for pair in last]):
        assert tokens.untyped_storage().nbytes() == PAIR_BYTES, "a part of a batch would keep the whole batch alive"
    assert store.counts.pairs_encoded == 80, "the last pairs are kept"
    read(store, [pairs(78 - 2 * max_pairs)])
    assert store.counts.pairs_encoded == 81, "and no more than these"


def test_the_least_recently_used_pair_is_dropped(video, model):
    store = make_store(video, model, memory_bytes=3 * PAIR_BYTES)
    read(store, [pairs(0, 2, 4)])
    read(store, [pairs(0)])
    read(store, [pairs(6)])
    assert model.encoded == pairs(0, 2, 4, 6)
    read(store, [pairs(0, 4, 6)])
    assert model.encoded == pairs(0, 2, 4, 6)
    read(store, [pairs(2)])
    assert model.encoded == pairs(0, 2, 4, 6, 2)


def test_tokens_that_are_dropped_during_a_stream_are_encoded_again(video, model):
    store = make_store(video, model, memory_bytes=2 * PAIR_BYTES)
    model.at_once = 3
    read(store, [pairs(40)])
    groups = [pairs(0, 2, 4), pairs(40), pairs(60)]
    assert read(store, groups) == groups
    assert model.encoded.count((40, 41)) == 2


def test_pairs_are_reported_as_they_become_ready(store):
    reports: list[int] = []
    store.on_pairs = reports.append
    read(store, [pairs(0, 2), pairs(4), pairs(0)])
    read(store, [pairs(0, 2)])
    assert reports == [2, 1, 1, 2]


def test_a_damaged_video_is_read_and_its_damage_counted(video, model, tmp_path):
    store = make_store(inspect_video(video_files.damaged(video.path, tmp_path / "damaged.mp4")), model)
    (group,) = read(store, [pairs(*range(0, 80, 2))])
    assert store.substituted
    assert group[:5] == pairs(0, 2, 4, 6, 8)


# --- clips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "seconds"),
    [
        (pairs(0, 2, 4), ((0.0, 0.2), (0.4, 0.6), (0.8, 1.0))),
        (pairs(10, 12), ((0.0, 0.2), (0.4, 0.6))),
        ([(3, 3), *pairs(4, 40)], ((0.0, 0.0), (0.2, 0.4), (7.4, 7.6))),
        ([(80, 80)], ((0.0, 0.0),)),
    ],
)
def test_the_seconds_of_a_clip_count_from_its_start(store, group, seconds):
    (clip,) = store.clips([group])
    assert (clip.rows, clip.cols) == (6, 10)
    assert np.array(clip.seconds) == pytest.approx(np.array(seconds))
    assert clip.tokens.shape == (len(group), CELLS, 2)
    assert [grid_pair(tokens) for tokens in clip.tokens] == list(group)


@pytest.mark.parametrize(("start_seconds", "seconds"), [(0.0, ((2.0, 2.2), (8.0, 8.2))), (None, ())])
def test_seconds_count_from_another_start_or_are_left_out(store, start_seconds, seconds):
    tokens = next(store.stream([pairs(10, 40)]))
    assert store.clip_tokens(pairs(10, 40), tokens, start_seconds=start_seconds).seconds == seconds


def test_the_model_gives_the_same_tokens_in_every_order(video):
    model = Qwen25VL.load("tiny", device="cpu")
    grid = FrameGrid.exact(video, 5.0)
    groups = [pairs(0, 2, 4, 6), [(9, 9)], pairs(20, 22)]
    store = VisualTokens(video, grid, model)
    first = [torch.stack(tokens) for tokens in store.stream(groups)]
    again = [torch.stack(tokens) for tokens in store.stream(groups)]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    for group, tokens in zip(groups, first, strict=True):
        for pair, token in zip(group, tokens, strict=True):
            fresh = next(VisualTokens(video, grid, model).stream([[pair]]))[0]
            torch.testing.assert_close(fresh, token, atol=1e-5, rtol=1e-4)


def test_tokens_on_disk_are_whole_or_none(tmp_path):
    path = tmp_path / "video.tokens"
    file = TokenFile(path, num_pairs=4, width=2, bound=TokenBound(4 * 8))
    assert file.has_room(8) and not file.has_room(9)
    assert file.read(0) is None
    file.write({2: b"8 bytes.", 0: b"others.."})
    assert (file.read(0), file.read(1), file.read(2), file.read(3)) == (b"others..", None, b"8 bytes.", None)
    content = path.read_bytes()
    path.write_bytes(content[:-1])  # torn
    assert (file.read(0), file.read(2)) == (b"others..", None)
    path.write_bytes(content.replace(b"others", b"Others"))
    assert (file.read(0), file.read(2)) == (None, b"8 bytes.")
    later = tmp_path / "no folder" / "video.tokens"
    TokenFile(later, num_pairs=4, width=2, bound=TokenBound(32)).write({0: b"8 bytes."})
    assert not later.parent.exists()


class StoredNumberModel(NumberModel):
    """Its tokens can be kept in a file."""

    dtype, device = torch.float32, torch.device("cpu")


@pytest.mark.parametrize("max_pairs", [0, 3, 1000])
def test_what_does_not_fit_into_memory_is_read_from_the_disk(video, tmp_path, max_pairs):
    """Of a video of any length a pair is decoded once, by all processes together."""

    def fresh() -> tuple[VisualTokens, StoredNumberModel]:
        model = StoredNumberModel()
        file = TokenFile(tmp_path / "video.tokens", num_pairs=41, width=2, bound=TokenBound(1 << 20))
        return make_store(video, model, memory_bytes=max_pairs * PAIR_BYTES, file=file), model

    groups = [pairs(*range(first, first + 10, 2)) for first in range(0, 80, 10)]
    store, model = fresh()
    for _ in range(2):
        assert read(store, groups) == groups
        store.release_file()
    assert store.counts == Counts(frames_decoded=80, pairs_encoded=40) and store.nbytes <= max_pairs * PAIR_BYTES
    second, model = fresh()
    assert read(second, groups) == groups
    assert (second.counts, model.encoded) == (Counts(), [])


def test_pairs_that_an_answer_packs_are_kept_on_disk(video, tmp_path):
    """Also those of frames that lie apart, and of one frame."""
    packed = [[(0, 2), (1, 1)], [(7, 40)], pairs(4)]
    for num_encoded in (4, 0):
        file = TokenFile(tmp_path / "video.tokens", num_pairs=41, width=2, bound=TokenBound(1 << 20))
        store = make_store(video, StoredNumberModel(), file=file)
        assert read(store, packed) == packed
        assert store.counts.pairs_encoded == num_encoded


# --- decoded ahead ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stopped", [False, True])
def test_what_another_thread_decoded_ahead_is_used(video, model, store, monkeypatch, is_stopped):
    groups, stop = [pairs(0, 2, 4), pairs(6, 8)], threading.Event()
    if is_stopped:
        stop.set()
    thread = threading.Thread(target=store.decode_ahead, args=(groups, stop))
    thread.start()
    thread.join()
    assert model.counts.frames_decoded == 0, "frames count where they are used"
    if not is_stopped:  # the file is not opened again
        monkeypatch.setattr(lvqa.video.pixel_reader, "read_frames", None)
    assert read(store, groups) == groups
    assert model.counts.frames_decoded == 10


def test_what_was_decoded_ahead_in_vain_is_forgotten(model, store):
    store.decode_ahead([pairs(0, 2)], threading.Event())
    assert read(store, [pairs(4, 6)]) == [pairs(4, 6)]
    assert read(store, [pairs(0, 2)]) == [pairs(0, 2)]
    assert model.counts.frames_decoded == 8


def test_frames_decoded_ahead_are_bounded(video, monkeypatch):
    """A batch goes beyond the bound, and no second one is decoded before it is needed."""
    real, num_batches, times = lvqa.video.pixel_reader.read_frames, [], FrameGrid.exact(video, 5.0).times_seconds

    def counting(*arguments, **options):
        for batch in real(*arguments, **options):
            num_batches.append(len(batch.pixels))
            yield batch

    monkeypatch.setattr(lvqa.video.pixel_reader, "read_frames", counting)
    size, options = (video.height, video.width), DecodeOptions("pyav", 1, 30.0)
    reader = PixelReader(video, range(80), times[:80], size=size, options=options, on_batch=lambda *_: None)
    reader.read_ahead(threading.Event(), max_bytes=video.height * video.width * 3)
    assert num_batches == [64]
    assert video_files.number_of(reader.frame(79)) == 79 * FRAMES_PER_STEP and num_batches == [64, 16]
