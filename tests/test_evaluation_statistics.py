"""The statistics of rows, against scipy, values worked out by hand, and figures that follow by symmetry."""

import dataclasses
import math

import pytest
from scipy import stats

from lvqa.datasets.headline import Figure
from lvqa.datasets.lvbench import LVBench, official_letter
from lvqa.evaluation import accuracy, by_ability, compare, cost, evidence_recall, index_cost
from lvqa.evaluation.rows import NEW_KEYS
from lvqa.evaluation.statistics import Share, correct


def row(prediction="A", target="A", **fields):
    """Return the row of an answer by logits to question `q` about video `v`."""
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
    return {**NEW_KEYS, **blank, **empty, "counts": counts, "prediction": prediction, "target": target, **fields}


def failed(**fields):
    return row(None, option_scores=[], error="broken", **fields)


def rows_of(correct, video_of=lambda i: "v"):
    """Return a row for each value: a correct answer if it is true. `video_of` gives the video of the i-th one."""
    return [row("A" if hit else "B", question_id=str(i), video_id=video_of(i)) for i, hit in enumerate(correct)]


# --- shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "n"), [(8, 10), (0, 7), (7, 7), (1, 1), (650, 1519)])
def test_wilsons_interval_is_its_formula(hits, n):
    share, p, z = Share.of([True] * hits + [False] * (n - hits)), hits / n, stats.norm.ppf(0.975)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (share.hits, share.n, share.value) == (hits, n, pytest.approx(p))
    assert (share.low, share.high) == (pytest.approx(middle - half, abs=1e-9), pytest.approx(middle + half, abs=1e-9))


def test_the_accuracy_of_no_rows_is_unknown():
    share = accuracy([])
    assert share.n == 0 and all(map(math.isnan, (share.value, share.low, share.high)))


def test_a_failure_is_wrong_and_left_out_of_the_official_figure():
    rows = [row("A"), row("B"), failed(), failed()]
    assert (accuracy(rows).hits, accuracy(rows).n) == (1, 4)
    assert LVBench.headline(rows)["overall"] == Figure(0.5, 2)


def test_an_open_answer_counts_by_its_judge_and_not_before_it_has_spoken():
    verdicts = (True, False, None)
    rows = [row(None, judge="m", judged_correct=v, question_id=str(i)) for i, v in enumerate(verdicts)]
    rows.append(failed(judge="m", question_id="3"))
    assert (accuracy(rows).hits, accuracy(rows).n) == (1, 3)
    others = [row(None, judge="m", judged_correct=False, question_id=str(i)) for i in range(4)]
    assert (compare(rows, others).gained, compare(rows, others).n) == (1, 3)


def test_an_empty_reply_is_wrong_in_the_official_figure():
    rows = [row("A"), row(None, text="", option_scores=[]), failed()]
    assert LVBench.headline(rows)["overall"] == Figure(0.5, 2)


def test_a_question_without_a_known_target_is_never_correct():
    assert accuracy([row(None, None), failed(target=None)]).hits == 0


def test_a_question_counts_once_in_each_of_its_abilities():
    rows = [row("A", tags=["ER", "KIR"]), row("B", tags=["ER"]), row("A", tags=["ER", "ER"]), failed(tags=["TG"])]
    shares = by_ability(rows)
    assert {name: (share.hits, share.n) for name, share in shares.items()} == {
        "ER": (2, 3),
        "KIR": (1, 1),
        "TG": (0, 1),
    }


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
    generated = {"option_scores": []}
    texts = [("A", "A"), ("D", "A red car"), ("A", "The answer is A")]
    rows = [row(prediction, **generated, text=text) for prediction, text in texts]
    assert accuracy(rows).hits == 2 and LVBench.headline(rows)["overall"] == Figure(2 / 3, 3)
    assert [official_letter(answer) for answer in rows] == ["A", "A", "T"]
    assert official_letter(row("C", text="a red car")) == "C"  # by logits the letter is known, whatever the text


# --- evidence --------------------------------------------------------------------------------------------------------


def test_evidence_recall_by_stage():
    clips = [[start, start + 16, 0.5] for start in (160, 32, 0, 16, 64, 80)]
    pool = {"embedded": clips, "reranked": clips[::-1]}
    rows = [
        row(**pool, evidence_seconds=[40, 44], times_seconds=[39, 44]),  # 2nd and 5th clip; both frames miss it
        row(**pool, evidence_seconds=[95, 200], times_seconds=[95]),  # 1st by overlap with 160; 1st reranked
        row(**pool, evidence_seconds=None, times_seconds=[1]),  # counts nowhere
        failed(evidence_seconds=[0, 5]),  # no clip, no frame
    ]
    recall = {stage: (share.hits, share.n) for stage, share in evidence_recall(rows).items()}
    assert recall == {
        **{
            "embedding top 1": (1, 3),
            "embedding top 5": (2, 3),
            "embedding top 10": (2, 3),
            "embedding top 50": (2, 3),
        },
        **{"reranked top 1": (1, 3), "reranked top 5": (2, 3), "reranked top 10": (2, 3)},
        "selection": (1, 3),
    }


@pytest.mark.parametrize(
    ("start", "end", "is_hit"), [(24, 40, False), (24, 40.5, True), (60, 76, False), (59.5, 75.5, True), (0, 99, True)]
)
def test_a_clip_must_overlap_the_evidence_and_not_only_touch_it(start, end, is_hit):
    """The evidence is from 40 s to 60 s: a clip that ends or begins exactly there contains none of it."""
    clips = [[start, end, 0.5]]
    recall = evidence_recall([row(embedded=clips, reranked=clips, evidence_seconds=[40, 60])])
    assert recall["embedding top 1"].hits == recall["reranked top 1"].hits == is_hit


@pytest.mark.parametrize(("seconds", "is_hit"), [(39.9, False), (40, True), (59.9, True), (60, False)])
def test_a_frame_at_the_start_of_the_evidence_is_inside_and_one_at_its_end_is_not(seconds, is_hit):
    recall = evidence_recall([row(times_seconds=[seconds], evidence_seconds=[40, 60])])
    assert recall["selection"].hits == is_hit


def test_a_stage_that_no_row_has_is_not_reported():
    assert evidence_recall([row(evidence_seconds=[0, 9])]) == {}
    assert [*evidence_recall([row(evidence_seconds=[0, 9], times_seconds=[3])])] == ["selection"]


def test_a_span_of_no_length_is_two_seconds():
    times = [[8.0], [9.0], [10.5], [11.0]]
    recall = evidence_recall([row(evidence_seconds=[10, 10], times_seconds=time) for time in times])
    assert recall["selection"].hits == 2


# --- comparison ------------------------------------------------------------------------------------------------------


def test_mcnemars_exact_test_by_hand():
    """10 gained, 2 lost: 2 (1 + 12 + 66) / 2^12."""
    arm, other = [1] * 10 + [0] * 2 + [1] * 5 + [0] * 3, [0] * 10 + [1] * 2 + [1] * 5 + [0] * 3
    result = compare(rows_of(arm), rows_of(other))
    assert (result.n, result.gained, result.lost) == (20, 10, 2)
    assert result.mcnemar_p == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert result.difference == pytest.approx(8 / 20)
    assert compare(rows_of(other), rows_of(arm)).mcnemar_p == pytest.approx(result.mcnemar_p)


def test_arms_that_agree_do_not_differ():
    result = compare(rows_of([1, 0, 1]), rows_of([1, 0, 1]))
    assert (result.difference, result.mcnemar_p) == (0, 1) and math.isnan(result.low)
    videos = [rows_of([1, 0] * 6, lambda i: str(i // 2)) for _ in range(2)]
    result = compare(*videos)
    assert (result.low, result.high, result.p_value) == (0, 0, 1)


def test_only_questions_that_both_were_asked_are_compared():
    result = compare(rows_of([1, 1, 1]), [*rows_of([0]), row("A", question_id="another")])
    assert (result.n, result.gained) == (1, 1)
    empty = compare([], rows_of([1]))
    assert empty.n == 0 and math.isnan(empty.difference) and empty.mcnemar_p == 1


def test_the_same_question_id_in_two_videos_is_two_questions():
    rows = [row("A", video_id="v"), row("B", video_id="w")]
    assert compare(rows, [row("B", video_id="v"), row("A", video_id="w")]).n == 2


def test_fewer_than_five_videos_have_no_interval():
    """What differs between videos can't be told from so few."""
    for num_videos, is_known in ((1, False), (4, False), (5, True)):
        arm, other = (rows_of(hits, lambda i, n=num_videos: str(i % n)) for hits in ([1, 1, 0, 1, 0] * 4, [1, 0] * 10))
        paired, share = compare(arm, other), accuracy(arm)
        figures = (paired.low, paired.high, paired.p_value, paired.detectable, share.low, share.high)
        assert [not math.isnan(figure) for figure in figures] == [is_known] * 6
        assert paired.num_videos == share.num_videos == num_videos and paired.difference == pytest.approx(0.1)


def test_comparisons_of_a_table_are_corrected_by_holms_method():
    """Worked out by hand: 4 x 0.005, 3 x 0.01, then 2 x 0.03, and never less than the one before."""
    base = compare(rows_of([1]), rows_of([0]))
    p_values = [0.03, 0.005, math.nan, 0.01, 0.04]
    table = correct([dataclasses.replace(base, p_value=p) for p in p_values])
    assert [c.holm_p for c in table] == pytest.approx([0.06, 0.02, math.nan, 0.03, 0.06], nan_ok=True)


# --- cost ------------------------------------------------------------------------------------------------------------


def counts(frames, pairs, tokens):
    return {"frames_decoded": frames, "pairs_encoded": pairs, "tokens_prefilled": tokens}


def test_cost_is_the_mean_of_answered_questions():
    rows = [
        row(counts=counts(4, 2, 100), seconds={"rank": 1.0, "answer": 2.0}, answer_tokens=60, answer_visual_tokens=48),
        row(counts=counts(0, 0, 300), seconds={"answer": 4.0}),
        failed(counts=counts(0, 0, 0)),
    ]
    mean = cost(rows)
    assert (mean.n, mean.frames_decoded, mean.pairs_encoded, mean.tokens_prefilled) == (2, 2, 1, 200)
    assert mean.seconds == {"rank": 0.5, "answer": 3.0}
    assert (mean.answer_tokens, mean.answer_visual_tokens) == (60, 48), "rows of older formats do not say it"
    assert cost([]).n == 0 and math.isnan(cost([]).tokens_prefilled)


def test_an_index_counts_once_and_only_if_it_was_built():
    built = {"reused": False, "counts": counts(100, 50, 1000), "seconds": 3.0}
    reused = {"reused": True, "counts": counts(0, 0, 0), "seconds": 0.1}
    rows = [
        row(index=built),
        row(index=built, question_id="r"),
        row(index=reused, question_id="s"),
        row(video_id="w", index=reused),
    ]
    assert (index_cost(rows).n, index_cost(rows).pairs_encoded, index_cost(rows).seconds) == (1, 50, {"index": 3.0})
