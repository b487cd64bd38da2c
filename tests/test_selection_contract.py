"""What every selector promises, for each of SELECTORS; and what the input of all of them refuses."""

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
    choices_elsewhere,
    features_like,
    grid_like,
    grids,
    scores_like,
)

ORDER_ALONE = {"freeret", "uniform", "random", "topk", "nms", "segments", "kmeans", "dpp", "mdp3", "mdp3_released"}
"""Only the order of scores counts, if anything of them."""
STRETCHED = {"mmr", "aks", "aks_released", "bolt", "bolt_released", "focus", "tstar", "router"}
"""Scores may be moved and stretched."""
SEEDED = {"random", "qframe", "focus", "tstar", "kmeans", "router"}


@pytest.fixture(params=sorted(SELECTORS))
def name(request) -> str:
    return request.param


@pytest.fixture
def selector(name) -> Selector:
    return SELECTORS[name]()


def known(grid: SelectorInput, **changed) -> SelectorInput:
    """The same input with other values."""
    return SelectorInput(**{name: getattr(grid, name) for name in SelectorInput.__dataclass_fields__} | changed)


@pytest.mark.parametrize("check", CHECKS, ids=lambda what: what.replace(" ", "-"))
def test_the_contract(name, check):
    assert CHECKS[check](SELECTORS[name]) is None


def test_the_contract_asks_for_every_budget_and_kind():
    asked = {(len(grid) - grid.num_frames, grid.num_frames) for grid in grids(SELECTORS["topk"](), "random")}
    assert {(extra, m) for extra in (0, 1) for m in (1, 2, 3, 16, 32, 64)} <= asked
    assert any(extra < 0 for extra, _ in asked) and {m for _, m in asked} == set(BUDGETS)
    assert {"constant", "one-hot", "two-peak", "NaN", "all-NaN"} <= set(KINDS)


def test_every_process_chooses_the_same():
    here = {name: str(choices(make)) for name, make in SELECTORS.items()}
    for hash_seed in (1, 2):
        assert dict(zip(here, choices_elsewhere([*SELECTORS], hash_seed).splitlines(), strict=True)) == here


def test_a_published_run_can_be_repeated():
    grid = SelectorInput(np.arange(100), 7, video_id="abc", question_id="17")
    assert list(make_selector("random").select(grid).times_seconds) == [9, 10, 21, 27, 32, 52, 99]


def test_clips_may_have_any_ids_lengths_and_places(selector):
    rng = np.random.default_rng(3)
    for _ in range(20):
        n, m = (int(number) for number in rng.integers(1, 60, size=2))
        grid = SelectorInput(
            np.arange(n),
            m,
            scores=rng.normal(size=n),
            clip_ids=rng.integers(-1, 6, size=n),
            features=features_like("different", n),
            query=features_like("different", n)[0],
        )
        assert len(selector.select(grid).times_seconds) == min(m, n)


def test_nan_is_the_lowest(selector):
    scores = scores_like("random", 64)
    grid = grid_like(64, 10, scores="random", features="runs")
    chosen = [selector.select(known(grid, scores=np.where(scores < 0, low, scores))) for low in (-np.inf, np.nan)]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("name", sorted(ORDER_ALONE | STRETCHED))
def test_scores_may_be_moved_and_stretched(name):
    selector, grid = make_selector(name), grid_like(90, 10, scores="random", features="runs")
    moved = known(grid, scores=grid.scores * 4 + 8)
    assert selector.select(moved) == selector.select(grid)


@pytest.mark.parametrize("name", sorted(ORDER_ALONE))
def test_only_the_order_of_scores_counts(name):
    selector, grid = make_selector(name), grid_like(90, 10, scores="random", features="runs")
    assert selector.select(known(grid, scores=np.exp(grid.scores))) == selector.select(grid)


def test_seeds_set_draws_apart(name):
    """Those that draw lots have a seed, and the others have none."""
    assert ("seed" in inspect.signature(SELECTORS[name]).parameters) == (name in SEEDED)
    if name in SEEDED - {"router"}:
        grid = grid_like(3000, 8, scores="random", features="different")
        grid = known(grid, scores=grid.scores / 50)  # as far apart as cosines are
        assert len({make_selector(name, {"seed": seed}).select(grid) for seed in range(5)}) > 1


def test_the_order_of_questions_does_not_matter(selector):
    questions = [grid_like(90, 9, scores="random", features="runs", question_id=str(i)) for i in range(5)]
    there = [selector.select(grid) for grid in questions]
    assert [selector.select(grid) for grid in reversed(questions)] == there[::-1]


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
        grid = SelectorInput(np.arange(n), m, scores=np.full(n, 0.3))
        assert make_selector(name).select(grid) == make_selector("uniform").select(grid)


def test_long_videos_take_no_time(selector):
    """Eight hours at one frame a second, in clips of 16."""
    n = 8 * 3600
    rows = np.random.default_rng(0).normal(size=(n // 16, 8)).astype(np.float32)
    grid = SelectorInput(
        np.arange(n),
        64,
        scores=np.repeat(rows[:, 0], 16),
        clip_ids=np.arange(n) // 16,
        features=np.repeat(rows / np.linalg.norm(rows, axis=1, keepdims=True), 16, axis=0),
        query=rows[7] / np.linalg.norm(rows[7]),
    )
    assert len(selector.select(grid).times_seconds) == 64


# --- the input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, 1.0, 16.5, "16", True, None, float("nan")])
def test_a_budget_that_is_none_is_refused_with_what_is_allowed(wrong):
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


def test_an_input_may_be_lists_and_can_not_be_changed():
    scores = np.arange(4.0)
    grid = SelectorInput([0, 1, 2, 3], 2, scores=scores)
    with pytest.raises(ValueError, match="read-only"):
        grid.scores[0] = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        grid.num_frames = 3  # type: ignore[misc]
    assert scores.flags.writeable
    assert grid.filled([3]).times_seconds == (2, 3)  # 3 is given, and then comes the best of the others
    assert grid.filled([0, 0]) == FrameSelection("", (0, 3))


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
def test_scores_are_stretched(scores, expected):
    assert SelectorInput(np.arange(len(scores)), 1, scores=np.array(scores)).unit_scores().tolist() == expected


@pytest.mark.parametrize("name", ["mmr", "dpp", "mdp3", "mdp3_released", "kmeans", "segments"])
def test_lacking_vectors_are_named(name):
    with pytest.raises(LvqaError, match=f"method '{name}' needs a vector for each frame"):
        make_selector(name).select(grid_like(9, 3, scores="random"))
    grid = grid_like(9, 3, scores="random", features="different")
    if "dp" in name:
        with pytest.raises(LvqaError, match=f"method '{name}' needs the question's vector"):
            make_selector(name).select(known(grid, query=None))


def test_frames_get_the_vector_of_their_clip():
    clips = [Clip("v", 0, 4), Clip("v", 4, 8)]
    found = frame_features(np.arange(6) * 2.0, clips, np.array([[1, 0], [0, 1]], dtype=np.float32))
    assert found.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [0, 0]]
    assert Candidate(clips[0], 0.5).start_seconds == 0


# --- by name -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("best", {}, ("method must be one of freeret, uniform", "got 'best'")),
        ("aks", {"t1": 3}, ("unknown option 't1' of method 'aks'", "it takes: stand_out, depth")),
        ("nms", {"window": 3}, ("unknown option 'window'", "it takes: none")),
        ("aks", {"stand_out": "much"}, ("stand_out must be a number from 0 to 1, got 'much'",)),
        ("aks", {"depth": -1}, ("depth must be a whole number from 0 to 20, got -1",)),
        ("bolt", {"power": 0}, ("power must be a number from 1e-09 to 1e+09, got 0",)),
        ("bolt", {"power": float("nan")}, ("power", "nan")),
        ("bolt", {"power": 10**400}, ("power", "1000")),
        ("mmr", {"balance": 1.5}, ("balance must be a number from 0 to 1, got 1.5",)),
        ("mdp3", {"segment": 0}, ("segment must be a whole number, 1 or more, got 0",)),
        ("dpp", {"trade_off": 0}, ("trade_off", "1e-09")),
        ("qframe", {"temperature": 0}, ("temperature", "1e-09")),
        ("qframe", {"candidates": 1.5}, ("candidates", "1.5")),
        ("focus", {"arm_seconds": 0}, ("arm_seconds",)),
        ("tstar", {"share": 2}, ("share", "2")),
        ("tstar", {"apart": 1}, ("apart must be true or false, got 1",)),
        ("kmeans", {"max_rounds": True}, ("max_rounds", "True")),
        ("segments", {"per_frame": 0}, ("per_frame",)),
        ("router", {"otherwise": "router"}, ("otherwise", "router")),
        ("router", {"otherwise": "best"}, ("method must be one of", "'best'")),
        ("router", {"otherwise": "aks", "options": {"t1": 1}}, ("unknown option 't1' of method 'aks'",)),
        ("router", {"options": [1]}, ("options must be a mapping", "[1]")),
        ("uniform", {"uniform": "middle"}, ("midpoint, linspace, interior", "'middle'")),
    ],
)
def test_a_wrong_name_option_or_value_is_refused(name, options, named):
    with pytest.raises(LvqaError) as caught:
        make_selector(name, options)
    assert all(part in str(caught.value) for part in named), str(caught.value)
    assert "\n" not in str(caught.value)


def test_own_options_stand_above_the_shared_ones():
    assert make_selector("random", {"seed": 2}, seed=1, uniform="linspace") == make_selector("random", seed=2)
    make = functools.partial(make_selector, "router", uniform="linspace", seed=4)
    assert make({"otherwise": "random"}).otherwise == "random"
