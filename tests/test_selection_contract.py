"""The contract of every selector, for each of SELECTORS; and what the input of all of them refuses."""

import dataclasses
import functools
import inspect
import itertools

import numpy as np
import pytest

from lvqa.records import Candidate, Clip, FrameSelection, LvqaError
from lvqa.selection import SELECTORS, Selector, SelectorInput, frame_features, make_selector
from lvqa.selection.contract import (
    BUDGETS,
    CHECKS,
    KINDS,
    choices,
    choices_of_subprocess,
    inputs_of_all_sizes,
    make_features,
    make_inputs,
    make_scores,
)
from lvqa.selection.controls import BlindSelector
from lvqa.selection.simple import RandomSelector

RANK_BASED = {"freeret", "uniform", "random", "topk", "nms", "segments", "kmeans", "dpp", "mdp3", "mdp3_released"}
"""Only the order of scores counts, if they count at all."""
NORMALIZED = {"mmr", "aks", "aks_released", "bolt", "bolt_released", "focus", "tstar", "router"}
"""Scores may be shifted and scaled."""
SEEDED = {"random", "qframe", "focus", "tstar", "kmeans", "router"}


@pytest.fixture(params=sorted(SELECTORS))
def name(request) -> str:
    return request.param


@pytest.fixture
def selector(name) -> Selector:
    return SELECTORS[name]()


@pytest.mark.parametrize("check", CHECKS, ids=lambda what: what.replace(" ", "-"))
def test_the_contract(name, check):
    assert CHECKS[check](SELECTORS[name]) is None


def test_the_contract_knows_which_selectors_show_no_frames():
    class Blind(RandomSelector):
        shows_frames = False

    class Open(BlindSelector):
        shows_frames = True

    for make, problem in [(Blind, "it gives 1 of 1 frames and not 0 when"), (Open, "it gives 0 of 1 frames and not 1")]:
        assert CHECKS["random scores"](make).startswith(problem)


def test_the_contract_covers_every_budget_and_kind():
    sizes = {
        (len(inputs) - inputs.num_frames, inputs.num_frames)
        for inputs in inputs_of_all_sizes(SELECTORS["topk"](), "random")
    }
    assert {(extra, m) for extra in (0, 1) for m in (1, 2, 3, 16, 32, 64)} <= sizes
    assert any(extra < 0 for extra, _ in sizes) and {m for _, m in sizes} == set(BUDGETS)
    assert {"constant", "one-hot", "two-peak", "NaN", "all-NaN"} <= set(KINDS)


@pytest.mark.slow
def test_every_process_chooses_the_same_frames():
    expected = {name: str(choices(make)) for name, make in SELECTORS.items()}
    for hash_seed in (1, 2):
        assert dict(zip(expected, choices_of_subprocess([*SELECTORS], hash_seed).splitlines(), strict=True)) == expected


def test_a_published_run_can_be_repeated():
    inputs = SelectorInput(np.arange(100), 7, video_id="abc", question_id="17")
    assert list(make_selector("random").select(inputs).times_seconds) == [9, 10, 21, 27, 32, 52, 99]


def test_clips_may_have_any_ids_and_lengths(name, selector):
    rng = np.random.default_rng(3)
    for _ in range(20):
        n, m = (int(size) for size in rng.integers(1, 60, size=2))
        inputs = SelectorInput(
            np.arange(n),
            m,
            scores=rng.normal(size=n),
            clip_ids=rng.integers(-1, 6, size=n),
            features=make_features("different", n),
            query=make_features("different", n)[0],
            evidence_seconds=(0, n),
        )
        assert len(selector.select(inputs).times_seconds) == (min(m, n) if name != "blind" else 0)


def test_nan_is_the_lowest(selector):
    scores = make_scores("random", 64)
    inputs = make_inputs(64, 10, scores="random", features="runs")
    chosen = [
        selector.select(dataclasses.replace(inputs, scores=np.where(scores < 0, low, scores)))
        for low in (-np.inf, np.nan)
    ]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("name", sorted(RANK_BASED | NORMALIZED))
def test_scores_may_be_shifted_and_scaled(name):
    selector, inputs = make_selector(name), make_inputs(90, 10, scores="random", features="runs")
    scaled = dataclasses.replace(inputs, scores=inputs.scores * 4 + 8)
    assert selector.select(scaled) == selector.select(inputs)


@pytest.mark.parametrize("name", sorted(RANK_BASED))
def test_only_the_order_of_scores_counts(name):
    selector, inputs = make_selector(name), make_inputs(90, 10, scores="random", features="runs")
    assert selector.select(dataclasses.replace(inputs, scores=np.exp(inputs.scores))) == selector.select(inputs)


def test_seeds_give_different_frames(name):
    """Those that sample at random have a seed, and the others have none."""
    assert ("seed" in inspect.signature(SELECTORS[name]).parameters) == (name in SEEDED)
    if name in SEEDED - {"router"}:
        inputs = make_inputs(3000, 8, scores="random", features="different")
        inputs = dataclasses.replace(inputs, scores=inputs.scores / 50)  # as far apart as cosines are
        assert len({make_selector(name, {"seed": seed}).select(inputs) for seed in range(5)}) > 1


def test_the_order_of_questions_does_not_matter(selector):
    questions = [make_inputs(90, 9, scores="random", features="runs", question_id=str(i)) for i in range(5)]
    forwards = [selector.select(inputs) for inputs in questions]
    assert [selector.select(inputs) for inputs in reversed(questions)] == forwards[::-1]


def test_every_selector_is_a_dataclass_of_keywords_with_defaults(name, selector):
    assert dataclasses.is_dataclass(selector)
    assert isinstance(selector.needs_scores, bool) and isinstance(selector.needs_features, bool)
    parameters = inspect.signature(SELECTORS[name]).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters)
    assert SELECTORS[name]() == selector and hash(SELECTORS[name]()) == hash(selector)
    assert SELECTORS[name].__doc__ and not SELECTORS[name].__doc__.startswith(SELECTORS[name].__name__)


@pytest.mark.parametrize(
    "name", ["topk", "nms", "aks", "aks_released", "bolt", "bolt_released", "qframe", "focus", "tstar"]
)
def test_without_a_difference_in_scores_frames_are_evenly_spaced(name):
    for n, m in itertools.product((5, 16, 61), (1, 3, 16)):
        inputs = SelectorInput(np.arange(n), m, scores=np.full(n, 0.3))
        assert make_selector(name).select(inputs) == make_selector("uniform").select(inputs)


@pytest.mark.slow
def test_long_videos_are_fast(name, selector):
    """Eight hours at one frame a second, in clips of 16."""
    n = 8 * 3600
    rows = np.random.default_rng(0).normal(size=(n // 16, 8)).astype(np.float32)
    inputs = SelectorInput(
        np.arange(n),
        64,
        scores=np.repeat(rows[:, 0], 16),
        clip_ids=np.arange(n) // 16,
        features=np.repeat(rows / np.linalg.norm(rows, axis=1, keepdims=True), 16, axis=0),
        query=rows[7] / np.linalg.norm(rows[7]),
        evidence_seconds=(600, 700),
    )
    assert len(selector.select(inputs).times_seconds) == (64 if name != "blind" else 0)


# --- the input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, 1.0, 16.5, "16", True, None, float("nan")])
def test_a_wrong_budget_is_refused_with_what_is_allowed(wrong):
    with pytest.raises(LvqaError, match="whole number, 1 or more") as caught:
        SelectorInput(np.arange(4.0), wrong)
    assert repr(wrong) in str(caught.value)


def test_numpy_integers_are_numbers_of_frames():
    assert SelectorInput(np.arange(4.0), np.int64(2)).num_frames == 2


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
        {"features": np.zeros(4)},
        {"features": np.zeros((3, 2))},
        {"features": np.full((4, 2), np.nan)},
        {"query": np.zeros(2)},
        {"features": np.zeros((4, 2)), "query": np.zeros(3)},
        {"features": np.zeros((4, 2)), "query": np.full(2, np.inf)},
    ],
    ids=str,
)
def test_an_input_that_only_a_bug_can_make_is_refused(wrong):
    with pytest.raises(ValueError, match="times"):
        SelectorInput(**{"times_seconds": np.arange(4.0), "num_frames": 2, **wrong})


def test_an_input_may_be_lists_and_is_read_only():
    scores = np.arange(4.0)
    inputs = SelectorInput([0, 1, 2, 3], 2, scores=scores)
    with pytest.raises(ValueError, match="read-only"):
        inputs.scores[0] = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        inputs.num_frames = 3  # type: ignore[misc]
    assert scores.flags.writeable
    assert inputs.fill_budget([3]).times_seconds == (2, 3)  # 3, and then the best of the others
    assert inputs.fill_budget([0, 0]) == FrameSelection("", (0, 3))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1, 3, 2], [0, 1, 0.5]),
        ([5, 5, 5], [1, 1, 1]),
        ([np.nan, 1, np.inf, 3], [0, 0, 1, 1]),
        ([np.nan, 7], [0, 1]),
        ([-1.7e308, 1.7e308], [0, 1]),
        ([np.inf, -np.inf], [1, 0]),
    ],
)
def test_scores_are_normalized(scores, expected):
    assert SelectorInput(np.arange(len(scores)), 1, scores=np.array(scores)).normalized_scores().tolist() == expected


@pytest.mark.parametrize("name", ["mmr", "dpp", "mdp3", "mdp3_released", "kmeans", "segments"])
def test_missing_vectors_are_named(name):
    with pytest.raises(LvqaError, match=f"method '{name}' needs a vector for each frame"):
        make_selector(name).select(make_inputs(9, 3, scores="random"))
    inputs = make_inputs(9, 3, scores="random", features="different")
    if "dp" in name:
        with pytest.raises(LvqaError, match=f"method '{name}' needs the question's vector"):
            make_selector(name).select(dataclasses.replace(inputs, query=None))


def test_frames_get_the_vector_of_their_clip():
    clips = [Clip("v", 0, 4), Clip("v", 4, 8)]
    features = frame_features(np.arange(6) * 2.0, clips, np.array([[1, 0], [0, 1]], dtype=np.float32))
    assert features.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [0, 0]]
    assert Candidate(clips[0], 0.5).start_seconds == 0


# --- by name -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        (
            "best",
            {},
            ("method must be one of freeret, apportion, ", "oracle, blind, or a file ending in .py or .json", "'best'"),
        ),
        ("aks", {"t1": 3}, ("unknown option 't1' of method 'aks'", "it takes: stand_out, depth")),
        ("nms", {"window": 3}, ("unknown option 'window'", "it takes: none")),
        ("aks", {"stand_out": "much"}, ("stand_out must be a number from 0 to 1, got 'much'",)),
        ("aks", {"depth": -1}, ("depth must be a whole number from 0 to 20, got -1",)),
        ("bolt", {"power": 0}, ("power must be a number from 1e-09 to 1e+09, got 0",)),
        ("bolt", {"power": float("nan")}, ("power", "nan")),
        ("bolt", {"power": 10**400}, ("power", "a very large number")),
        ("mmr", {"balance": 1.5}, ("balance must be a number from 0 to 1, got 1.5",)),
        ("mdp3", {"segment": 0}, ("segment must be a whole number, 1 or more, got 0",)),
        ("dpp", {"trade_off": 0}, ("trade_off", "1e-09")),
        ("qframe", {"temperature": 0}, ("temperature", "1e-09")),
        ("qframe", {"candidates": 1.5}, ("candidates", "1.5")),
        ("focus", {"arm_seconds": 0}, ("arm_seconds",)),
        ("tstar", {"share": 2}, ("share", "2")),
        ("tstar", {"apart": 1}, ("apart must be true or false, got 1",)),
        ("kmeans", {"max_rounds": True}, ("max_rounds", "true")),
        ("segments", {"per_frame": 0}, ("per_frame",)),
        ("router", {"otherwise": "router"}, ("otherwise", "router")),
        ("router", {"otherwise": "oracle"}, ("otherwise must be another selector than router, oracle and blind",)),
        ("chosen.json", {"power": 2}, ("method 'chosen.json' takes no options (selection.options), got power",)),
        ("router", {"otherwise": "best"}, ("method must be one of", "'best'")),
        ("router", {"otherwise": "aks", "options": {"t1": 1}}, ("unknown option 't1' of method 'aks'",)),
        ("router", {"options": [1]}, ("options must be a mapping", "[1]")),
        ("uniform", {"uniform": "middle"}, ("midpoint, linspace, interior", "'middle'")),
    ],
)
def test_a_wrong_name_option_or_value_is_refused(name, options, named):
    with pytest.raises(LvqaError) as caught:
        make_selector(name, options)
    assert all(word in str(caught.value) for word in named), str(caught.value)
    assert "\n" not in str(caught.value)


def test_own_options_replace_the_shared_ones():
    assert make_selector("random", {"seed": 2}, seed=1, uniform="linspace") == make_selector("random", seed=2)
    make = functools.partial(make_selector, "router", uniform="linspace", seed=4)
    assert make({"otherwise": "random"}).otherwise == "random"
