"""Each method against numbers computed from its paper's formulas by another program, and against brute force.

Where the numbers have a name, "fixture A" and "fixture B", it is that of the project's notes on these methods.
"""

import itertools

import numpy as np
import pytest

from lvqa.selection import SelectorInput, make_selector
from lvqa.selection.adaptive import aks_frames, bolt_frames, released_quantiles
from lvqa.selection.contract import make_features, make_inputs
from lvqa.selection.diverse import mmr_frames
from lvqa.selection.dpp import PAPER_WIDTHS, RELEASED_WIDTHS, SetObjective, mdp3_frames
from lvqa.selection.router import is_about_whole
from lvqa.selection.search import gumbel_order, upper_bounds
from lvqa.selection.simple import non_max_suppression

# Fixture A: 16 frames, 4 of which are wanted.
A = np.array([0.1, 0.2, 0.9, 0.8, 0.1, 0.1, 0.3, 0.2, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.2, 0.1])
# Fixture B: the same, with vectors on half a circle, and a question at half a radian.
ANGLES = np.linspace(0, np.pi, 16)
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
QUERY = np.array([np.cos(0.5), np.sin(0.5)])
ALL = np.arange(16)


def fixture(scores: np.ndarray = A, m: int = 4, *, vectors: np.ndarray = VECTORS) -> SelectorInput:
    return SelectorInput(np.arange(len(scores)), m, scores=scores, features=vectors, query=QUERY)


def frames(name: str, inputs: SelectorInput | None = None, **options) -> list[int]:
    """Return the frames that a selector chooses of an input with one frame a second."""
    return [int(seconds) for seconds in make_selector(name, options).select(inputs or fixture()).times_seconds]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("uniform", {"uniform": "linspace"}, [0, 5, 10, 15]),
        ("uniform", {}, [2, 6, 10, 14]),
        ("uniform", {"uniform": "interior"}, [3, 6, 9, 12]),
        ("topk", {}, [2, 3, 6, 11]),
        ("nms", {}, [2, 6, 11, 14]),
        ("mmr", {"balance": 1}, [2, 3, 6, 11]),
        ("mmr", {"balance": 0.7}, [2, 3, 6, 11]),
        ("aks", {}, [2, 6, 11, 14]),
        ("aks", {"stand_out": 0.4}, [2, 3, 6, 11]),
        ("aks", {"depth": 0}, [2, 3, 6, 11]),
        ("aks_released", {}, [2, 3, 6, 11]),
        ("bolt", {}, [2, 3, 6, 11]),
        ("bolt", {"power": 1.0}, [2, 3, 6, 11]),
        ("bolt_released", {}, [2, 3, 6, 11]),
        ("qframe", {"logit_scale": 1e4}, [2, 3, 6, 11]),
    ],
)
def test_fixture_a(name, options, expected):
    assert frames(name, **options) == expected


# --- nms and mmr ---------------------------------------------------------------------------------------------------


def test_nms_halves_the_gap_where_frames_run_out():
    scores = np.arange(8.0)
    assert non_max_suppression(scores, 2) == [7, 4]  # more than 2 apart
    assert non_max_suppression(scores, 4) == [7, 5, 3, 1]
    assert non_max_suppression(scores, 5) == [7, 6, 5, 4, 3]  # floor(8 / 10) = 0 apart
    assert non_max_suppression(np.eye(1, 9, 4)[0], 3) == [4, 0, 2]


def test_mmr_fixture_in_the_order_of_choice():
    def order(balance: float) -> list[int]:
        return mmr_frames(A, VECTORS, ALL, 4, balance=balance)

    assert order(0.5) == [2, 15, 11, 3]
    assert order(0.7) == [2, 11, 3, 6]
    assert order(1) == [2, 3, 11, 6]  # top-k
    assert order(0) == [2, 15, 9, 5]  # the farthest from all, after the best


def test_mmr_shares_the_rows_of_equal_vectors():
    runs = np.arange(32) // 4
    chosen = mmr_frames(np.zeros(32), VECTORS[:8], runs, 8, balance=0.5)
    assert {frame // 4 for frame in chosen} == set(range(8))
    assert chosen == mmr_frames(np.zeros(32), VECTORS[runs], np.arange(32), 8, balance=0.5)


# --- aks and bolt --------------------------------------------------------------------------------------------------


def test_released_aks_gives_no_frame_where_segments_outnumber_the_budget():
    scores = fixture().normalized_scores()
    assert aks_frames(scores, 4, stand_out=0.8, depth=5, released=True) == []
    long = np.random.default_rng(0).random(1200)
    assert len(aks_frames(long, 16, stand_out=0.8, depth=5, released=True)) < 16
    assert len(aks_frames(long, 64, stand_out=0.8, depth=5, released=True)) == 64


def test_aks_gives_the_best_frames_of_each_segment():
    rng = np.random.default_rng(1)
    scores = rng.random(320)
    chosen = aks_frames(scores, 32, stand_out=2, depth=5)  # nothing stands out: 32 segments of 10 frames
    assert chosen == [start + int(scores[start : start + 10].argmax()) for start in range(0, 320, 10)]


def test_aks_keeps_a_segment_whole_whose_best_stand_out():
    scores = np.concatenate([np.eye(1, 8, 3)[0] + np.eye(1, 8, 4)[0], np.linspace(0, 0.4, 8)])
    assert frames("aks", fixture(scores)) == [3, 4, 11, 15]  # the first half gives both its peaks


def test_bolt_fixture():
    scores = fixture().normalized_scores()
    middles = np.array([1, 3, 5, 7]) / 8
    assert bolt_frames(scores, middles, power=3) == [2, 2, 3, 11]
    assert bolt_frames(scores, middles, power=1) == [2, 3, 6, 11]
    assert bolt_frames(scores, released_quantiles(4), power=3) == [2, 2, 3, 3]
    assert released_quantiles(2).tolist() == [0.5, 0.5]
    assert bolt_frames(scores, released_quantiles(1), power=3) == [14]  # the last frame with a score above the least


def test_released_bolt_has_other_quantiles():
    for m, expected in [(1, [14]), (2, [2, 3]), (3, [2, 3, 6])]:
        assert frames("bolt_released", fixture(m=m), power=1.0) == expected
    slope = fixture(np.linspace(0, 1, 16))
    assert frames("bolt", slope, power=1.0) == [5, 9, 12, 14]
    assert frames("bolt_released", slope, power=1.0) == [8, 10, 12, 13]


def test_bolt_follows_the_curve():
    scores = np.repeat([1.0, 4.0, 1.0], 100) / 4
    chosen = frames("bolt", fixture(scores, 60, vectors=np.zeros((300, 2))), power=1.0)
    assert all(100 <= frame < 200 for frame in chosen)  # the least score counts as zero


# --- dpp and mdp3 --------------------------------------------------------------------------------------------------


def value_of(vectors: np.ndarray, query: np.ndarray, widths: tuple[int, ...], chosen: tuple[int, ...]) -> float:
    """Return J by its definition."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return sum(np.exp(-((x - y) ** 2).sum() / (2 * 2.0**width)) for width in widths)

    similarity = np.array([[k(vectors[i], vectors[j]) + 1e-6 * (i == j) for j in chosen] for i in chosen])
    relevance = sum(np.log(k(vectors[i], query)) for i in chosen)
    return 2 / 0.2 * relevance + np.linalg.slogdet(similarity)[1]


@pytest.mark.slow
def test_dpp_fixture():
    objective = SetObjective.from_inputs(fixture(), "dpp", trade_off=0.2, widths=RELEASED_WIDTHS)
    assert objective.diagonal == 5.000001
    chosen, gains = objective.greedy(ALL, 4)
    assert set(chosen) == {1, 2, 3, 4}
    assert gains.sum() == pytest.approx(59.265157, abs=1e-6)
    best = max(itertools.combinations(range(16), 4), key=lambda s: value_of(VECTORS, QUERY, RELEASED_WIDTHS, s))
    assert best == (1, 2, 3, 4)


@pytest.mark.parametrize("widths", [PAPER_WIDTHS, RELEASED_WIDTHS])
def test_greedy_gains_are_what_each_frame_adds(widths):
    vectors = make_features("different", 12)
    inputs = SelectorInput(np.arange(12), 5, features=vectors, query=vectors[3])
    objective = SetObjective.from_inputs(inputs, "dpp", trade_off=0.2, widths=widths)
    chosen, gains = objective.greedy(np.arange(12), 5)

    def value(frames: list[int]) -> float:
        return value_of(vectors, vectors[3], widths, tuple(frames))

    for count in range(5):
        values = {i: value([*chosen[:count], i]) for i in range(12) if i not in chosen[:count]}
        assert chosen[count] == max(values, key=lambda frame: values[frame])
        assert gains[: count + 1].sum() == pytest.approx(values[chosen[count]], rel=1e-6)
    after, gains = objective.greedy(np.arange(4, 12), 3, previous=2)
    assert gains.sum() == pytest.approx(value([2, *after]) - value([2]), rel=1e-6)


@pytest.mark.slow
def test_greedy_is_near_the_best_set():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        vectors = rng.normal(size=(10, 4))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        objective = SetObjective.from_inputs(
            SelectorInput(np.arange(10), 3, features=vectors, query=vectors[0]),
            "dpp",
            trade_off=0.2,
            widths=PAPER_WIDTHS,
        )
        values = [value_of(vectors, vectors[0], PAPER_WIDTHS, s) for s in itertools.combinations(range(10), 3)]
        # The bound is for a value that only grows, so each frame's is raised by what the last one may take away.
        nine = max(value_of(vectors, vectors[0], PAPER_WIDTHS, s) for s in itertools.combinations(range(10), 9))
        raised = 3 * max(0, nine - value_of(vectors, vectors[0], PAPER_WIDTHS, tuple(range(10))))
        assert objective.greedy(np.arange(10), 3)[1].sum() + raised >= (1 - 1 / np.e) * (max(values) + raised)


def test_dpp_takes_every_vector_before_any_twice():
    vectors = np.repeat(make_features("different", 8), 5, axis=0)
    inputs = SelectorInput(np.arange(40), 8, features=vectors, query=np.ones(6) / 6)
    assert [frame % 5 for frame in frames("dpp", inputs, trade_off=1e3)] == [0] * 8


def test_mdp3_fixture():
    objective = SetObjective.from_inputs(fixture(), "mdp3", trade_off=0.2, widths=RELEASED_WIDTHS)
    segments = [np.arange(start, start + 4) for start in range(0, 16, 4)]
    assert mdp3_frames(objective, segments, 4) == [1, 2, 3, 4]
    assert mdp3_frames(objective, segments, 4, released=True) == [2, 3, 4, 8]


def test_mdp3_in_one_segment_is_dpp():
    inputs = fixture()
    assert frames("mdp3", inputs, segment=16) == frames("dpp", inputs)
    assert frames("mdp3", inputs, segment=3) != []  # fewer in a segment than are wanted: one segment


def test_mdp3_may_have_a_shorter_last_segment():
    for n in (33, 63, 65, 127):
        for name in ("mdp3", "mdp3_released"):
            assert len(frames(name, make_inputs(n, 16, scores="no", features="different"))) == 16


# --- q-frame, focus, t* --------------------------------------------------------------------------------------------


def test_qframe_fixture():
    uniforms = 0.05 + 0.9 * (ALL + 1) / 17
    assert sorted(gumbel_order(A / 0.8, uniforms)[:4]) == [11, 13, 14, 15]
    assert sorted(gumbel_order(A / 0.05, uniforms)[:4]) == [2, 3, 6, 11]


@pytest.mark.slow
def test_qframe_samples_in_proportion():
    inputs = SelectorInput(np.arange(3), 1, scores=np.log([1.0, 2.0, 5.0]))
    counts = np.zeros(3)
    for seed in range(2000):
        counts[frames("qframe", inputs, logit_scale=1.0, temperature=1.0, seed=seed)] += 1
    # 250, 500, 1250; the largest standard deviation is 22.
    assert np.abs(counts - [250, 500, 1250]).max() < 90


def test_focus_fixture():
    """Means .2 .5 .4 and variances .01 .02 .04 of three pulls each."""
    wave = np.array([-1, 0, 1]) * np.sqrt(1.5)
    arms = [mean + wave * np.sqrt(variance) for mean, variance in [(0.2, 0.01), (0.5, 0.02), (0.4, 0.04)]]
    assert upper_bounds(arms, np.array([3, 3, 3])).round(4).tolist() == [2.5183, 2.8684, 2.8393]


def focus_reference(scores: np.ndarray, budget: int, top_fraction: float) -> set[int]:
    """Return FOCUS's frames for 32 arms of three frames, all of them scored, where the best of an arm come first."""
    arms = scores.reshape(32, 3)
    bounds = arms.mean(axis=1) + np.sqrt(2 * np.log(96) * np.maximum(arms.var(axis=1), 1e-6) / 3)  # + a constant
    ranking = sorted(range(96), key=lambda frame: -scores[frame])
    chosen = ranking[: round(top_fraction * budget)]
    share, extra = divmod(budget - len(chosen), 8)
    for rank, arm in enumerate(sorted(range(32), key=lambda arm: -bounds[arm])[:8]):
        free = [frame for frame in ranking if frame // 3 == arm and frame not in chosen]
        chosen += free[: share + (rank < extra)]
    chosen += [frame for frame in ranking if frame not in chosen]
    return set(chosen[:budget])


@pytest.mark.slow
@pytest.mark.parametrize("budget", [15, 20])
def test_focus_spends_a_fifth_of_the_budget_on_the_best_frames_of_all_arms(budget):
    """A low temperature leaves nothing to chance: an arm gives its best frames first."""
    rng = np.random.default_rng(budget)
    others = dict.fromkeys((0.0, 0.1, 0.15, 0.25, 0.3, 0.4, 1.0), False)
    for _ in range(50):
        scores = rng.permutation(96) / 95
        inputs = SelectorInput(np.arange(96), budget, scores=scores)
        chosen = set(frames("focus", inputs, arm_seconds=95 / 32, temperature=1e-6))
        assert chosen == focus_reference(scores, budget, 0.2)
        for fraction in others:
            others[fraction] |= chosen != focus_reference(scores, budget, fraction)
    assert all(others.values()), "another fraction would choose other frames"


@pytest.mark.parametrize("name", ["focus", "tstar"])
def test_a_search_finds_the_peak(name):
    n = 3600
    scores = np.exp(-(((np.arange(n) - 2000) / 60) ** 2)) + 0.05 * np.random.default_rng(0).random(n)
    chosen = frames(name, SelectorInput(np.arange(n), 16, scores=scores))
    assert sum(1900 <= frame < 2100 for frame in chosen) >= 8


@pytest.mark.parametrize(
    "name", ["topk", "nms", "mmr", "aks", "aks_released", "bolt", "bolt_released", "qframe", "segments"]
)
def test_the_best_frame_is_among_the_frames(name):
    scores = np.where(np.arange(120) == 60, 1.0, 0.1)
    inputs = SelectorInput(np.arange(120), 16, scores=scores, features=make_features("different", 120))
    assert 60 in frames(name, inputs)


def test_tstar_may_keep_its_frames_apart():
    scores = np.exp(-(((np.arange(600) - 300) / 100) ** 2))
    near, far = (
        frames("tstar", SelectorInput(np.arange(600), 16, scores=scores), apart=apart) for apart in (False, True)
    )
    assert min(np.diff(near)) < min(np.diff(far)) and min(np.diff(far)) > 600 // 32


# --- k-means and segments ------------------------------------------------------------------------------------------


def test_kmeans_takes_one_of_each_kind():
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.eye(6), 20, axis=0) + 0.01 * rng.normal(size=(120, 6))
    chosen = frames("kmeans", SelectorInput(np.arange(120), 6, features=kinds, question_id="q"))
    assert [frame // 20 for frame in chosen] == list(range(6))
    for frame in chosen:
        kind = kinds[frame // 20 * 20 :][:20]
        assert np.linalg.norm(kind - kind.mean(axis=0), axis=1).argmin() == frame % 20


def test_kmeans_with_too_few_kinds_adds_frames_far_in_time():
    alike = np.ones((33, 2))
    assert frames("kmeans", SelectorInput(np.arange(33), 5, features=alike)) == [0, 8, 16, 24, 32]


def test_segments_take_the_best_frame_of_each():
    vectors = np.repeat(np.eye(4), 8, axis=0)
    scores = np.random.default_rng(5).random(32)
    best = [int(8 * i + scores[8 * i :][:8].argmax()) for i in range(4)]
    assert frames("segments", SelectorInput(np.arange(32), 4, scores=scores, features=vectors)) == best
    top = sorted(best, key=lambda frame: -scores[frame])[:2]
    assert frames("segments", SelectorInput(np.arange(32), 2, scores=scores, features=vectors)) == sorted(top)
    six = frames("segments", SelectorInput(np.arange(32), 6, scores=scores, features=vectors))
    assert {*best} < {*six} and len({frame // 8 for frame in {*six} - {*best}}) == 2


def test_segments_are_cut_at_the_largest_changes():
    vectors = np.array([[1.0, 0]] * 4 + [[0.99, np.sqrt(1 - 0.99**2)]] * 4 + [[0, 1.0]] * 8)
    scores = np.linspace(1, 0, 16)
    inputs = SelectorInput(np.arange(16), 2, scores=scores, features=vectors)
    assert frames("segments", inputs, per_frame=1) == [0, 8]
    assert frames("segments", inputs, per_frame=8) == [0, 4]


# --- the router ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "What is the video about?",
        "What is this video mainly about?",
        "What is the content of the entire video about?",
        "What is the main theme of the documentary?",
        "What type of video is this?",
        "What happens in the video?",
        "Summarize the video.",
        "How does the mood change throughout the film?",
        "Which title fits the whole story best?",
        "What does this documentary mainly introduce?",
        "Which animal is seen most in the video?",
        "What is the most frequent colour in this documentary?",
        "Which of these places does the film show most?",
    ],
)
def test_a_question_about_the_whole_video_gets_uniform_frames(text):
    inputs = SelectorInput(np.arange(60), 8, scores=np.arange(60.0), question_text=text)
    assert is_about_whole(text)
    assert frames("router", inputs) == frames("uniform", inputs)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What colour is the car?",
        "What happens from 02:45-04:00?",
        "What is the main content discussed from 73:13-73:31?",
        "What does the vlogger do in the second half of the video?",
        "What color top is the second contestant wearing?",
        "What is the main character doing when the door closes?",
        "Who is the main guest?",
        "What are most of the guests wearing in the video?",
        "Which film wins the most prizes?",
        "What happens to the whole cake in the video? Before that, who baked it?",
    ],
)
def test_other_questions_go_to_the_other_selector(text):
    inputs = SelectorInput(np.arange(60), 8, scores=np.arange(60.0), question_text=text)
    assert not is_about_whole(text)
    assert frames("router", inputs) == frames("freeret", inputs)
    assert frames("router", inputs, otherwise="aks", options={"depth": 0}) == frames("topk", inputs)


def test_the_router_needs_what_the_other_needs():
    assert [make_selector("router").needs_scores, make_selector("router").needs_features] == [True, False]
    mmr = make_selector("router", {"otherwise": "mmr"})
    assert [mmr.needs_scores, mmr.needs_features] == [True, True]
    assert not make_selector("router", {"otherwise": "random"}).needs_scores
