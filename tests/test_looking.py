"""Two looks: half of the frames first, and where the model is unsure the other half too; on the embedded model."""

import dataclasses
import json

import numpy as np
import pytest
from pipelines import FRAMES_IN_VIDEO, MINUTES, SEED, make_pipeline
from stored_pages import stored_answer

from lvqa.caveats import NO_CONFIDENCE
from lvqa.cli.answers import answer_text
from lvqa.components import METHODS, check_settings
from lvqa.config import load_config
from lvqa.output import answer_json
from lvqa.pipeline import LongVideoQA
from lvqa.records import FrameSelection, LvqaError, Question
from lvqa.selection import SelectorInput
from lvqa.synthetic.videos import ask_about, write_script
from lvqa.web import write_page

ALWAYS, NEVER = "answer.look_again=1", "answer.look_again=0.000001"
SETTINGS = ("video.clip_seconds=4", "answer.mode=logits")
CLIP_SECONDS = 4


@pytest.fixture(scope="module")
def once(tiny, tmp_path_factory) -> LongVideoQA:
    """A pipeline that shows all frames at once; the others here share its sessions."""
    return make_pipeline(tiny, tmp_path_factory.mktemp("store"), *SETTINGS)


def looking(qa: LongVideoQA, *settings: str) -> LongVideoQA:
    return qa.with_config(load_config(None, [*SETTINGS, *settings, f"store.folder={qa.store.folder}"]))


def clips_of(times: set[float]) -> set[int]:
    return {int(seconds // CLIP_SECONDS) for seconds in times}


@pytest.mark.slow
def test_a_confident_model_looks_once(once, video, question):
    answer = looking(once, NEVER).answer(video, question, frames=16)
    half = once.answer(video, question, frames=8)
    assert answer.looked_again is False and half.looked_again is None
    same = ("frames", "text", "option", "option_scores", "answer_tokens", "answer_cost")
    assert all(getattr(answer, name) == getattr(half, name) for name in same)
    assert answer.frames_budget == 16


@pytest.mark.slow
def test_an_unsure_model_sees_the_other_half_too(once, video, question):
    answer = looking(once, ALWAYS).answer(video, question, frames=16)
    first = set(once.answer(video, question, frames=8).frames)
    assert answer.looked_again is True
    assert len(answer.frames) == 16 and first < set(answer.frames)
    assert not clips_of(first) & clips_of(set(answer.frames) - first), "candidates that were not shown"


@pytest.mark.slow
def test_each_look_has_twice_the_frames_of_the_last_until_the_model_is_sure_or_they_are_spent(once, video, question):
    qa = looking(once, ALWAYS, "answer.first_look=4")
    answer = qa.answer(video, question, frames=14)
    first = once.answer(video, question, frames=4)
    assert len(answer.frames) == 14 and set(first.frames) < set(answer.frames) and answer.looked_again is True
    looks = [4, 8, 14]
    per_frame = [once.answer(video, question, frames=frames).answer_tokens for frames in looks]
    assert answer.answer_cost.counts.tokens_prefilled == pytest.approx(sum(per_frame), rel=0.2)
    at_once = qa.answer(video, question, frames=3)
    assert at_once.frames == once.answer(video, question, frames=3).frames and at_once.looked_again is False


@pytest.mark.slow
@pytest.mark.parametrize("method", ["freeret", "uniform", "apportion", "topk"])
def test_the_next_look_may_add_what_the_method_adds_to_a_larger_budget(once, video, question, method):
    qa = looking(once, ALWAYS, "answer.first_look=8", "answer.next_look=larger_budget")
    first, wider = (once.answer(video, question, frames=frames, method=method) for frames in (8, 16))
    for budget in (16, 15):
        answer = qa.answer(video, question, frames=budget, method=method)
        assert len(answer.frames) == budget and answer.looked_again is True
        assert set(first.frames) < set(answer.frames)
        if budget == 16:
            assert set(answer.frames) <= {*first.frames, *wider.frames}


@pytest.mark.slow
def test_looks_may_be_pooled(once, video):
    """The mean of the probabilities in all looks answers, and says whether there is another look."""
    question = ask_about(write_script(SEED, MINUTES), 2)[1]
    looks, pooled = [], None
    for budget in (2, 4, 8):
        last = looking(once, ALWAYS, "answer.first_look=2").answer(video, question, frames=budget)
        looks.append(last.option_scores)
        pooled = looking(once, ALWAYS, "answer.first_look=2", "answer.pool_looks=true").answer(
            video, question, frames=budget
        )
        assert pooled.option_scores == pytest.approx(np.mean(looks, axis=0), abs=1e-5)
        assert (pooled.frames, pooled.answer_tokens) == (last.frames, last.answer_tokens)
        best = int(np.argmax(pooled.option_scores))
        assert (pooled.text, pooled.option) == (question.options[best], question.letters[best])
    between = (max(looks[0]) + max(np.mean(looks[:2], axis=0))) / 2
    assert pooled is not None and max(looks[0]) != max(looks[1])
    again = looking(once, f"answer.look_again={between}", "answer.first_look=2", "answer.pool_looks=true").answer(
        video, question, frames=8
    )
    is_sure = max(np.mean(looks[:2], axis=0)) > between
    assert len(again.frames) == (4 if is_sure else 2)


@pytest.mark.slow
def test_it_answers_as_from_these_frames_at_once_and_both_prompts_count(make, tiny, video, question, tmp_path):
    qa = make(*SETTINGS, ALWAYS)
    qa.index(video)
    qa.answer(video, question, method="uniform", frames=1)
    answer = qa.answer(video, question, frames=16)
    first, path = make(*SETTINGS).answer(video, question, frames=8), tmp_path / "frames.json"
    path.write_text(json.dumps({video.stem: [{"question_id": question.id, "frames": answer.frames}]}))
    alone = make(*SETTINGS).answer(video, dataclasses.replace(question, video_id=""), method=str(path), frames=16)
    assert (alone.frames, alone.text, alone.answer_tokens) == (answer.frames, answer.text, answer.answer_tokens)
    assert answer.option_scores == pytest.approx(alone.option_scores, abs=1e-5)
    tokens = first.answer_tokens + alone.answer_tokens
    assert answer.answer_cost.counts.tokens_prefilled == tokens
    assert answer.counts.tokens_prefilled == answer.ranking_cost.counts.tokens_prefilled + tokens
    assert answer.answer_cost.seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["freeret", "uniform"])
@pytest.mark.parametrize("budget", [1, 2, 3, 59, 60, 64])
def test_the_budget_is_exact(once, video, question, method, budget):
    answer = looking(once, ALWAYS).answer(video, question, frames=budget, method=method)
    assert len(answer.frames) == min(budget, FRAMES_IN_VIDEO)
    assert list(answer.frames) == sorted(set(answer.frames))
    assert answer.looked_again is (budget > 1), "one frame has no other half"


@pytest.mark.parametrize(
    "method", [method for method in METHODS if method not in ("freeret", "uniform", "blind", "oracle")]
)
@pytest.mark.slow
def test_every_method_works_unchanged(once, video, question, method):
    answer = looking(once, ALWAYS).answer(video, question, frames=16, method=method)
    assert (answer.looked_again, len(answer.frames)) == (True, 16)
    assert list(answer.frames) == sorted(set(answer.frames))


def test_where_no_other_frame_is_left_there_is_no_second_look(once, video, question):
    whole = looking(once, ALWAYS).answer(video, question, frames=2 * FRAMES_IN_VIDEO)
    assert (whole.looked_again, len(whole.frames)) == (False, FRAMES_IN_VIDEO)


@pytest.mark.slow
def test_questions_together_are_answered_as_alone_and_a_free_one_is_told(make, video):
    questions = [*ask_about(write_script(SEED, MINUTES), 3), Question("What is seen?")]
    threshold = sorted(max(answer.option_scores) for answer in make(*SETTINGS).answers(video, questions[:3], frames=4))[
        1
    ]
    setting = f"answer.look_again={threshold}"  # one of the three is below it
    together, qa = make(*SETTINGS, setting).answers(video, questions, frames=8), make(*SETTINGS, setting)
    alone = [qa.answer(video, question, frames=8) for question in questions]
    for answer, expected in zip(together, alone, strict=True):
        same = ("frames", "text", "option", "looked_again", "answer_tokens", "caveats")
        assert [getattr(answer, name) for name in same] == [getattr(expected, name) for name in same]
        tokens = answer.answer_cost.counts.tokens_prefilled
        assert tokens == expected.answer_cost.counts.tokens_prefilled
    looked = [answer.looked_again for answer in together]
    assert looked[3] is None and True in looked[:3] and False in looked[:3]
    assert len(together[3].frames) == 8
    assert [NO_CONFIDENCE in answer.caveats.warnings for answer in together] == [False, False, False, True]


def test_generated_answers_have_no_confidence(make, video, question):
    answer = make("answer.mode=text", "answer.max_new_tokens=2", ALWAYS).answer(
        video, question, frames=4, method="uniform"
    )
    assert (answer.looked_again, len(answer.frames)) == (None, 4)
    assert NO_CONFIDENCE in answer.caveats.warnings


@pytest.mark.slow
def test_it_is_shown(once, video, question, tmp_path):
    inspected = once.inspect_video(video)
    for setting, is_again, text in [(ALWAYS, True, "looked again"), (NEVER, False, "sure at the first look")]:
        answer = looking(once, setting).answer(video, question, frames=8)
        assert answer_json(answer, ())["looked_again"] is is_again
        assert f"({text}): " in answer_text(answer, ())
        write_page(tmp_path / "a.html", answer, inspected, evidence=())
        assert stored_answer(tmp_path / "a.html")["looked_again"] is is_again


@pytest.mark.parametrize("value", ["0", "1.5", "-1", "much"])
def test_a_threshold_that_is_no_probability_is_refused(value):
    with pytest.raises(LvqaError, match=r"answer\.look_again must be .*a number above 0, at most 1"):
        load_config(None, [f"answer.look_again={value}"])


@pytest.mark.parametrize("method", ["a.json", "oracle", "blind"])
def test_a_file_of_frames_and_a_control_have_no_other_half(method):
    with pytest.raises(LvqaError, match=rf"answer\.look_again needs a method that can be asked for more .*'{method}'"):
        check_settings(load_config(None, [ALWAYS, f"method={method}"]))


# --- what is left to choose from --------------------------------------------------------------------------------------


def inputs(num_frames: int) -> SelectorInput:
    """Twelve frames in three clips of four."""
    n = np.arange(12)
    return SelectorInput(n, num_frames, scores=n / 12, clip_ids=n // 4, features=np.eye(12), query=np.eye(12)[0])


def test_the_rest_is_of_clips_that_were_not_shown():
    rest = inputs(8).after(FrameSelection("", (0.0, 2.0, 3.0)))
    assert rest is not None and rest.num_frames == rest.budget == 5
    assert rest.times_seconds.tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert rest.scores.tolist() == [i / 12 for i in range(4, 12)]
    assert rest.clip_ids.tolist() == [1] * 4 + [2] * 4 and rest.pair_ids.tolist() == [2, 2, 3, 3, 4, 4, 5, 5]
    assert rest.features is not None and rest.features.argmax(axis=1).tolist() == list(range(4, 12))


def test_where_those_are_too_few_it_is_of_all_frames_that_were_not_shown():
    rest = inputs(64).after(FrameSelection("", (0.0, 5.0)))
    assert rest is not None and rest.num_frames == rest.budget == 10
    assert rest.times_seconds.tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


def test_a_full_budget_leaves_nothing():
    assert inputs(2).after(FrameSelection("", (0.0, 5.0))) is None
    assert inputs(64).after(FrameSelection("", tuple(map(float, range(12))))) is None


def test_a_wider_selection_fills_the_budget_with_whole_pairs_at_even_distances():
    first, all_frames = FrameSelection("", (4.0, 5.0)), FrameSelection("", tuple(map(float, range(12))))
    assert inputs(12).widened(first, all_frames) == all_frames
    assert inputs(6).widened(first, all_frames).times_seconds == (2, 3, 4, 5, 8, 9)
    assert inputs(5).widened(first, all_frames).times_seconds == (2, 3, 4, 5, 8)
    singles = FrameSelection("", (0.0, 2.0, 5.0, 7.0, 8.0, 11.0))
    assert inputs(3).widened(FrameSelection("", (5.0,)), singles).times_seconds == (2, 5, 8)
    assert inputs(6).widened(FrameSelection("", (1.0,)), singles).times_seconds == (0, 1, 2, 7, 8, 11)
