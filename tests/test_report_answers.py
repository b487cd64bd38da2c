"""Pages and pictures of answers: frames by clip, round ticks of time, the demo's question, and the enlarged frames."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from lvqa.cli.make_videos import demo_example
from lvqa.records import Answer, Candidate, Clip, Counts, Question
from lvqa.report import is_correct, num_inside, write_contact_sheet
from lvqa.report.answers import ClipFrames, answer_text, frames_by_clip
from lvqa.report.contact_sheet import rows_of_clips
from lvqa.report.timeline import DARK, tick_step
from lvqa.video import inspect_video

CLIP_SECONDS = 10


def candidate(i: int, *, rerank: float | None = None) -> Candidate:
    """The i-th clip of ten seconds."""
    return Candidate(
        Clip("v", CLIP_SECONDS * i, CLIP_SECONDS * (i + 1)), embed_score=0.25 + i / 100, rerank_score=rerank
    )


EVIDENCE = (candidate(3, rerank=0.9), candidate(0, rerank=0.5), candidate(5, rerank=0.25), *map(candidate, (1, 2, 4)))
QUESTION = Question("Which <b>colour</b> costs $1 and $2?", ("red", "blue"), answer="B", evidence_seconds=(32.0, 36.0))


def answer_of(
    *, option: str = "B", frames: tuple[float, ...] = (1, 30, 31, 34, 35, 39), method: str = "freeret"
) -> Answer:
    is_search = method == "freeret"
    return Answer(
        question=QUESTION,
        text=QUESTION.options[QUESTION.letters.index(option)],
        option=option,
        option_scores=(0.4, 0.6),
        model="tiny",
        method=method,
        frames_budget=8,
        frames=frames,
        evidence=EVIDENCE if is_search else (),
        index=None,
        counts=Counts(),
        seconds={"open": 0.1, "answer": 0.2},
    )


UNIFORM = answer_of(option="A", frames=(5, 15, 25, 34, 45, 55), method="uniform")


@pytest.fixture(scope="module")
def video(synthetic_video):
    return inspect_video(synthetic_video())


# --- frames by clip ---------------------------------------------------------------------------------------------------


def test_frames_are_grouped_by_their_clip_the_best_clip_first():
    assert frames_by_clip(answer_of()) == [
        ClipFrames((30, 31, 34, 35, 39), EVIDENCE[0], 1),
        ClipFrames((1,), EVIDENCE[1], 2),
    ]


def test_a_frame_between_two_clips_is_of_the_one_that_starts_there():
    groups = frames_by_clip(answer_of(frames=(20, 30)))
    assert [(group.candidate.start_seconds, group.times_seconds) for group in groups] == [(30, (30,)), (20, (20,))]


def test_frames_of_no_scored_clip_are_the_last_group():
    assert frames_by_clip(answer_of(frames=(30, 70)))[-1] == ClipFrames((70,))
    assert frames_by_clip(UNIFORM) == [ClipFrames(UNIFORM.frames)]
    assert frames_by_clip(answer_of(frames=())) == []


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [
        ((4, 4), [[(0, 4)], [(0, 4)]]),
        ((1, 2, 1, 3), [[(0, 1), (1, 2), (3, 1)], [(0, 3)]]),
        ((2, 3), [[(0, 2)], [(0, 3)]]),
        ((6, 2, 1), [[(0, 4)], [(0, 2), (2, 2)], [(0, 1)]]),
        ((), []),
    ],
)
def test_four_frames_stand_in_a_row_and_clips_share_rows_where_they_fit(sizes, rows):
    clips = [ClipFrames(tuple(100.0 * i + j for j in range(size))) for i, size in enumerate(sizes)]
    laid_out = rows_of_clips(clips, 4)
    assert [[(run.column, len(run.times_seconds)) for run in row] for row in laid_out] == rows
    assert [run.clip for row in laid_out for run in row if run.clip] == clips  # each is named once
    assert [t for row in laid_out for run in row for t in run.times_seconds] == [
        t for clip in clips for t in clip.times_seconds
    ]


def test_an_answer_is_correct_or_wrong_where_that_is_known():
    assert (answer_text(answer_of()), answer_text(UNIFORM)) == ("B. blue (correct)", "A. red (wrong)")
    free = dataclasses.replace(answer_of(), question=Question("Where?"), text="At sea.", option=None)
    assert answer_text(free) == "At sea." and not is_correct(free)
    assert num_inside(answer_of(), (32.0, 36.0)) == 2
    assert num_inside(answer_of(), (30.0, 39.0)) == 4  # the end does not count


def picture_of(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "max_ticks", "step"),
    [(20, 10, 5), (60, 10, 10), (360, 10, 60), (1200, 10, 300), (1200, 5, 300), (3600, 10, 600), (3600, 5, 900),
     (7200, 10, 900), (10 * 86400, 5, 2 * 86400)],
)  # fmt: skip
def test_ticks_of_time_are_round(seconds, max_ticks, step):
    assert tick_step(seconds, max_ticks) == step


@pytest.mark.slow
def test_a_contact_sheet_is_1200_pixels_wide_and_grows_with_its_frames(video, tmp_path):
    def size_of(answer, **options):
        write_contact_sheet(tmp_path / "s.png", answer, video, title="$1 and $2?", subtitle="映画", **options)
        return picture_of(tmp_path / "s.png").size

    width, height = size_of(answer_of())
    assert width == 1200
    assert size_of(answer_of(frames=(30,)))[1] < height < size_of(answer_of(), comparison=UNIFORM)[1]
    assert size_of(answer_of(frames=()))[0] == size_of(UNIFORM, truth_seconds=(32, 36), theme=DARK)[0] == 1200


@pytest.mark.slow
def test_frames_inside_and_outside_of_the_evidence_look_different(video, tmp_path):
    def green_pixels(truth_seconds):
        write_contact_sheet(tmp_path / "s.png", answer_of(), video, title="", subtitle="", truth_seconds=truth_seconds)
        colours = picture_of(tmp_path / "s.png").getcolors(1 << 24)
        return sum(n for n, colour in colours if colour == (0x1F, 0x7A, 0x45))

    assert green_pixels(None) == 0 < green_pixels((34, 35)) < green_pixels((30, 40))


# --- the demo's picture -----------------------------------------------------------------------------------------------


def test_the_demo_draws_a_question_that_uniform_frames_miss():
    correct, wrong = answer_of(frames=(34, 35)), answer_of(option="A", frames=(34, 35))
    wrong_uniform, correct_uniform = UNIFORM, dataclasses.replace(UNIFORM, option="B")
    assert demo_example([(correct_uniform, correct), (wrong_uniform, answer_of(frames=(34,))), (UNIFORM, wrong)]) == 1
    better = answer_of(frames=(33, 34, 35))
    assert demo_example([(wrong_uniform, correct), (wrong_uniform, better), (correct_uniform, better)]) == 1
    # If there is none, the largest difference of frames in the evidence.
    assert demo_example([(correct_uniform, correct), (correct_uniform, better), (wrong_uniform, wrong)]) == 1
