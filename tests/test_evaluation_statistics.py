"""What rows say, against scipy, values worked out by hand, and figures that must come out by symmetry."""

import math

import numpy as np
import pytest
from scipy import stats

from lvqa.evaluation import accuracy, by_ability, compare, cost, evidence_recall, index_cost, official_accuracy
from lvqa.evaluation.statistics import Share, clustered_interval, official_letter


def row(letter="A", right="A", **fields):
    """A row of a video `v`, answered by logits."""
    blank = {
        "video_id": "v",
        "question_id": "q",
        "tags": [],
        "evidence_seconds": None,
        "text": "",
        "option_scores": [1.0],
    }
    empty = {"embedded": [], "reranked": [], "times_seconds": [], "index": None, "seconds": {}, "error": None}
    counts = {"frames_decoded": 0, "pairs_encoded": 0, "tokens_prefilled": 0}
    return {**blank, **empty, "counts": counts, "prediction": letter, "target": right, **fields}


def failed(**fields):
    return row(None, option_scores=[], error="broken", **fields)


def lot(rights, video=lambda place: "v"):
    return [row("A" if right else "B", question=str(place), video=video(place)) for place, right in enumerate(rights)]


# --- shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "n"), [(8, 10), (0, 7), (7, 7), (1, 1), (650, 1519)])
def test_wilsons_interval_is_its_formula(hits, n):
    found, p, z = Share.of([True] * hits + [False] * (n - hits)), hits / n, stats.norm.ppf(0.975)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (found.hits, found.n, found.value) == (hits, n, pytest.approx(p))
    assert (found.low, found.high) == (pytest.approx(middle - half, abs=1e-9), pytest.approx(middle + half, abs=1e-9))


def test_of_nothing_nothing_is_known():
    found = accuracy([])
    assert found.n == 0 and math.isnan(found.value) and (found.low, found.high) == (0, 1)


def test_a_failure_is_wrong_here_and_left_out_there():
    rows = [row("A"), row("B"), failed(), failed()]
    assert (accuracy(rows).hits, accuracy(rows).n) == (1, 4)
    assert (official_accuracy(rows).hits, official_accuracy(rows).n) == (1, 2)


def test_a_question_without_a_known_answer_is_never_right():
    assert accuracy([row(None, None), failed(right=None)]).hits == 0


def test_a_question_counts_once_in_each_of_its_abilities():
    rows = [row("A", tags=["ER", "KIR"]), row("B", tags=["ER"]), row("A", tags=["ER", "ER"]), failed(tags=["TG"])]
    found = by_ability(rows)
    assert {name: (share.hits, share.n) for name, share in found.items()} == {"ER": (2, 3), "KIR": (1, 1), "TG": (0, 1)}
    assert by_ability(rows, official_accuracy)["TG"].n == 0


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *[("B", "B"), ("(B) red", "B"), ("B) red", "B"), ("B. red", "B"), (" B\n", "B"), ("(B", "B")],
        *[("A red car", "A"), ("The answer is B", "T"), ("b", "b"), ("", ""), (" \n", ""), ("()", "")],
    ],
)
def test_lvbench_reads_the_first_character_of_what_it_unwraps(text, letter):
    assert official_letter(row(None, text=text, option_scores=[])) == letter


def test_the_official_figure_reads_text_its_own_way():
    said = {"option_scores": [], "target": "A"}
    rows = [row("A", **said, text="A"), row("D", **said, text="A red car"), row("A", **said, text="The answer is A")]
    assert accuracy(rows).hits == 2 and official_accuracy(rows).hits == 2
    assert [official_letter(one) for one in rows] == ["A", "A", "T"]
    assert official_letter(row("C", text="a red car")) == "C"  # by logits the letter is known, whatever the text


# --- evidence --------------------------------------------------------------------------------------------------------


def test_evidence_recall_by_stage():
    clips = [[start, start + 16, 0.5] for start in (160, 32, 0, 16, 64, 80)]
    searched = {"embedded": clips, "reranked": clips[::-1]}
    rows = [
        row(**searched, evidence_seconds=[40, 44], times_seconds=[39, 44]),  # 2nd and 5th clip; both frames miss it
        row(**searched, evidence_seconds=[95, 200], times_seconds=[95]),  # 1st by overlap with 160; 1st reranked
        row(**searched, evidence_seconds=None, times_seconds=[1]),  # counts nowhere
        failed(evidence_seconds=[0, 5]),  # found nothing
    ]
    found = {stage: (share.hits, share.n) for stage, share in evidence_recall(rows).items()}
    assert found == {
        **{
            "embedding top 1": (1, 3),
            "embedding top 5": (2, 3),
            "embedding top 10": (2, 3),
            "embedding top 50": (2, 3),
        },
        **{"reranked top 1": (1, 3), "reranked top 5": (2, 3), "reranked top 10": (2, 3)},
        "selection": (1, 3),
    }


def test_a_stage_that_no_row_has_is_not_reported():
    assert evidence_recall([row(evidence_seconds=[0, 9])]) == {}
    assert [*evidence_recall([row(evidence_seconds=[0, 9], times_seconds=[3])])] == ["selection"]


def test_a_span_of_no_length_is_two_seconds():
    times = [[8.0], [9.0], [10.5], [11.0]]
    found = evidence_recall([row(evidence_seconds=[10, 10], times_seconds=time) for time in times])
    assert found["selection"].hits == 2


# --- comparison ------------------------------------------------------------------------------------------------------


def test_mcnemars_exact_test_by_hand():
    """10 gained, 2 lost: 2 (1 + 12 + 66) / 2^12."""
    arm, other = [1] * 10 + [0] * 2 + [1] * 5 + [0] * 3, [0] * 10 + [1] * 2 + [1] * 5 + [0] * 3
    found = compare(lot(arm), lot(other))
    assert (found.n, found.gained, found.lost) == (20, 10, 2)
    assert found.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert found.difference == pytest.approx(8 / 20)
    assert compare(lot(other), lot(arm)).p_value == pytest.approx(found.p_value)


def test_arms_that_agree_do_not_differ():
    found = compare(lot([1, 0, 1]), lot([1, 0, 1]))
    assert (found.difference, found.p_value) == (0, 1) and math.isnan(found.low)


def test_only_questions_that_both_were_asked_are_compared():
    found = compare(lot([1, 1, 1]), [*lot([0]), row("A", question="another")])
    assert (found.n, found.gained) == (1, 1)
    nothing = compare([], lot([1]))
    assert nothing.n == 0 and math.isnan(nothing.difference) and nothing.p_value == 1


def test_the_same_question_id_in_two_videos_is_two_questions():
    rows = [row("A", video="v"), row("B", video="w")]
    assert compare(rows, [row("B", video="v"), row("A", video="w")]).n == 2


def test_the_bootstrap_draws_videos_and_not_questions():
    """Two videos that go opposite ways: a mean of 0, 1/2 or 1 with chances 1/4, 1/2, 1/4, however many questions."""
    assert clustered_interval([("v", 1.0)] * 500 + [("w", 0.0)] * 500) == (0, 1)
    assert clustered_interval([(str(place), 0.25) for place in range(9)]) == (0.25, 0.25)
    assert all(map(math.isnan, clustered_interval([("v", 1.0)] * 500)))


def test_the_bootstrap_agrees_with_scipys_where_clusters_are_equal():
    rng = np.random.default_rng(5)
    means = rng.integers(-10, 11, size=30) / 10
    values = [(str(video), float(mean + step)) for video, mean in enumerate(means) for step in (-0.5, 0.5)]
    theirs = stats.bootstrap((means,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert clustered_interval(values) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert clustered_interval(values[::-1]) == clustered_interval(values)


def test_larger_videos_weigh_more():
    """A video of 3 wins and one of 1 loss: the mean over questions is 1/2, and not the mean of means, 0."""
    arm, other = (
        lot([1, 1, 1, 0], video=lambda place: str(place // 3)),
        lot([0, 0, 0, 1], lambda place: str(place // 3)),
    )
    found = compare(arm, other)
    assert (found.difference, found.low, found.high) == (0.5, -1, 1)


# --- cost ------------------------------------------------------------------------------------------------------------


def spent(frames, pairs, tokens):
    return {"frames_decoded": frames, "pairs_encoded": pairs, "tokens_prefilled": tokens}


def test_cost_is_the_mean_of_what_was_answered():
    rows = [
        row(counts=spent(4, 2, 100), seconds={"rank": 1.0, "answer": 2.0}),
        row(counts=spent(0, 0, 300), seconds={"answer": 4.0}),
        failed(counts=spent(0, 0, 0)),
    ]
    found = cost(rows)
    assert (found.n, found.frames_decoded, found.pairs_encoded, found.tokens_prefilled) == (2, 2, 1, 200)
    assert found.seconds == {"rank": 0.5, "answer": 3.0}
    assert cost([]).n == 0 and math.isnan(cost([]).tokens_prefilled)


def test_an_index_counts_once_and_only_if_it_was_made():
    made = {"reused": False, "counts": spent(100, 50, 1000), "seconds": 3.0}
    there = {"reused": True, "counts": spent(0, 0, 0), "seconds": 0.1}
    rows = [row(index=made), row(index=made, question="r"), row(index=there, question="s"), row(video="w", index=there)]
    assert (index_cost(rows).n, index_cost(rows).pairs_encoded, index_cost(rows).seconds) == (1, 50, {"index": 3.0})
