"""Method apportion: each principle by itself, on made scores. A clip has 16 frames, one a second."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvqa.records import LvqaError
from lvqa.selection import SelectorInput, make_selector
from lvqa.temporal import TemporalReading, read_temporal

NUM_CLIPS, CLIP_SECONDS = 30, 16
NO_WHOLE = {"whole": False}


def frames_of(confidences, budget, *, text="What colour is it?", kind=None, features=None, **options):
    """Return the times that are selected (budget,), for clips with these confidences; others have none."""
    scores = np.zeros(NUM_CLIPS)
    for clip, confidence in confidences.items():
        scores[clip] = confidence
    n = NUM_CLIPS * CLIP_SECONDS
    inputs = SelectorInput(
        np.arange(n) + 0.5,
        budget,
        scores=scores.repeat(CLIP_SECONDS),
        clip_ids=np.arange(NUM_CLIPS).repeat(CLIP_SECONDS),
        features=features,
        question_text=text,
        question_kind=kind,
        reading=read_temporal(text, n),
    )
    return np.array(make_selector("apportion", options).select(inputs).times_seconds)


def clips_of(times):
    """Return how many of the frames each clip has: {clip: frames}."""
    clips, counts = np.unique(times.astype(int) // CLIP_SECONDS, return_counts=True)
    return dict(zip(clips.tolist(), counts.tolist(), strict=True))


def dhondt(votes, seats, room):
    """The rule as it is taught: the largest quotients of votes by 1, 2, 3, ... win."""
    quotients = sorted(((v / k, -party) for party, v in votes.items() for k in range(1, room + 1)), reverse=True)
    winners = [-party for _, party in quotients[:seats]]
    return {party: winners.count(party) for party in votes if party in winners}


@pytest.mark.slow
@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 29), st.floats(0.2, 1), min_size=4, max_size=8), st.sampled_from([16, 32, 64]))
def test_clips_get_frames_by_dhondts_rule(confidences, budget):
    times = frames_of(confidences, budget, **NO_WHOLE)
    votes = {clip: (value / max(confidences.values())) ** 3 for clip, value in confidences.items()}
    expected = dhondt(votes, budget // 2, CLIP_SECONDS // 2)
    assert clips_of(times) == {clip: 2 * pairs for clip, pairs in expected.items()}


def test_a_sure_clip_is_shown_whole_and_doubt_is_spread():
    assert clips_of(frames_of({7: 1.0, 20: 0.1}, 16))[7] == 16
    assert clips_of(frames_of({7: 0.6, 20: 0.6}, 16)) == {7: 8, 20: 8}


def test_without_proportion_the_best_four_are_alike():
    confidences = {3: 1.0, 9: 0.4, 15: 0.3, 21: 0.2, 27: 0.1}
    alike = frames_of(confidences, 16, proportional=False, **NO_WHOLE)
    assert clips_of(alike) == dict.fromkeys((3, 9, 15, 21), 4)


@pytest.mark.parametrize("budget", [16, 32, 64])
def test_with_all_switches_off_it_is_freeret(budget):
    rng = np.random.default_rng(budget)
    off = dict.fromkeys(("named_times", "proportional", "order", "occurrence", "whole"), False)
    for scores in rng.random((20, NUM_CLIPS)):
        arguments = {"scores": scores.repeat(CLIP_SECONDS), "clip_ids": np.arange(NUM_CLIPS).repeat(CLIP_SECONDS)}
        inputs = SelectorInput(np.arange(NUM_CLIPS * CLIP_SECONDS), budget, **arguments)
        assert make_selector("apportion", off).select(inputs) == make_selector("freeret").select(inputs)


@pytest.mark.parametrize("budget", [16, 32, 64])
def test_a_named_moment_has_the_frames_nearest_to_it_and_the_ranking_the_rest(budget):
    times = frames_of({20: 1.0}, budget, text="What colour is it at 1:40?")
    near = 7 * budget // 8
    assert np.sort(np.abs(times - 100))[near - 1] <= near / 2 + 1  # 1:40 is 100 s
    assert clips_of(times)[20] == budget // 8
    assert clips_of(frames_of({20: 1.0}, budget, text="What colour is it at 1:40?", named_times=False))[20] == 16


def test_a_wider_span_is_shown_evenly_and_two_times_share():
    wide = frames_of({25: 1.0}, 16, text="What does she do from 0:40 to 3:20?")
    inside = wide[(wide >= 39) & (wide <= 201)]
    assert len(inside) == 14 and np.ptp(inside) > 130 and clips_of(wide)[25] == 2
    both = frames_of({25: 1.0}, 32, text="What is different at 1:00 and at 5:00?")
    assert sum(abs(both - 60) < 17) == sum(abs(both - 300) < 17) == 14


@pytest.mark.parametrize(("part", "low", "high"), [("beginning", 0, 25), ("end", 454, 480)])
def test_a_part_of_the_video_gets_half(part, low, high):
    times = frames_of({15: 1.0}, 32, text=f"What is shown at the {part} of the video?")
    assert sum((times >= low) & (times <= high)) == 16 and clips_of(times)[15] == 16


def test_what_comes_after_is_shown_after_the_whole_run_of_the_anchor():
    """Clips 10 and 11 show the same still, so what follows begins with clip 12."""
    confidences = {10: 0.9, 11: 0.8}
    after = clips_of(frames_of(confidences, 32, text="What happens after the red car leaves?"))
    before = clips_of(frames_of(confidences, 32, text="What happens right before the red car leaves?"))
    assert after[12] == 16 and after[13] == 8 and after[10] + after[11] == 8
    assert before[9] == 16 and before[8] == 8
    off = frames_of(confidences, 32, text="What happens after the red car leaves?", order=False)
    assert clips_of(off) == {10: 16, 11: 16}


def test_nothing_comes_after_the_end():
    times = frames_of({29: 1.0}, 16, text="What happens after the red car leaves?")
    assert len(times) == 16 and clips_of(times)[29] == 16


@pytest.mark.parametrize(("word", "favoured"), [("first", 5), ("last", 25)])
def test_of_equally_good_clips_the_first_or_the_last_gets_more(word, favoured):
    confidences = {5: 0.8, 15: 0.82, 25: 0.8}
    counts = clips_of(frames_of(confidences, 16, text=f"What is the {word} car that is seen?"))
    assert max(counts, key=counts.get) == favoured and set(counts) <= {5, 15, 25}
    off = clips_of(frames_of(confidences, 16, text=f"What is the {word} car that is seen?", occurrence=False))
    assert off[15] == 6


def even_share(times):
    """Return the share of the video's fifths that have a frame."""
    return len(np.unique(times.astype(int) // 96)) / 5


def test_the_less_the_ranking_knows_the_more_of_the_whole_is_shown():
    sure = frames_of({10: 1.0, 11: 0.9}, 32)
    unsure = frames_of(dict.fromkeys(range(0, 30, 2), 0.5), 32)
    clueless = frames_of({clip: 0.5 + clip / 1000 for clip in range(30)}, 32)
    assert even_share(sure) <= 0.2 and even_share(unsure) == even_share(clueless) == 1
    assert clips_of(frames_of({10: 1.0}, 32, text="What is the video mainly about?")) != clips_of(sure)
    assert even_share(frames_of({10: 1.0}, 32, text="What is the video mainly about?")) == 1


def test_the_models_own_gate_sets_the_shares():
    assert even_share(frames_of({10: 1.0}, 16, kind=(0, 0, 1))) == 1
    assert clips_of(frames_of({10: 1.0}, 16, kind=(1, 0, 0))) == {10: 16}
    assert clips_of(frames_of({10: 1.0}, 16, kind=(0.2, 0.8, 0)))[11] == 12


def test_neighbours_share_with_a_clip_the_next_more_than_the_one_before():
    counts = clips_of(frames_of({10: 1.0, 20: 0.05}, 64, neighbours=True, **NO_WHOLE))
    assert counts[10] == 16 and counts[11] == 16 and counts[9] >= 10
    assert set(clips_of(frames_of({10: 1.0, 20: 0.05}, 16, **NO_WHOLE))) == {10}


def test_one_picture_has_one_share_and_the_whole_is_shown_by_what_stands_for_it():
    features = np.eye(NUM_CLIPS)
    features[4] = features[3] = features[2]
    features = features.repeat(CLIP_SECONDS, axis=0)
    confidences = {2: 0.8, 3: 0.9, 4: 0.7, 12: 0.6}
    counts = clips_of(frames_of(confidences, 16, features=features, distinct=True, **NO_WHOLE))
    assert set(counts) == {3, 12}
    flat = {clip: 0.5 + clip / 1000 for clip in range(30)}
    standing = clips_of(frames_of(flat, 4, features=features, representative=True))
    assert len(standing) == 2 and set(standing) & {2, 3, 4}  # the picture that three clips show
    with pytest.raises(LvqaError, match="needs a vector for each frame"):
        frames_of(confidences, 16, distinct=True)


def test_an_odd_budget_and_scores_that_are_no_probabilities():
    assert clips_of(frames_of({7: 40.0, 8: -3.0}, 15))[7] == 15
    assert len(frames_of({7: -1.0}, 33)) == 33


def test_a_switch_that_is_no_switch_is_refused():
    with pytest.raises(LvqaError, match="named_times"):
        make_selector("apportion", {"named_times": "yes"})


def test_what_is_not_read_is_not_used():
    inputs = SelectorInput(np.arange(64.0), 8, scores=np.r_[np.ones(16), np.zeros(48)], clip_ids=np.arange(64) // 16)
    selector = make_selector("apportion")
    assert selector.uses_reading and selector.uses_kind and not selector.needs_features
    assert max(selector.select(inputs).times_seconds) < 16
    assert TemporalReading() == TemporalReading(spans=())
