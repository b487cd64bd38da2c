"""Annotation files of benchmarks: sound, odd and hostile ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from annotation_files import (
    WRITERS,
    lvbench_line,
    lvbench_row,
    videomme_rows,
    write_hourvideo,
    write_longvideobench,
    write_lvbench,
    write_mlvu,
    write_videomme,
)

from lvqa.datasets import DATASETS, Dataset, load_dataset, padded
from lvqa.datasets.annotations import MAX_LINE_BYTES
from lvqa.datasets.lvbench import parse_span, split_options
from lvqa.datasets.mlvu import TASKS
from lvqa.records import LvqaError, Question

TEXT = "Unicode text that is not empty, without lone surrogates"
ITEM = "text or a number"
LABEL = "text that is not empty, or a number"

SOUND_LINE = lvbench_line("Cm73ma6Ibcs", lvbench_row("0")).encode()


def questions_of(dataset: Dataset) -> list[Question]:
    return [question for task in dataset.tasks for question in task.questions]


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_keeps_the_contract(name, tmp_path):
    WRITERS[name](tmp_path)
    dataset = load_dataset(name, tmp_path)
    assert load_dataset(name, tmp_path) == dataset
    assert len({task.video_id for task in dataset.tasks}) == len(dataset.tasks) >= 2
    questions = questions_of(dataset)
    assert len({question.id for question in questions}) == len(questions) >= len(dataset.tasks)
    for task in dataset.tasks:
        assert task.questions and {question.video_id for question in task.questions} == {task.video_id}
        assert task.path == tmp_path / "videos" / f"{task.video_id}.mp4" and not task.path.exists()
    assert not dataset.warnings or name == "hourvideo"
    for question in questions:
        assert question.answer and question.answer in question.letters and question.text
        assert all(option == option.strip() for option in question.options)


@pytest.mark.parametrize("name", DATASETS)
def test_a_video_may_have_any_common_suffix(name, tmp_path):
    WRITERS[name](tmp_path)
    first, *rest = load_dataset(name, tmp_path).tasks
    for suffix in (".webm", ".mkv"):  # where there are two, mkv stands before webm
        first.path.parent.mkdir(parents=True, exist_ok=True)
        first.path.with_suffix(suffix).touch()
    first.path.with_suffix(".txt").touch()
    assert [task.path for task in load_dataset(name, tmp_path).tasks] == [
        first.path.with_suffix(".mkv"),
        *(task.path for task in rest),
    ]


def test_an_unknown_benchmark_is_refused_by_name(tmp_path):
    with pytest.raises(LvqaError, match="no benchmark 'mvbench'; there are: lvbench, videomme, videomme_long, "):
        load_dataset("mvbench", tmp_path)


def test_lvbench_reads_stem_options_labels_and_evidence(tmp_path):
    write_lvbench(tmp_path)
    first, other = load_dataset("lvbench", tmp_path).tasks
    assert (first.video_id, other.video_id) == ("Cm73ma6Ibcs", "--_a1b2c3d4")
    assert first.questions[0] == Question(
        text="What does the cook hold?",
        options=("a pan", "a knife", "a fish", "nothing"),
        id="0",
        video_id="Cm73ma6Ibcs",
        answer="C",
        tags=("entity recognition", "reasoning"),
        evidence_seconds=(497.0, 725.0),
    )


@pytest.mark.parametrize(
    ("reference", "span"),
    [
        ("00:15-00:19", (15, 19)),
        ("101:21-101:21", (6081, 6081)),
        ("00:00-114:16", (0, 6856)),
        ("116:50-108:00", (6480, 7010)),
        (" 08:17 - 08:20 ", (497, 500)),
        ("59:59-1:00:03", (3599, 3603)),
        *(
            (bad, None)
            for bad in ("08:17-None", "None-None", "", "08:17", "08:75-09:00", "-1:00-02:00", "1:75:00-2:00:00")
        ),
        *(
            (bad, None)
            for bad in (
                None,
                17,
                ["00:15-00:19"],
                "\u0660\u0668:\u0661\u0667-\u0660\u0669:\u0661\u0667",
                "00:15-00:19-00:21",
                "9" * 5000 + ":00-1:00",
            )
        ),
    ],
)
def test_a_time_reference_is_seconds_in_order_or_nothing(reference, span):
    assert parse_span(reference) == span


@pytest.mark.parametrize("reference", ["08:17-None", "None-None", "", None, 17])
def test_a_time_reference_that_cannot_be_used_costs_the_evidence_and_is_named(reference, tmp_path):
    write_lvbench(tmp_path, time_reference=reference)
    dataset = load_dataset("lvbench", tmp_path)
    assert dataset.skipped == (f"question '0': time reference {reference!r} is not of the form MM:SS-MM:SS",)
    assert [question.evidence_seconds for question in questions_of(dataset)] == [None, (497, 725), (497, 725)]


@pytest.mark.parametrize(
    ("span", "wide"),
    [
        ((10.0, 10.0), (9.0, 11.0)),
        ((10.0, 11.0), (9.5, 11.5)),
        ((0.0, 0.0), (0.0, 2.0)),
        ((0.5, 1.0), (0.0, 2.0)),
        ((10.0, 12.0), (10.0, 12.0)),
        ((0.0, 500.0), (0.0, 500.0)),
    ],
)
def test_padding_widens_short_spans_only(span, wide):
    assert padded(span) == wide


def test_padding_takes_any_width():
    assert padded((10.0, 10.0), least_seconds=5.0) == (7.5, 12.5)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Who?\n(A) he\n(B) she", ("Who?", ("he", "she"))),
        ("Who?\r\n (A)he\r\n\t(B)  she ", ("Who?", ("he", "she"))),
        ("Is (A) first?\nYes (B).\n(A) x (B)\n(B) y\nz", ("Is (A) first?\nYes (B).", ("x (B)", "y\nz"))),
        *((odd, None) for odd in ("Who?", "Who? (A) he (B) she", "Who?\n(B) he\n(A) she", "Who?\n(A) he\n(A) she")),
        *((odd, None) for odd in ("Who?\nA. he\nB. she", "Who?\n(A) he\n(C) she", "Who?\n(1) he\n(2) she", "")),
    ],
)
def test_options_stand_on_lines_of_their_own(text, parts):
    assert split_options(text) == parts


@pytest.mark.slow
def test_a_synthetic_video_is_read_as_it_was_written(tmp_path):
    from lvqa.synthetic.videos import ask_about, make_videos, write_script

    (path,) = make_videos(tmp_path, num_videos=1, minutes=1, num_questions=3, seed=900_001)
    (task,) = load_dataset("lvbench", tmp_path).tasks
    assert task.path == path
    for read, written in zip(task.questions, ask_about(write_script(900_001, 1), 3), strict=True):
        assert (read.text, read.options, read.answer, read.tags) == (
            written.text,
            written.options,
            written.answer,
            written.tags,
        )
        assert read.evidence_seconds is not None and written.evidence_seconds is not None
        assert written.evidence_seconds[0] <= read.evidence_seconds[0] < read.evidence_seconds[1]
        assert read.evidence_seconds[1] <= written.evidence_seconds[1]


def test_videomme_takes_the_letters_off_and_tags_length_and_domain(tmp_path):
    write_videomme(tmp_path)
    dataset = load_dataset("videomme", tmp_path)
    assert [task.video_id for task in dataset.tasks] == ["Cm73ma6Ibcs", "tooshort-12", "--_a1b2c3d4"]
    is_long = [task.video_id for task in load_dataset("videomme_long", tmp_path).tasks]
    assert is_long == ["Cm73ma6Ibcs", "--_a1b2c3d4"]
    question = dataset.tasks[0].questions[0]
    assert question.options == ("A. Lincoln calls.", "Rain.", "Snow.", "No reason.")
    tags = ("task: Action Reasoning", "duration: long", "domain: Knowledge", "sub_category: Geography")
    assert (question.id, question.answer, question.tags) == ("601-1", "D", tags)


@pytest.mark.parametrize("options", [["Rain.", "B. Snow."], ["A. Lincoln", "Washington"], ["B. x", "A. y"]])
def test_videomme_leaves_options_that_are_not_all_lettered(options, tmp_path):
    write_videomme(tmp_path, options=options, answer="B")
    assert load_dataset("videomme", tmp_path).tasks[0].questions[0].options == tuple(options)


def test_videomme_is_read_as_it_is_published(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    published = tmp_path / "videomme" / "test-00000-of-00001.parquet"
    published.parent.mkdir()
    parquet.write_table(pa.Table.from_pylist(videomme_rows()), published)
    dataset = load_dataset("videomme", tmp_path)
    parquet.write_table(pa.Table.from_pylist(videomme_rows(duration="endless")), published)
    assert "duration must be one of long, medium, short, got 'endless' (" in refusal("videomme", tmp_path)
    published.write_bytes(published.read_bytes()[:-100])
    assert "not a Parquet file: " in refusal("videomme", tmp_path)
    write_videomme(tmp_path)
    assert load_dataset("videomme", tmp_path) == dataset


def test_longvideobench_takes_three_to_five_options_and_numbers_among_them(tmp_path):
    write_longvideobench(tmp_path)
    first, other = load_dataset("longvideobench", tmp_path).tasks
    three, five = first.questions
    assert (three.options, three.answer, three.tags) == (
        ("pan", "cup", "door"),
        "C",
        ("category: S2O", "duration: 900-3600 s"),
    )
    assert (five.options, five.answer) == (("1", "2", "3.5", "4", "5"), "B")
    assert three.evidence_seconds is None
    assert other.video_id == "@a.cook-77"


def test_mlvu_keeps_videos_of_one_name_apart_and_takes_the_last_of_equal_options(tmp_path):
    write_mlvu(tmp_path)
    tasks = load_dataset("mlvu", tmp_path).tasks
    assert [task.video_id for task in tasks] == [f"{task}/film_1" for task in TASKS]
    assert [(question.id, question.answer) for question in tasks[1].questions] == [
        ("2_needle/1", "C"),
        ("2_needle/2", "D"),
    ]
    assert tasks[3].path == tmp_path / "videos" / "4_count" / "film_1.mp4"


def test_mlvu_wants_all_of_its_files(tmp_path):
    write_mlvu(tmp_path)
    (tmp_path / "json" / "5_order.json").unlink()
    with pytest.raises(LvqaError, match=r"5_order\.json: no such file"):
        load_dataset("mlvu", tmp_path)


def refusal(name: str, folder: Path) -> str:
    """Return the message that the dataset is refused with, which must be one line that names a file of it."""
    with pytest.raises(LvqaError) as caught:
        load_dataset(name, folder)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message and len(message) < 500
    return message


def assert_refused_for(name: str, origin: str, dataset: str, folder: Path) -> None:
    message = refusal(dataset, folder)
    assert message.startswith(f"{name} must be ") and message.endswith(f"{origin})")


ODD_KEYS = ["../x", "..", ".", " ", "/etc/x", "a/b", "a\\b", "C:x", "a\0b", "a\nb", "x" * 201, 7, ["x"], "\ud800"]


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_a_key_that_is_no_file_name_is_refused(key, tmp_path):
    (tmp_path / "video_info.meta.jsonl").write_text("\n" + lvbench_line(key, lvbench_row("0")))
    assert_refused_for("key", "video_info.meta.jsonl, line 2", "lvbench", tmp_path)
    write_videomme(tmp_path, videoID=key)
    assert_refused_for("videoID", "videomme.json, row 1", "videomme", tmp_path)
    write_longvideobench(tmp_path, video_path=key)
    assert_refused_for("video_path", "lvb_val.json, row 1", "longvideobench", tmp_path)
    write_mlvu(tmp_path, video=key)
    assert_refused_for("video", "1_plotQA.json, row 1", "mlvu", tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("lvbench", {"answer": 2}, f"qa[0].answer must be {TEXT}, got 2 ("),
        ("lvbench", {"uid": 0}, f"qa[0].uid must be {TEXT}, got 0 ("),
        ("lvbench", {"uid": "1"}, "question id '1' stands at "),
        ("lvbench", {"question": None}, f"qa[0].question is missing; it must be {TEXT} ("),
        ("lvbench", {"question": "Who? (A) he (B) she"}, "options must stand on lines of their own that begin (A)"),
        ("lvbench", {"question": "Who?\n(A) he"}, "a question has 2 to 20 options, got 1"),
        ("lvbench", {"question": "?\ud800\n(A) he\n(B) she"}, f"qa[0].question must be {TEXT}, got '?\\ud800"),
        (
            "lvbench",
            {"question_type": "reasoning"},
            f"qa[0].question_type must be a list, each item {LABEL}, got 'reasoning' (",
        ),
        ("lvbench", {"question_type": ["reasoning", {}]}, f"qa[0].question_type[1] must be {LABEL}, got {{}} ("),
        ("videomme", {"duration": "endless"}, "duration must be one of long, medium, short, got 'endless' ("),
        ("videomme", {"duration": 61}, "duration must be one of long, medium, short, got 61 ("),
        ("videomme", {"options": None}, f"options is missing; it must be a list, each item {ITEM} ("),
        ("videomme", {"options": ["A. x", True]}, f"options[1] must be {ITEM}, got true ("),
        (
            "videomme",
            {"options": [f"{letter}. x" for letter in "ABCDEFGHIJKLMNOPQRSTU"]},
            "a question has 2 to 20 options, got 21",
        ),
        ("videomme", {"question_id": "601-2"}, "question id '601-2' stands at "),
        ("longvideobench", {"correct_choice": None}, "correct_choice is missing; it must be a whole number ("),
        ("longvideobench", {"correct_choice": "2"}, "correct_choice must be a whole number, got '2'"),
        ("longvideobench", {"correct_choice": True}, "correct_choice must be a whole number, got true"),
        ("longvideobench", {"candidates": ["only"], "correct_choice": 0}, "a question has 2 to 20 options, got 1"),
        ("mlvu", {"candidates": None}, f"candidates is missing; it must be a list, each item {ITEM} ("),
        ("mlvu", {"candidates": "Three"}, f"candidates must be a list, each item {ITEM}, got 'Three' ("),
    ],
)
def test_a_hostile_question_is_refused_by_origin_and_value(name, changes, reason, tmp_path):
    WRITERS[name](tmp_path, **changes)
    message = refusal(name, tmp_path)
    assert message.startswith(reason) and message.endswith(")")
    origin = message[message.rindex("(") :] if "stands at" not in reason else message
    assert re.search(
        {"lvbench": r"meta\.jsonl, line 1\b", "mlvu": r"1_plotQA\.json, row 1\b"}.get(name, r", row [13]\b"), origin
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON: "),
        (b"\xff\xfe{}", "not JSON: byte 0 is not UTF-8 text"),
        (b"[" * 100_000, "not JSON of a sane size: "),
        (b'{"key": ' + b"9" * 5000 + b"}", "not JSON of a sane size: "),
        (b"[]", "the content must be a mapping of keys to values, got []"),
        (b'{"type": "tv"}', "key, qa are missing ("),
        (SOUND_LINE.replace(b'"key"', b'"name"'), f"key is missing; it must be {TEXT}"),
        (b'{"key": "x", "qa": {}}', "qa must be a list of 1 or more, each item a mapping of keys to values, got {}"),
        (b'{"key": "x", "qa": []}', "qa must be a list of 1 or more, each item a mapping of keys to values, got []"),
        (b'{"key": "x", "qa": ["why?"]}', "qa[0] must be a mapping of keys to values, got 'why?'"),
        (SOUND_LINE, "video key 'Cm73ma6Ibcs' stands at "),
        (b'{"key": "' + b"x" * MAX_LINE_BYTES + b'"}', "the line is too long; allowed: 4 MiB"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_hostile_line_is_refused_by_its_number(content, reason, tmp_path):
    sound = SOUND_LINE
    (tmp_path / "video_info.meta.jsonl").write_bytes(sound + b"\n" + content + b"\n" + sound)
    message = refusal("lvbench", tmp_path)
    assert message.startswith(reason) and message.endswith("video_info.meta.jsonl, line 3)")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[\n{"a": 1},\n{"b" 2}]', "not JSON: Expecting ':' delimiter, at line 3, column 6 ("),
        (b"", "not JSON: "),
        (b"\xff", "not JSON: byte 0 is not UTF-8 text ("),
        (b"{}", "the content must be a list, each item anything, got {} ("),
        (b"[3]", "the content must be a mapping of keys to values, got 3 ("),
        (b"[]", "the benchmark's annotations hold no question"),
    ],
)
def test_a_hostile_list_is_refused(content, reason, tmp_path):
    (tmp_path / "lvb_val.json").write_bytes(content)
    message = refusal("longvideobench", tmp_path)
    assert reason in message and (content == b"[]" or str(tmp_path / "lvb_val.json") in message)
    assert content != b"[3]" or message.endswith("lvb_val.json, row 1)")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "lvb_val.json").open("wb") as file:
        file.truncate(65 << 20)
    assert "lvb_val.json: the file has 65 MiB; allowed: 64 MiB" in refusal("longvideobench", tmp_path)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "own"])
def test_missing_annotations_are_named(name, tmp_path):
    assert ": no such file; the benchmark's annotations are read from there" in refusal(name, tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    write_longvideobench(tmp_path)
    path = tmp_path / "lvb_val.json"
    sound = load_dataset("longvideobench", tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_dataset("longvideobench", tmp_path) == sound


def test_reading_datasets_loads_nothing_heavy():
    script = "import sys, lvqa.datasets; print(*sorted(set(sys.modules) & {'torch', 'ray', 'pyarrow', 'pandas', 'av'}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


NEVER_RIGHT = "its answer is no option, so it is never right"


@pytest.mark.parametrize(
    ("name", "changes", "oddity", "answer"),
    [
        ("lvbench", {"answer": "E"}, NEVER_RIGHT, ""),
        ("lvbench", {"answer": "AB"}, NEVER_RIGHT, ""),
        ("lvbench", {"question": "Who?\n(A) he\n(B) ", "answer": "A"}, "an option is empty", "A"),
        ("lvbench", {"question": "\n(A) he\n(B) she", "answer": "B"}, "its text is empty", "B"),
        ("videomme", {"answer": "d"}, NEVER_RIGHT, ""),
        ("videomme", {"question": ""}, "its text is empty", "D"),
        ("longvideobench", {"correct_choice": 3}, NEVER_RIGHT, ""),
        ("longvideobench", {"correct_choice": -1}, NEVER_RIGHT, ""),
        ("mlvu", {"answer": "Seven"}, NEVER_RIGHT, ""),
        ("mlvu", {"candidates": ["Three", " "]}, "an option is empty", "A"),
        ("mlvu", {"candidates": ["Two", "", "Four", ""], "answer": ""}, "an option is empty", "D"),
        (
            "mlvu",
            {"question": "", "candidates": [""] * 4, "answer": ""},
            "its text is empty and an option is empty",
            "D",
        ),
        ("cgbench", {"right_answer": "H"}, NEVER_RIGHT, ""),
        ("nextqa", {"a4": ""}, "an option is empty", "C"),
    ],
)
def test_an_odd_question_stays_in_and_one_warning_names_it(name, changes, oddity, answer, tmp_path, caplog):
    """The benchmarks' own scripts ask such questions; a question without a correct option counts as wrong there."""
    WRITERS[name](tmp_path)
    sound = questions_of(load_dataset(name, tmp_path))
    WRITERS[name](tmp_path, **changes)
    dataset = load_dataset(name, tmp_path)
    first, *others = questions_of(dataset)
    assert others == sound[1:] and first.answer == answer
    expected = f"1 of {len(sound)} questions are odd as published, and are asked as they are: {first.id} ({oddity})"
    assert dataset.warnings == (expected,)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [expected]


def test_a_warning_names_ten_questions_and_counts_the_others(tmp_path):
    rows = [lvbench_row(str(i), answer="X") for i in range(12)]
    (tmp_path / "video_info.meta.jsonl").write_text(lvbench_line("Cm73ma6Ibcs", *rows))
    (warning,) = load_dataset("lvbench", tmp_path).warnings
    assert warning.startswith("12 of 12 questions are odd") and warning.endswith(f"9 ({NEVER_RIGHT}); and 2 more")


def test_hourvideo_leaves_out_questions_whose_options_are_pictures(tmp_path):
    write_hourvideo(tmp_path)
    dataset = load_dataset("hourvideo", tmp_path)
    assert [question.id for question in questions_of(dataset)] == ["v1_q1", "v1_q2", "v2_q1"]
    assert dataset.warnings == ("1 of 4 questions are left out: v1_q3 (its options are pictures)",)


TIMESCOPE = Question(
    "What does the cat do?",
    ("sleeps", "eats: fish", "jumps"),
    id="7",
    video_id="cat",
    answer="B",
    tags=("length: 3600", "task: QA"),
)
FIRST_QUESTIONS = {
    "mlvu_test": Question(
        "Which team scores first?",
        ("Red", "Blue", "Green", "White", "Black", "None"),
        id="SQA_0",
        video_id="sports_1",
        answer="B",
        tags=("sportsQA",),
    ),
    "videomme_v2": Question(
        "Who opens the door?",
        ("Anna.", "Ben,\nwith a key.", "Nobody."),
        id="001-1",
        video_id="001",
        answer="B",
        tags=("group: logic", "structure: [1, [2, 3], 4]", "level: 3", "ability: Causal reasoning"),
    ),
    "cgbench": Question(
        "What colour is the car?",
        ("Grey", "Blue", "White", "Silver", "Ivory"),
        id="14",
        video_id="3ZpmN3-2-Zo",
        answer="C",
        tags=("category: Entity Perception", "domain: Art & Culture"),
        evidence_seconds=(8.0, 11.5),
    ),
    "hourvideo": Question(
        "Which tool was used first?",
        ("Saw", "Drill", "Hammer", "File", "Knife"),
        id="v1_q1",
        video_id="0a1b",
        answer="E",
        tags=("task: perception/information_retrieval/factual_recall",),
    ),
    "lsdbench": Question(
        "How was the board measured?",
        ("With a tape.", "With a ruler.", "By eye.", "Not at all."),
        id="0",
        video_id="71fbc5bf-7e2a",
        answer="A",
        evidence_seconds=(3540.0, 3720.0),
    ),
    "timescope": TIMESCOPE,
    "longtimescope": TIMESCOPE,
    "egoschema": Question(
        "What is C doing?",
        tuple(f"C does {k}." for k in range(5)),
        id="0074f737-0",
        video_id="0074f737-0",
        answer="A",
    ),
    "nextqa": Question(
        "what did the baby do after throwing the cup",
        ("clap, proudly", "run", "lay on floor", "jump", "crawl"),
        id="2574374895_8",
        video_id="2574374895",
        answer="C",
        tags=("group: T", "type: TN"),
    ),
}


@pytest.mark.parametrize("name", FIRST_QUESTIONS)
def test_a_question_is_read_as_it_is_published(name, tmp_path):
    WRITERS[name](tmp_path)
    assert questions_of(load_dataset(name, tmp_path))[0] == FIRST_QUESTIONS[name]


def test_several_clues_are_no_single_span(tmp_path):
    WRITERS["cgbench"](tmp_path)
    spans = [question.evidence_seconds for question in questions_of(load_dataset("cgbench", tmp_path))]
    assert spans == [(8.0, 11.5), None, (8.0, 11.5)]


def test_egoschema_passes_over_questions_without_a_public_answer(tmp_path):
    WRITERS["egoschema"](tmp_path)
    assert [question.answer for question in questions_of(load_dataset("egoschema", tmp_path))] == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("prompt", "stem", "options"),
    [
        ("Look.\nQuestion: Who?\nA: x\nB: y\nAnswer with the letter.", "Who?", ("x", "y")),
        ("Who?\n(A) x\n(B) y y", "Who?", ("x", "y y")),
        ("Which line is right?\nA. first\nis this\nB. second", "Which line is right?", ("first\nis this", "second")),
        ("Question: Plan A: who?\nA) x\nB) y", "Plan A: who?", ("x", "y")),
    ],
)
def test_timescopes_prompt_is_a_question_with_options(prompt, stem, options, tmp_path):
    WRITERS["timescope"](tmp_path, input=prompt)
    question = questions_of(load_dataset("timescope", tmp_path))[0]
    assert (question.text, question.options) == (stem, options)


def test_a_prompt_without_options_is_named_and_left_out(tmp_path):
    WRITERS["timescope"](tmp_path, input="Who?")
    dataset = load_dataset("timescope", tmp_path)
    assert [question.id for question in questions_of(dataset)] == ["8", "9"]
    assert dataset.warnings == ("1 of 3 questions are left out: 7 (it has 0 options where 2 or more are expected)",)


def test_a_video_of_timescope_may_lie_in_a_folder(tmp_path):
    WRITERS["timescope"](tmp_path)
    videos = {task.video_id: task.path for task in load_dataset("timescope", tmp_path).tasks}
    assert videos == {"cat": tmp_path / "videos" / "cat.mp4", "long/cat": tmp_path / "videos" / "long" / "cat.mp4"}
    WRITERS["timescope"](tmp_path, video="../cat.mp4")
    assert "video must be the name of a file, without a folder, got '..' (" in refusal("timescope", tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("mlvu_test", {"question_id": None}, f"question_id is missing; it must be {TEXT} ("),
        ("cgbench", {"clue_intervals": [[8]]}, "clue_intervals"),
        ("cgbench", {"qid": "14"}, "qid must be a whole number, got '14' ("),
        ("hourvideo", {"answer_3": None}, "benchmark_dataset[0].answer_3 is missing"),
        ("lsdbench", {"options": {"A": "x"}}, "options.B, options.C, options.D are missing ("),
        ("egoschema", {"option 4": [1]}, "option 4 must be text or a number, got [1] ("),
        ("egoschema", {"option 4": None}, "option 4 is missing"),
        ("nextqa", {"answer": "5"}, "answer must be one of 0, 1, 2, 3, 4, got '5' ("),
        ("nextqa", {"type": "XX"}, "type must be one of "),
        ("videomme_v2", {"options": "B. x\nA. y"}, "options must stand on lines that begin A., B., ...; got "),
        ("videomme_v2", {"group_structure": "[4]"}, "group_structure must be one of [1, 2, 3, 4]; [1, [2, 3], 4]; "),
        ("videomme_v2", {"options": "none"}, "a question has 2 to 20 options, got 0"),
    ],
)
def test_another_hostile_question_is_refused(name, changes, reason, tmp_path):
    WRITERS[name](tmp_path, **changes)
    assert reason in refusal(name, tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"video,question\n1,2,3\n", "the line has more fields than the head, which has 2 ("),
        (b"\xff", "not a CSV file: byte 0 is not UTF-8 text ("),
        (b'video,question\n1,"2\n', "not a CSV file: "),
        (b"video;question\n1;2\n", "answer, qid, type are missing ("),
        (b"", "hold no question"),
    ],
)
def test_a_hostile_table_is_refused(content, reason, tmp_path):
    (tmp_path / "test.csv").write_bytes(content)
    assert reason in refusal("nextqa", tmp_path)


PUBLISHED = Path(os.environ.get("LVQA_PUBLISHED", "nowhere"))
"""A folder with a folder for each benchmark, in which its own files lie; none of them is part of this project."""
COUNTS = {
    "lvbench": (101, 1519, 0),
    "mlvu": (1242, 2175, 6),
    "mlvu_test": (349, 502, 0),
    "videomme": (900, 2700, 0),
    "videomme_v2": (800, 3200, 0),
    "longvideobench": (753, 1337, 0),
    "cgbench_mini": (1118, 3000, 0),
    "lsdbench": (400, 1304, 0),
    "nextqa": (1000, 8564, 0),
    "nextqa_val": (570, 4996, 0),
}
"""Videos, questions, and odd questions."""


@pytest.mark.parametrize("name", COUNTS)
def test_the_published_files_are_read_whole(name):
    if not (PUBLISHED / name).is_dir():
        pytest.skip(f"LVQA_PUBLISHED: a folder in which {name} has its own files")
    dataset = load_dataset(name, PUBLISHED / name)
    num_odd = sum(int(line.split()[0]) for line in dataset.warnings)
    assert (len(dataset.tasks), len(questions_of(dataset)), num_odd) == COUNTS[name]


@pytest.mark.skipif("LVQA_LVBENCH" not in os.environ, reason="LVQA_LVBENCH: the folder with LVBench's own file")
def test_the_published_lvbench_loads_whole():
    dataset = load_dataset("lvbench", Path(os.environ["LVQA_LVBENCH"]))
    questions = questions_of(dataset)
    assert (len(dataset.tasks), len(questions)) == (101, 1519)
    assert Counter(tag for question in questions for tag in question.tags) == {
        "entity recognition": 664,
        "event understanding": 633,
        "key information retrieval": 288,
        "temporal grounding": 216,
        "reasoning": 200,
        "summarization": 58,
    }
    assert {len(question.options) for question in questions} == {4}
    spans = [question.evidence_seconds for question in questions if question.evidence_seconds]
    assert (len(spans), sum(start == end for start, end in spans), len(dataset.skipped)) == (1517, 241, 2)
