"""How others ask, read and count: against their own functions, and through the whole of an evaluation.

`tests/golden/protocols.json` was made by `make_protocols.py` beside it, of the sources' own code.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import small_models
import torch
from annotation_files import WRITERS
from golden.make_protocols import ANSWER, FRAME, GOLDEN, SUBTITLES, TEXT, TIMES, options_of
from test_datasets_headline import TAGS, made_rows

from lvqa import prompts
from lvqa.answering import Answerer, AnswerRequest
from lvqa.datasets import DATASETS
from lvqa.evaluation import load_run_config
from lvqa.evaluation.run import check_run, chosen_tasks, evaluate
from lvqa.models import load_model
from lvqa.models.prompt import ReplyStart, SystemText
from lvqa.pairs import sampled_pairs
from lvqa.protocols import PROTOCOLS, find_format
from lvqa.protocols.answer_format import AnswerFormat, interleaved
from lvqa.records import LvqaError, Question, Subtitle
from lvqa.report import write_report

SOURCES = json.loads(GOLDEN.read_text(encoding="utf-8"))
REPLIES = SOURCES["replies"]
LINES = tuple(Subtitle(*line) for line in SUBTITLES)
PAIRS = [(protocol, benchmark) for protocol, formats in PROTOCOLS.items() for benchmark in formats]
SAME = {"videomme_long": "videomme", "nextqa_val": "nextqa"}
"""Benchmarks that are asked as another one."""


def source_of(protocol: str, benchmark: str) -> str:
    return f"{protocol} {SAME.get(benchmark, benchmark)}"


def question_of(benchmark: str, **more) -> Question:
    return Question(TEXT, tuple(options_of(benchmark)), answer=ANSWER, **more)


def user_text(answer_format: AnswerFormat, question: Question, *, subtitled: bool) -> str:
    """Return the user's turn with a mark for each frame that stands between texts, and none where all come first."""
    if subtitled and answer_format.interleave is not None:
        order = answer_format.interleave(LINES, TIMES)
        assert [item for item in order if isinstance(item, int)] == list(range(len(TIMES)))
        before = "".join(FRAME if isinstance(item, int) else item for item in order)
        return before + answer_format.text(question, None)
    subtitles = answer_format.subtitles(LINES, TIMES) if subtitled and answer_format.subtitles else None
    return answer_format.text(question, subtitles)


# --- against the sources ---------------------------------------------------------------------------------------------


def test_there_are_200_different_kinds_of_replies():
    assert len(REPLIES) == 200 and len(set(REPLIES)) > 140


@pytest.mark.parametrize(("protocol", "benchmark"), PAIRS)
def test_replies_are_read_as_the_source_reads_them(protocol, benchmark):
    answer_format = PROTOCOLS[protocol][benchmark]
    source = source_of(protocol, "mlvu" if (protocol, benchmark) == ("official", "mlvu_test") else benchmark)
    if source in SOURCES["right"]:
        for reply, letters in zip(REPLIES, SOURCES["right"][source], strict=True):
            question = question_of(benchmark)
            right = [
                letter
                for letter in question.letters
                if answer_format.read(reply, Question(TEXT, question.options, answer=letter)) == letter
            ]
            assert right == letters, reply
        return
    for reply, letter in zip(REPLIES, SOURCES["letters"][source], strict=True):
        assert (answer_format.read(reply, question_of(benchmark)) or "-") == letter, reply


PROMPTS = [(protocol, name) for protocol, prompts in SOURCES["prompts"].items() for name in prompts]


@pytest.mark.parametrize(("protocol", "name"), PROMPTS)
def test_prompts_are_those_of_the_source(protocol, name):
    expected = SOURCES["prompts"][protocol][name]
    benchmark, _, more = name.partition(", ")
    answer_format = PROTOCOLS[protocol][benchmark]
    if more == "system":
        assert answer_format.system == expected
    elif more == "inserted":
        assert [FRAME if isinstance(x, int) else x for x in interleaved(LINES, TIMES)] == json.loads(expected)
    elif (protocol, benchmark) == ("official", "videomme"):  # the example of its README
        *before, text, a, b, c, d, _ = expected.splitlines()
        question = Question(text, tuple(option[3:] for option in (a, b, c, d)))
        assert answer_format.text(question, before[1] if more else None) == expected
    else:
        assert user_text(answer_format, question_of(benchmark), subtitled=bool(more)) == expected


def test_what_no_program_makes_is_as_it_is_documented():
    official = PROTOCOLS["official"]
    assert official["mlvu"].reply_start == "Best Option: (" and official["mlvu"].system
    assert user_text(official["longvideobench"], question_of("longvideobench"), subtitled=False) == (
        "Question: What is on the left?\nA. red\nB. The dog runs\nC. blue\nD. a car\nE. None\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (
        official["lvbench"].text(question_of("lvbench"), None).startswith("What is on the left?\n(A) red\n(B) The dog")
    )


@pytest.mark.parametrize("source", SOURCES["figures"])
def test_figures_are_counted_as_the_source_counts_them(source):
    protocol, benchmark = source.split()
    figures = PROTOCOLS[protocol][benchmark].headline(made_rows(TAGS[benchmark]))
    assert 100 * next(iter(figures.values())).value == pytest.approx(SOURCES["figures"][source])
    own = DATASETS[benchmark].headline(made_rows(TAGS[benchmark]))
    assert own.keys() == figures.keys() and own != figures


# --- which there are -------------------------------------------------------------------------------------------------


def test_a_protocol_that_a_benchmark_lacks_is_refused_by_those_that_it_has():
    assert find_format("lvqa", "own") is None
    with pytest.raises(LvqaError, match=r"^benchmark 'egoschema' has no protocol 'official'; it has: lvqa, lmms-eval$"):
        find_format("official", "egoschema")
    with pytest.raises(LvqaError, match=r"^benchmark 'own' has no protocol 'vlmevalkit'; it has: lvqa$"):
        find_format("vlmevalkit", "own")
    with pytest.raises(
        LvqaError, match=r"^benchmark.protocol must be one of lvqa, official, lmms-eval, vlmevalkit, got 'lmms'$"
    ):
        find_format("lmms", "lvbench")
    with pytest.raises(LvqaError, match=r"^no benchmark 'lvbnch'; there are: "):
        find_format("official", "lvbnch")


@pytest.mark.parametrize(("protocol", "benchmark"), PAIRS)
def test_every_format_is_of_a_benchmark_and_shows_what_is_published(protocol, benchmark):
    answer_format = PROTOCOLS[protocol][benchmark]
    assert benchmark in DATASETS and answer_format.max_new_tokens >= 16
    assert bool(answer_format.headline) == answer_format.counting.endswith(".")
    published = benchmark in ("videomme", "videomme_long", "videomme_v2", "longvideobench", "cgbench_mini")
    assert answer_format.shows_subtitles == published


# --- what the model is shown -----------------------------------------------------------------------------------------


def parts_of_prompt(make, video, answer_format: AnswerFormat | None, question: Question) -> list[object]:
    """Return the parts of the prompt from frames at 5, 10, 45 and 46 s: texts, and the frames of each clip."""
    answerer = Answerer(format=answer_format, time_encoding="text" if answer_format is None else "mrope")
    with make(answer_format=answer_format).open(video) as session:
        request = AnswerRequest(question, sampled_pairs([5, 10, 45, 46], session.grid))
        parts = answerer.prompt(request, session.tokens)
    return [part if isinstance(part, str) else part.num_pairs for part in parts]


@pytest.mark.slow
def test_frames_are_one_video_before_the_text(make, video):
    question = question_of("videomme", subtitles=LINES)
    answer_format = PROTOCOLS["lmms-eval"]["videomme"]
    text = answer_format.text(question, "A long line.")
    assert parts_of_prompt(make, video, answer_format, question) == [2, text]
    without = question_of("videomme")
    assert parts_of_prompt(make, video, answer_format, without) == [2, answer_format.text(without, None)]


@pytest.mark.slow
def test_longvideobenchs_subtitles_stand_between_frames(make, video):
    answer_format = PROTOCOLS["official"]["longvideobench"]
    question = question_of("longvideobench", subtitles=LINES)
    text = answer_format.text(question, None)
    assert parts_of_prompt(make, video, answer_format, question) == [1, 1, "A long line.\n", 1, 1, text]
    # A line without an end has that of the video, which is a minute long: its middle is at 45 s.
    question = question_of("longvideobench", subtitles=(Subtitle(30.0, math.inf, "And so on."),))
    assert parts_of_prompt(make, video, answer_format, question) == [1, 1, 1, "And so on.\n", 1, text]


def test_mlvu_has_a_system_message_and_begins_the_reply(make, video):
    system, frames, text, reply_start = parts_of_prompt(
        make, video, PROTOCOLS["official"]["mlvu"], question_of("mlvu", subtitles=LINES)
    )
    assert (type(system), frames, type(reply_start)) == (SystemText, 2, ReplyStart)
    assert system.startswith("Carefully watch") and text.endswith("Only give the best option.")


def test_lvqas_own_way_shows_the_lines_of_its_frames(make, video):
    question = question_of("videomme", subtitles=LINES)
    *_, text = parts_of_prompt(make, video, None, question)
    assert text == "Subtitles:\nA long line.\n" + prompts.answer(question)
    *_, text = parts_of_prompt(make, video, None, question_of("videomme", subtitles=()))
    assert text == prompts.answer(question)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_a_system_message_and_a_begun_reply_are_the_templates(family, tmp_path):
    model = load_model(str(small_models.save(family, tmp_path)), device="cpu", dtype="float32")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}]
    rendered = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = (SystemText("Be brief."), "What is it?", ReplyStart("Best Option: ("))
    expected = model.tokenizer(rendered + "Best Option: (", add_special_tokens=False).input_ids
    assert model.encode_prompt(prompt).ids.tolist() == expected
    assert model.encode_prompt(prompt[1:2]).ids.tolist() != expected
    (reply,) = model.generate([prompt], max_new_tokens=2)
    assert reply == model.tokenizer.decode(_greedy(model, expected, 2), skip_special_tokens=True)


def _greedy(model, ids: list[int], num_tokens: int) -> list[int]:
    """Return the library's own next tokens."""
    start = len(ids)
    for _ in range(num_tokens):
        with torch.no_grad():
            ids = [*ids, int(model.library(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[start:]


# --- in an evaluation ------------------------------------------------------------------------------------------------


def config_of(folder: Path, name: str, *overrides: str):
    own = [f"benchmark.name={name}", f"benchmark.folder={folder}", "model.name=tiny", "frames=[4]"]
    return load_run_config(None, [*own, "arms=[{method: uniform}]", f"store.folder={folder / 'store'}", *overrides])


@pytest.fixture
def videomme(tmp_path, video) -> Path:
    """Write Video-MME's questions about three videos, of which one has subtitles."""
    WRITERS["videomme"](tmp_path)
    for key in ("Cm73ma6Ibcs", "tooshort-12", "--_a1b2c3d4"):
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / f"{key}.mp4").symlink_to(video)
    (tmp_path / "subtitle").mkdir()
    (tmp_path / "subtitle" / "Cm73ma6Ibcs.srt").write_text("1\n00:00:05,000 --> 00:00:50,000\nWe turn back.\n")
    return tmp_path


def test_subtitles_are_those_of_the_benchmarks_own_files(videomme):
    tasks = chosen_tasks(config_of(videomme, "videomme", "benchmark.subtitles=true"))
    lines = {task.video_id: {question.subtitles for question in task.questions} for task in tasks.tasks}
    assert lines == {
        "Cm73ma6Ibcs": {(Subtitle(5.0, 50.0, "We turn back."),)},
        **{"tooshort-12": {()}, "--_a1b2c3d4": {()}},
    }
    assert tasks.warnings[-1] == ("2 of 3 videos have no subtitles, and are asked without: tooshort-12, --_a1b2c3d4")
    without = chosen_tasks(config_of(videomme, "videomme"))
    assert {question.subtitles for task in without.tasks for question in task.questions} == {None}


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "lvbench",
            ["benchmark.protocol=vlmevalkit"],
            "no protocol 'vlmevalkit'; it has: lvqa, official, lmms-eval",
        ),
        ("mlvu", ["benchmark.protocol=official", "benchmark.subtitles=true"], "official shows no subtitles of mlvu"),
        ("lvbench", ["benchmark.protocol=official", "answer.mode=logits"], "answer.mode of arm 'uniform' must be null"),
    ],
)
def test_what_a_protocol_can_not_do_is_refused_before_any_work(name, overrides, message, tmp_path):
    with pytest.raises(LvqaError, match=message):
        check_run(config_of(tmp_path, name, *overrides))


def test_subtitles_that_are_not_there_are_refused(videomme):
    (videomme / "subtitle" / "Cm73ma6Ibcs.srt").unlink()
    with pytest.raises(LvqaError, match=r"videomme has no file of subtitles in .*; put them"):
        chosen_tasks(config_of(videomme, "videomme", "benchmark.subtitles=true"))


@pytest.mark.slow
def test_an_evaluation_by_a_protocol_is_labelled_and_compared_with_its_own_kind_alone(videomme, tmp_path):
    """Other subtitles are another run."""
    ways = {
        "own": [],
        "theirs": ["benchmark.protocol=lmms-eval"],
        "subtitled": ["benchmark.protocol=lmms-eval", "benchmark.subtitles=true"],
    }
    runs = {}
    for name, overrides in ways.items():
        runs[name] = evaluate(config_of(videomme, "videomme", *overrides), tmp_path / "runs" / name)
        assert {row["error"] for row in runs[name].rows} == {None}
    for name in ("theirs", "subtitled"):
        for row in runs[name].rows:
            assert row["option_scores"] == []
            read = PROTOCOLS["lmms-eval"]["videomme"].read(row["text"], Question("", tuple(row["options"])))
            assert row["prediction"] == read
    lengths = {name: [row["answer_tokens"] for row in run.rows] for name, run in runs.items()}
    assert all(more > less for more, less in zip(lengths["subtitled"], lengths["theirs"], strict=True))
    report = write_report([run.folder for run in runs.values()])
    assert "## Figures as Video-MME counts them\n" in report
    assert "## Figures of Video-MME by the protocol lmms-eval\n" in report
    assert "## Figures of Video-MME by the protocol lmms-eval, with subtitles\n" in report
    assert (
        "theirs and subtitled: benchmark videomme by the protocol lmms-eval and videomme by the protocol lmms-eval"
        " with subtitles" in report
    )
    assert "Paired difference" not in report
    path = videomme / "subtitle" / "Cm73ma6Ibcs.srt"
    path.write_text(path.read_text().replace("back", "left"))
    with pytest.raises(LvqaError, match=r"has answers to something else: .*Cm73ma6Ibcs\.srt"):
        evaluate(config_of(videomme, "videomme", *ways["subtitled"]), runs["subtitled"].folder)
