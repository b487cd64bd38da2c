import dataclasses
import inspect
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from lvqa.records import Candidate, Clip, LvqaError
from lvqa.selection import SELECTORS, FreeRetSelector, Selector, UniformSelector, grid_scores, make_selector

# peers.md, fixture A.
FIXTURE = np.array([0.1, 0.2, 0.9, 0.8, 0.1, 0.1, 0.3, 0.2, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.2, 0.1])


def scores_like(kind: str, n: int) -> np.ndarray | None:
    rng = np.random.default_rng(n)
    return {
        "none": None,
        "constant": np.full(n, 0.25),
        "one hot": np.eye(1, n, n // 2)[0],
        "random": rng.normal(size=n),
        "nan": np.where(rng.random(n) < 0.5, np.nan, rng.normal(size=n)),
        "all nan": np.full(n, np.nan),
        "inf": rng.choice([np.inf, -np.inf, 0.0, np.nan], size=n),
        "int": rng.integers(0, 3, size=n),
    }[kind]


def clips_of(n: int, length: int) -> np.ndarray:
    return np.arange(n) // length


# --- the contract, for every selector ------------------------------------------------------------------------------


@pytest.fixture(params=sorted(SELECTORS))
def selector(request) -> Selector:
    return SELECTORS[request.param]()


@pytest.mark.parametrize("kind", ["none", "constant", "one hot", "random", "nan", "all nan", "inf", "int"])
@pytest.mark.parametrize("n", [1, 2, 5, 16, 17, 61, 300])
def test_exactly_the_budget_sorted_distinct_and_of_the_grid(selector, n, kind):
    times, scores = np.arange(n) / 0.7, scores_like(kind, n)
    for m, clip_ids in itertools.product([1, 2, 3, 16, 32, 33, 64, n - 1, n, n + 1], [None, clips_of(n, 16)]):
        if m < 1:
            continue
        selection = selector.select(times, num_frames=m, scores=scores, clip_ids=clip_ids, video_id="v")
        chosen = selection.times_seconds
        assert selection.video_id == "v" and len(chosen) == min(m, n)
        assert list(chosen) == sorted(set(chosen)) and set(chosen) <= set(times.tolist())
        assert all(type(seconds) is float for seconds in chosen)


def test_clips_may_have_any_ids_lengths_and_places(selector):
    rng = np.random.default_rng(3)
    for _ in range(50):
        n = int(rng.integers(1, 60))
        m = int(rng.integers(1, 60))
        clip_ids = rng.integers(-1, 6, size=n)
        selection = selector.select(np.arange(n), num_frames=m, scores=rng.normal(size=n), clip_ids=clip_ids)
        assert len(set(selection.times_seconds)) == min(m, n)


@pytest.mark.parametrize("wrong", [0, -1, 1.0, 16.5, "16", True, None, float("nan")])
def test_a_budget_that_is_none_is_refused_with_what_is_allowed(selector, wrong):
    with pytest.raises(LvqaError, match="whole number, 1 or more") as caught:
        selector.select(np.arange(4.0), num_frames=wrong)
    assert repr(wrong) in str(caught.value)


def test_numpy_integers_are_numbers_of_frames(selector):
    assert len(selector.select(np.arange(4.0), num_frames=np.int64(2)).times_seconds) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"times_seconds": np.array([])},
        {"times_seconds": np.array([0.0, 2.0, 1.0, 3.0])},
        {"times_seconds": np.array([0.0, 1.0, 1.0, 3.0])},
        {"times_seconds": np.array([0.0, 1.0, np.nan, 3.0])},
        {"times_seconds": np.zeros((4, 1))},
        {"scores": np.zeros(3)},
        {"scores": np.zeros((4, 1))},
        {"clip_ids": np.zeros(5, int)},
    ],
    ids=str,
)
def test_an_input_that_only_a_bug_can_make_is_refused(selector, wrong):
    with pytest.raises(ValueError, match="times"):
        selector.select(**{"times_seconds": np.arange(4.0), "num_frames": 2, **wrong})


def test_inputs_are_left_as_they_are_and_the_same_input_gives_the_same(selector):
    times, scores, clip_ids = np.arange(40.0), scores_like("nan", 40), clips_of(40, 8)
    assert scores is not None
    for array in (times, scores, clip_ids):
        array.setflags(write=False)
    ask = {"num_frames": 9, "scores": scores, "clip_ids": clip_ids, "video_id": "v", "question_id": "q"}
    first = selector.select(times, **ask)
    assert all(selector.select(times, **ask) == first for _ in range(3))
    assert selector.select(times.tolist(), **{**ask, "scores": scores.tolist()}) == first


def test_nan_is_the_lowest_and_only_the_order_of_scores_counts(selector):
    scores = np.random.default_rng(1).normal(size=64)
    ask = {"num_frames": 10, "clip_ids": clips_of(64, 16)}
    chosen = selector.select(np.arange(64), scores=scores, **ask)
    assert selector.select(np.arange(64), scores=scores * 3 + 5, **ask) == chosen
    low = np.where(scores < 0, -np.inf, scores)
    nan = np.where(scores < 0, np.nan, scores)
    assert selector.select(np.arange(64), scores=low, **ask) == selector.select(np.arange(64), scores=nan, **ask)


ELSEWHERE = """
import numpy as np
from lvqa.selection import SELECTORS
for name, make in sorted(SELECTORS.items()):
    chosen = make().select(np.arange(100), num_frames=7, scores=np.arange(100) % 13, clip_ids=np.arange(100) // 8,
                           video_id="abc", question_id="17")
    print(name, [int(second) for second in chosen.times_seconds])
"""


def test_every_process_chooses_the_same():
    def output(hash_seed: str) -> str:
        command = [sys.executable, "-c", ELSEWHERE]
        return subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        ).stdout

    assert output("1") == output("2")
    # Pinned, so that a published run can be repeated.
    assert "random [9, 10, 21, 27, 32, 52, 99]" in output("3")


def test_every_selector_is_a_dataclass_of_keywords_with_defaults(selector):
    assert dataclasses.is_dataclass(selector) and isinstance(type(selector).needs_scores, bool)
    parameters = inspect.signature(type(selector)).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters)
    if not type(selector).needs_scores:
        ask = {"num_frames": 5, "video_id": "v"}
        scores = scores_like("random", 40)
        assert selector.select(np.arange(40), scores=scores, **ask) == selector.select(np.arange(40), **ask)


# --- uniform -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uniform", "n", "m", "expected"),
    [
        ("midpoint", 16, 4, [2, 6, 10, 14]),
        ("linspace", 16, 4, [0, 5, 10, 15]),
        ("interior", 16, 4, [3, 6, 9, 12]),
        ("midpoint", 10, 1, [5]),
        ("linspace", 10, 1, [5]),
        ("interior", 10, 1, [5]),
        ("midpoint", 10, 3, [1, 5, 8]),
        ("linspace", 10, 3, [0, 4, 9]),
        ("interior", 10, 3, [2, 5, 7]),
        ("midpoint", 5, 4, [0, 1, 3, 4]),
        ("linspace", 5, 4, [0, 1, 2, 4]),
        ("interior", 5, 4, [1, 2, 3, 4]),
        ("midpoint", 3, 16, [0, 1, 2]),
        ("linspace", 3, 16, [0, 1, 2]),
        ("interior", 3, 16, [0, 1, 2]),
    ],
)
def test_uniform_worked(uniform, n, m, expected):
    selection = UniformSelector(uniform=uniform).select(np.arange(n) * 0.5, num_frames=m)
    assert selection.times_seconds == tuple(0.5 * frame for frame in expected)


@pytest.mark.parametrize("uniform", ["midpoint", "linspace", "interior"])
def test_uniform_is_distinct_for_every_size(uniform):
    selector = UniformSelector(uniform=uniform)
    for n in range(1, 70):
        for m in range(1, n + 2):
            assert len(selector.select(np.arange(n), num_frames=m).times_seconds) == min(n, m)


def test_uniform_refuses_another_spacing():
    with pytest.raises(LvqaError, match="midpoint, linspace, interior, got 'middle'"):
        UniformSelector(uniform="middle")  # type: ignore[arg-type]


# --- freeret -------------------------------------------------------------------------------------------------------

# Four clips of eight frames; best first they are 2 (16..23), 0 (0..7), 3 (24..31), 1 (8..15).
FOUR = np.repeat([0.8, 0.1, 0.9, 0.5], 8)


@pytest.mark.parametrize(
    ("m", "expected"),
    [
        (1, [20]),
        (2, [20, 21]),
        (3, [18, 19, 22]),
        (4, [18, 19, 22, 23]),
        (5, [4, 18, 19, 22, 23]),
        (6, [4, 5, 18, 19, 22, 23]),
        (8, [2, 3, 6, 7, 18, 19, 22, 23]),
        (10, [2, 3, 6, 7, 18, 19, 22, 23, 28, 29]),
        (16, [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31]),
        # All clips used: again from the best, for the pairs that are left.
        (17, [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 20, 22, 23, 26, 27, 30, 31]),
        (20, [2, 3, 6, 7, 10, 11, 14, 15, *range(16, 24), 26, 27, 30, 31]),
        (24, [*range(8), 10, 11, 14, 15, *range(16, 24), 26, 27, 30, 31]),
        (32, list(range(32))),
        (99, list(range(32))),
    ],
)
def test_freeret_worked(m, expected):
    selector = FreeRetSelector(frames_per_clip=4)
    selection = selector.select(np.arange(32), num_frames=m, scores=FOUR, clip_ids=clips_of(32, 8))
    assert list(selection.times_seconds) == expected


@pytest.mark.parametrize(("m", "num_clips"), [(4, 1), (8, 2), (15, 4), (16, 4), (24, 4), (32, 4), (48, 4), (64, 4)])
def test_freeret_shows_four_clips_more_closely_by_default(m, num_clips):
    scores = np.repeat(np.arange(8.0), 16)
    selection = FreeRetSelector().select(np.arange(128), num_frames=m, scores=scores, clip_ids=clips_of(128, 16))
    assert len(selection.times_seconds) == m
    assert {int(seconds) // 16 for seconds in selection.times_seconds} == set(range(8 - num_clips, 8))


@pytest.mark.parametrize(
    ("frames_per_clip", "expected"),
    [
        (2, [4, 5, 12, 13, 20, 21, 28, 29]),
        (4, [2, 3, 6, 7, 18, 19, 22, 23]),
        (6, [4, 5, 16, 17, 20, 21, 22, 23]),
        (8, [*range(16, 24)]),
        (40, [*range(16, 24)]),
    ],
)
def test_freeret_with_other_frames_per_clip(frames_per_clip, expected):
    selector = FreeRetSelector(frames_per_clip=frames_per_clip)
    selection = selector.select(np.arange(32), num_frames=8, scores=FOUR, clip_ids=clips_of(32, 8))
    assert list(selection.times_seconds) == expected


def test_freeret_takes_the_default_clip_at_its_quarters():
    scores = np.eye(1, 64, 20)[0]
    selection = FreeRetSelector().select(np.arange(64), num_frames=4, scores=scores, clip_ids=clips_of(64, 16))
    assert selection.times_seconds == (20, 21, 28, 29)


def test_freeret_with_a_last_clip_of_one_frame():
    # Nine frames: the last pair of the grid has one. It is the best clip, and the budget is filled from the next.
    scores = np.repeat([0.1, 0.9], [8, 1])
    select = FreeRetSelector().select
    for m, expected in [(1, [8]), (2, [4, 8]), (3, [4, 5, 8]), (4, [2, 3, 6, 8]), (9, list(range(9)))]:
        selection = select(np.arange(9), num_frames=m, scores=scores, clip_ids=clips_of(9, 8))
        assert list(selection.times_seconds) == expected


def test_freeret_gives_whole_pairs_for_even_budgets():
    rng = np.random.default_rng(0)
    for m in (2, 4, 6, 16, 32, 64):
        scores = np.repeat(rng.normal(size=20), 16)
        selection = FreeRetSelector().select(np.arange(320), num_frames=m, scores=scores, clip_ids=clips_of(320, 16))
        chosen = set(selection.times_seconds)
        assert all(second + 1 in chosen for second in chosen if second % 2 == 0) and len(chosen) == m


def test_freeret_among_equal_clips_takes_the_earlier():
    selection = FreeRetSelector().select(np.arange(32), num_frames=4, scores=np.ones(32), clip_ids=clips_of(32, 8))
    assert selection.times_seconds == (2, 3, 6, 7)


@pytest.mark.parametrize("wrong", [0, -2, 1, 3, 4.0, True, "4"])
def test_freeret_refuses_half_pairs(wrong):
    with pytest.raises(LvqaError, match="frames_per_clip must be an even number, 2 or more"):
        FreeRetSelector(frames_per_clip=wrong)


# --- topk and random -----------------------------------------------------------------------------------------------


def test_topk_worked():
    select = make_selector("topk").select
    assert select(np.arange(16), num_frames=4, scores=FIXTURE).times_seconds == (2, 3, 6, 11)
    assert select(np.arange(16), num_frames=3, scores=np.ones(16)).times_seconds == (0, 1, 2)


def test_random_depends_on_seed_video_and_question_and_on_nothing_else():
    def drawn(seed: int = 0, video_id: str = "v", question_id: str = "q") -> tuple[float, ...]:
        selector = make_selector("random", seed=seed)
        return selector.select(np.arange(1000), num_frames=8, video_id=video_id, question_id=question_id).times_seconds

    draws = [drawn(), drawn(seed=1), drawn(video_id="w"), drawn(question_id="r"), drawn(video_id="vq", question_id="")]
    assert len(set(draws)) == 5 and drawn() == draws[0]


def test_random_is_fair():
    counts = np.zeros(10)
    for question in range(2000):
        chosen = make_selector("random").select(np.arange(10), num_frames=3, question_id=str(question))
        counts[np.array(chosen.times_seconds, int)] += 1
    # 600 each; the standard deviation is 20.
    assert (np.abs(counts - 600) < 100).all()


# --- by name, and from candidates ----------------------------------------------------------------------------------


def test_a_selector_by_name_takes_what_it_knows():
    options = {"frames_per_clip": 8, "uniform": "linspace", "seed": 3}
    assert make_selector("freeret", **options) == FreeRetSelector(frames_per_clip=8)
    assert make_selector("uniform", **options) == UniformSelector(uniform="linspace")
    with pytest.raises(LvqaError, match="method must be one of freeret, random, topk, uniform, got 'best'"):
        make_selector("best", **options)


def candidate(start: float, end: float, embed: float, rerank: float | None = None) -> Candidate:
    return Candidate(Clip("v", start, end), embed, rerank)


def test_frames_get_the_score_of_their_clip_whatever_the_order_of_candidates():
    times = np.arange(5) * 2.0
    found = grid_scores(times, [candidate(4, 8, 0.3), candidate(0, 4, 0.7)])
    assert found.scores.tolist() == [0.7, 0.7, 0.3, 0.3, -np.inf]
    assert found.clip_ids.tolist() == [1, 1, 0, 0, -1]
    assert grid_scores(times, []).scores.tolist() == [-np.inf] * 5


@pytest.mark.parametrize("reranked", [(0.02, 0.01), (-3.0, -7.0), (0.99, 0.98)])
def test_reranked_clips_stand_above_the_others(reranked):
    found = grid_scores(
        np.arange(5),
        [
            candidate(0, 1, 0.9),
            candidate(1, 2, 0.1, reranked[0]),
            candidate(2, 3, 0.2, reranked[1]),
            candidate(3, 4, 0.8),
            candidate(4, 5, float("nan")),
        ],
    )
    assert np.argsort(-found.scores, kind="stable").tolist() == [1, 2, 0, 3, 4]
    assert found.scores[1:3].tolist() == list(reranked)
    assert found.scores[0] - found.scores[3] == pytest.approx(0.1)


def test_a_rerank_score_that_is_no_number_counts_as_not_looked_at():
    found = grid_scores(np.arange(2), [candidate(0, 1, 0.5, float("nan")), candidate(1, 2, 0.4, 0.1)])
    assert found.scores[1] == 0.1 > found.scores[0]


def test_from_candidates_to_seconds():
    times = np.arange(64) / 2
    candidates = [candidate(8, 16, 0.9, 0.2), candidate(24, 32, 0.8, 0.7), candidate(0, 8, 0.6), candidate(16, 24, 0.5)]
    found = grid_scores(times, candidates)
    ask = {"num_frames": 10, "scores": found.scores, "clip_ids": found.clip_ids}
    chosen = FreeRetSelector().select(times, **ask).times_seconds
    assert chosen == (4, 4.5, 10, 10.5, 14, 14.5, 26, 26.5, 30, 30.5)
