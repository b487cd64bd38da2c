import re

import numpy as np
import pytest

from lvqa.records import Candidate, Clip, FrameSelection, LvqaError
from lvqa.selection import CONTROLS, FreeRetSelector, SelectorInput, UniformSelector, frame_scores, make_selector

# Fixture A of the project's notes on these methods.
FIXTURE = np.array([0.1, 0.2, 0.9, 0.8, 0.1, 0.1, 0.3, 0.2, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.2, 0.1])


def clips_of(n: int, length: int) -> np.ndarray:
    return np.arange(n) // length


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
def test_uniform_gives_the_frames_of_its_formulas(uniform, n, m, expected):
    selection = UniformSelector(uniform=uniform).select(SelectorInput(np.arange(n) * 0.5, m))
    assert selection.times_seconds == tuple(0.5 * frame for frame in expected)


@pytest.mark.slow
@pytest.mark.parametrize("uniform", ["midpoint", "linspace", "interior"])
def test_uniform_is_distinct_for_every_size(uniform):
    selector = UniformSelector(uniform=uniform)
    for n in range(1, 70):
        for m in range(1, n + 2):
            assert len(selector.select(SelectorInput(np.arange(n), m)).times_seconds) == min(n, m)


UNEVEN = [*range(100), *range(1000, 1101)]
"""The seconds of frames between which one stays for 15 minutes."""


@pytest.mark.parametrize(
    ("uniform", "times", "m", "expected"),
    [
        ("midpoint", [0, 1, 2, 3, 600], 2, [2, 3]),  # the fourth is on screen nearly all of the time
        ("midpoint", [0, 1, 2, 3, 600], 5, [0, 1, 2, 3, 600]),
        ("midpoint", [0, 1, 2, 10, 18, 26], 3, [2, 10, 26]),  # on screen at 5.7, 17 and 28.3 s
        ("midpoint", UNEVEN, 4, [33, 99, 1001, 1067]),  # what the long stay takes, the others get
        ("linspace", [0, 10, 11, 12, 13, 14, 20], 3, [0, 12, 20]),
        ("interior", [0, 10, 11, 12, 13, 14, 20], 1, [10]),
    ],
)
def test_uniform_spreads_over_time_and_not_over_frames(uniform, times, m, expected):
    selection = UniformSelector(uniform=uniform).select(SelectorInput(np.array(times), m))
    assert list(selection.times_seconds) == expected


@pytest.mark.parametrize("uniform", ["midpoint", "linspace", "interior"])
def test_uniform_is_distinct_on_every_grid(uniform):
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 40))
        inputs = SelectorInput(np.cumsum(rng.choice([0.1, 1.0, 7.3, 900.0], n)), int(rng.integers(1, 45)))
        assert inputs.find_problem(UniformSelector(uniform=uniform).select(inputs)) is None


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
def test_freeret_gives_pairs_of_the_best_clips(m, expected):
    selector = FreeRetSelector(frames_per_clip=4)
    selection = selector.select(SelectorInput(np.arange(32), m, scores=FOUR, clip_ids=clips_of(32, 8)))
    assert list(selection.times_seconds) == expected


@pytest.mark.parametrize(("m", "num_clips"), [(4, 1), (8, 2), (15, 4), (16, 4), (24, 4), (32, 4), (48, 4), (64, 4)])
def test_freeret_takes_more_of_four_clips_by_default(m, num_clips):
    scores = np.repeat(np.arange(8.0), 16)
    selection = FreeRetSelector().select(SelectorInput(np.arange(128), m, scores=scores, clip_ids=clips_of(128, 16)))
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
    selection = selector.select(SelectorInput(np.arange(32), 8, scores=FOUR, clip_ids=clips_of(32, 8)))
    assert list(selection.times_seconds) == expected


def test_freeret_takes_the_default_clip_at_its_quarters():
    scores = np.eye(1, 64, 20)[0]
    selection = FreeRetSelector().select(SelectorInput(np.arange(64), 4, scores=scores, clip_ids=clips_of(64, 16)))
    assert selection.times_seconds == (20, 21, 28, 29)


def test_freeret_with_a_last_clip_of_one_frame():
    # Nine frames: the last pair of the grid has one. It is the best clip, and the budget is filled from the next.
    scores = np.repeat([0.1, 0.9], [8, 1])
    select = FreeRetSelector().select
    for m, expected in [(1, [8]), (2, [4, 8]), (3, [4, 5, 8]), (4, [2, 3, 6, 8]), (9, list(range(9)))]:
        selection = select(SelectorInput(np.arange(9), m, scores=scores, clip_ids=clips_of(9, 8)))
        assert list(selection.times_seconds) == expected


def test_freeret_gives_whole_pairs_for_even_budgets():
    rng = np.random.default_rng(0)
    for m in (2, 4, 6, 16, 32, 64):
        scores = np.repeat(rng.normal(size=20), 16)
        selection = FreeRetSelector().select(
            SelectorInput(np.arange(320), m, scores=scores, clip_ids=clips_of(320, 16))
        )
        chosen = set(selection.times_seconds)
        assert all(second + 1 in chosen for second in chosen if second % 2 == 0) and len(chosen) == m


def test_freeret_among_equal_clips_takes_the_earlier():
    selection = FreeRetSelector().select(SelectorInput(np.arange(32), 4, scores=np.ones(32), clip_ids=clips_of(32, 8)))
    assert selection.times_seconds == (2, 3, 6, 7)


@pytest.mark.parametrize("wrong", [0, -2, 1, 3, 4.0, True, "4"])
def test_freeret_refuses_half_pairs(wrong):
    with pytest.raises(LvqaError, match="frames_per_clip must be an even number, 2 or more"):
        FreeRetSelector(frames_per_clip=wrong)


# --- topk and random -----------------------------------------------------------------------------------------------


def test_topk_takes_the_best_frames():
    select = make_selector("topk").select
    assert select(SelectorInput(np.arange(16), 4, scores=FIXTURE)).times_seconds == (2, 3, 6, 11)
    assert select(SelectorInput(np.arange(16), 3, scores=np.r_[0, np.ones(15)])).times_seconds == (1, 2, 3)


def test_random_depends_on_seed_video_and_question_and_on_nothing_else():
    def sample(seed: int = 0, video_id: str = "v", question_id: str = "q") -> tuple[float, ...]:
        selector = make_selector("random", seed=seed)
        return selector.select(
            SelectorInput(np.arange(1000), 8, video_id=video_id, question_id=question_id)
        ).times_seconds

    changes = ({}, {"seed": 1}, {"video_id": "w"}, {"question_id": "r"}, {"video_id": "vq", "question_id": ""})
    samples = [sample(**change) for change in changes]
    assert len(set(samples)) == 5 and sample() == samples[0]


@pytest.mark.slow
def test_random_is_fair():
    counts = np.zeros(10)
    for question in range(2000):
        chosen = make_selector("random").select(SelectorInput(np.arange(10), 3, question_id=str(question)))
        counts[np.array(chosen.times_seconds, int)] += 1
    # 600 each; the standard deviation is 20.
    assert (np.abs(counts - 600) < 100).all()


# --- the controls --------------------------------------------------------------------------------------------------


def oracle(evidence: tuple[float, float], num_frames: int, *, n: int = 40) -> list[float]:
    inputs = SelectorInput(np.arange(n) / 2, num_frames, video_id="v", evidence_seconds=evidence)
    return [2 * seconds for seconds in make_selector("oracle").select(inputs).times_seconds]


@pytest.mark.parametrize(
    ("evidence", "num_frames", "expected"),
    [
        ((2, 6), 4, [6, 7, 10, 11]),  # whole pairs of the frames 4 to 11
        ((2, 6), 8, [4, 5, 6, 7, 8, 9, 10, 11]),
        ((2, 6), 3, [5, 8, 10]),  # single frames for an odd budget
        ((2.5, 6), 4, [6, 7, 10, 11]),  # frame 5 has the other of its pair outside
        ((2, 6), 32, [4, 5, 6, 7, 8, 9, 10, 11]),  # no more than the evidence has
        ((0, 20), 2, [10, 30]),  # single frames of a long span
        ((3.6, 3.9), 4, [7]),  # the frame that is seen between two
        ((99, 100), 4, [39]),
        ((3, 3.5), 1, [6]),
    ],
)
def test_the_oracle_chooses_inside_the_evidence(evidence, num_frames, expected):
    assert oracle(evidence, num_frames) == expected


def test_the_oracle_needs_evidence():
    inputs = SelectorInput(np.arange(9), 2, question_id="17")
    with pytest.raises(
        LvqaError, match=r"^method 'oracle' needs the time of the evidence, and question '17' has none$"
    ):
        make_selector("oracle").select(inputs)


def test_blind_chooses_no_frame():
    selection = make_selector("blind").select(SelectorInput(np.arange(9), 2, video_id="v"))
    assert selection == FrameSelection("v", ())


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_takes_no_options(name):
    message = f"unknown option 'power' of method '{name}' (selection.options); it takes: none"
    with pytest.raises(LvqaError, match=f"^{re.escape(message)}$"):
        make_selector(name, {"power": 2})


# --- by name, and from candidates ----------------------------------------------------------------------------------


def test_a_selector_gets_the_shared_options_that_it_has():
    options = {"frames_per_clip": 8, "uniform": "linspace", "seed": 3}
    assert make_selector("freeret", **options) == FreeRetSelector(frames_per_clip=8)
    assert make_selector("uniform", **options) == UniformSelector(uniform="linspace")


def candidate(start: float, end: float, embed: float, rerank: float | None = None) -> Candidate:
    return Candidate(Clip("v", start, end), embed, rerank)


def test_frames_get_the_score_of_their_clip_whatever_the_order_of_candidates():
    times = np.arange(5) * 2.0
    result = frame_scores(times, [candidate(4, 8, 0.3), candidate(0, 4, 0.7)])
    assert result.scores.tolist() == [0.7, 0.7, 0.3, 0.3, -np.inf]
    assert result.clip_ids.tolist() == [1, 1, 0, 0, -1]
    assert frame_scores(times, []).scores.tolist() == [-np.inf] * 5


@pytest.mark.parametrize("reranked", [(0.02, 0.01), (-3.0, -7.0), (0.99, 0.98)])
def test_reranked_clips_are_above_the_others(reranked):
    result = frame_scores(
        np.arange(5),
        [
            candidate(0, 1, 0.9),
            candidate(1, 2, 0.1, reranked[0]),
            candidate(2, 3, 0.2, reranked[1]),
            candidate(3, 4, 0.8),
            candidate(4, 5, float("nan")),
        ],
    )
    assert np.argsort(-result.scores, kind="stable").tolist() == [1, 2, 0, 3, 4]
    assert result.scores[1:3].tolist() == list(reranked)
    assert result.scores[0] - result.scores[3] == pytest.approx(0.1)


def test_a_rerank_score_of_nan_counts_as_not_reranked():
    result = frame_scores(np.arange(2), [candidate(0, 1, 0.5, float("nan")), candidate(1, 2, 0.4, 0.1)])
    assert result.scores[1] == 0.1 > result.scores[0]


def smooth_scores(candidates: list[Candidate], seconds: float) -> list[float]:
    """Return the smoothed score of each candidate, in the order of time."""
    times = np.array(sorted(candidate.start_seconds for candidate in candidates))
    return frame_scores(times, candidates, smooth_seconds=seconds).scores.tolist()


def test_smoothed_scores_are_means_over_neighbours_in_time():
    scores = [0.0, 0.0, 1.0, 0.25, 0.0]
    candidates = [candidate(4 * i, 4 * i + 4, 0, score) for i, score in enumerate(scores)]
    weights = np.exp(-(np.subtract.outer(range(5), range(5)) ** 2) / 2)
    assert smooth_scores(candidates, 4) == pytest.approx(weights @ scores / weights.sum(axis=1))
    assert smooth_scores(candidates[::-1], 4) == pytest.approx(smooth_scores(candidates, 4))
    assert smooth_scores(candidates, 0.1) == scores
    assert smooth_scores(candidates, 1e9) == pytest.approx([0.25] * 5)


def test_smoothing_passes_over_scores_that_are_not_finite_and_keeps_equal_ones():
    candidates = [candidate(0, 4, float("nan")), candidate(4, 8, 0.5), candidate(8, 12, 0.5), candidate(12, 20, 0.5)]
    assert smooth_scores(candidates, 8) == [-np.inf, 0.5, 0.5, 0.5]
    assert smooth_scores([], 8) == []


def test_a_peak_with_neighbours_outlasts_a_lone_one():
    lone, broad = [0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0.9, 0.9, 0.9]
    candidates = [candidate(4 * i, 4 * i + 4, 0, max(pair)) for i, pair in enumerate(zip(lone, broad, strict=True))]
    scores = smooth_scores(candidates, 4)
    assert int(np.argmax(scores)) == 7 and scores[2] < 0.6


def test_from_candidates_to_seconds():
    times = np.arange(64) / 2
    candidates = [candidate(8, 16, 0.9, 0.2), candidate(24, 32, 0.8, 0.7), candidate(0, 8, 0.6), candidate(16, 24, 0.5)]
    result = frame_scores(times, candidates)
    inputs = SelectorInput(times, 10, scores=result.scores, clip_ids=result.clip_ids)
    chosen = FreeRetSelector().select(inputs).times_seconds
    assert chosen == (4, 4.5, 10, 10.5, 14, 14.5, 26, 26.5, 30, 30.5)
