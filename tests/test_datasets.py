"""Datasets' files, sound and hostile, and the script that fetches LVBench's videos with a fake yt-dlp."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from lvqa.datasets import DATASETS, Dataset, load_dataset, padded
from lvqa.datasets.annotations import MAX_LINE_BYTES
from lvqa.datasets.lvbench import parse_span, split_options
from lvqa.datasets.mlvu import TASKS
from lvqa.records import LvqaError, Question

ROOT = Path(__file__).parent.parent
TEXT = "Unicode text that is not empty, without lone surrogates"
ITEM = "text that is not empty, or a number"

ABILITIES = ["entity recognition", "reasoning"]


# Small files of each format. `**changes` replaces fields of the first question; None takes a field away.


def changed(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def lvbench_row(uid: str, /, **changes: Any) -> dict[str, Any]:
    fields = {
        "uid": uid,
        "question": "What does the cook hold?\n(A) a pan\n(B) a knife\n(C) a fish\n(D) nothing",
        "answer": "C",
        "question_type": ABILITIES,
        "time_reference": "08:17-12:05",
    }
    return changed(fields, changes)


def lvbench_line(key: str, *rows: dict[str, Any]) -> str:
    return json.dumps({"key": key, "type": "tv", "qa": rows, "video_info": {}}) + "\n"


def write_lvbench(folder: Path, **changes: Any) -> None:
    lines = [lvbench_line("Cm73ma6Ibcs", lvbench_row("0", **changes), lvbench_row("1"))]
    (folder / "video_info.meta.jsonl").write_text("".join([*lines, lvbench_line("--_a1b2c3d4", lvbench_row("2"))]))


def videomme_rows(**changes: Any) -> list[dict[str, Any]]:
    fields = {
        "video_id": "601",
        "duration": "long",
        "domain": "Knowledge",
        "sub_category": "Geography",
        "url": "https://www.youtube.com/watch?v=Cm73ma6Ibcs",
        "videoID": "Cm73ma6Ibcs",
        "question_id": "601-1",
        "task_type": "Action Reasoning",
        "question": "Why does the guide turn back?",
        "options": ["A. A. Lincoln calls.", "B. Rain.", "C. Snow.", "D. No reason."],
        "answer": "D",
    }
    short = {**fields, "duration": "short", "videoID": "tooshort-12", "question_id": "001-1"}
    other = {**fields, "videoID": "--_a1b2c3d4", "question_id": "602-1"}
    return [changed(fields, changes), short, {**fields, "question_id": "601-2"}, other]


def write_videomme(folder: Path, **changes: Any) -> None:
    (folder / "videomme.json").write_text(json.dumps(videomme_rows(**changes)))


def write_longvideobench(folder: Path, **changes: Any) -> None:
    fields = {
        "video_id": "Cm73ma6Ibcs",
        "question": "In a kitchen, which object is red?",
        "question_wo_referring_query": "Which object is red?",
        "candidates": ["pan", "cup", "door"],
        "correct_choice": 2,
        "position": [3, 40],
        "topic_category": "LC-Lifestyle-Cooking-Recipes",
        "question_category": "S2O",
        "level": "L1-Perception",
        "id": "Cm73ma6Ibcs_0",
        "video_path": "Cm73ma6Ibcs.mp4",
        "subtitle_path": "Cm73ma6Ibcs_en.json",
        "duration_group": 3600,
        "starting_timestamp_for_subtitles": 0,
        "duration": 1800.5,
        "view_count": 12,
    }
    five = {**fields, "id": "Cm73ma6Ibcs_1", "candidates": ["1", 2, 3.5, "4", "5"], "correct_choice": 1}
    other = {**fields, "id": "@a.cook-77_0", "video_path": "@a.cook-77.mp4"}
    (folder / "lvb_val.json").write_text(json.dumps([changed(fields, changes), five, other]))


def write_mlvu(folder: Path, **changes: Any) -> None:
    (folder / "json").mkdir(exist_ok=True)
    for task in TASKS:
        fields = {
            "video": "film_1.mp4",
            "duration": 480.0,
            "question": "How many boats pass?",
            "candidates": ["Six", "Three", "Three", "Eight"],
            "answer": "Three",
            "question_type": task.partition("_")[2],
        }
        rows = [fields, {**fields, "answer": "Eight"}]
        if task == TASKS[0]:
            rows[0] = changed(fields, changes)
        (folder / "json" / f"{task}.json").write_text(json.dumps(rows))


SOUND_LINE = lvbench_line("Cm73ma6Ibcs", lvbench_row("0")).encode()

WRITERS: dict[str, Callable[..., None]] = {
    "lvbench": write_lvbench,
    "videomme": write_videomme,
    "longvideobench": write_longvideobench,
    "mlvu": write_mlvu,
}


def questions_of(dataset: Dataset) -> list[Question]:
    return [question for task in dataset.tasks for question in task.questions]


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_keeps_the_contract(name, tmp_path):
    WRITERS[name](tmp_path)
    dataset = load_dataset(name, tmp_path)
    assert load_dataset(name, tmp_path) == dataset
    assert len({task.video_id for task in dataset.tasks}) == len(dataset.tasks) >= 2
    questions = questions_of(dataset)
    assert len({question.id for question in questions}) == len(questions) > len(dataset.tasks)
    for task in dataset.tasks:
        assert task.questions and {question.video_id for question in task.questions} == {task.video_id}
        assert task.path == tmp_path / "videos" / f"{task.video_id}.mp4" and not task.path.exists()
    for question in questions:
        assert question.answer in question.letters and question.text and question.tags
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
    with pytest.raises(LvqaError, match="no benchmark 'mvbench'; there are: lvbench, videomme, longvideobench, mlvu"):
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


def test_videomme_takes_the_long_videos_and_the_letters_off(tmp_path):
    write_videomme(tmp_path)
    dataset = load_dataset("videomme", tmp_path)
    assert [task.video_id for task in dataset.tasks] == ["Cm73ma6Ibcs", "--_a1b2c3d4"]
    question = dataset.tasks[0].questions[0]
    assert question.options == ("A. Lincoln calls.", "Rain.", "Snow.", "No reason.")
    assert (question.id, question.answer, question.tags) == ("601-1", "D", ("Action Reasoning",))


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
    parquet.write_table(pa.Table.from_pylist(videomme_rows(answer="E")), published)
    assert "answer must be one of A, B, C, D, got 'E' (" in refusal("videomme", tmp_path)
    published.write_bytes(published.read_bytes()[:-100])
    assert "not a Parquet file: " in refusal("videomme", tmp_path)
    write_videomme(tmp_path)
    assert load_dataset("videomme", tmp_path) == dataset


def test_longvideobench_takes_three_to_five_options_and_numbers_among_them(tmp_path):
    write_longvideobench(tmp_path)
    first, other = load_dataset("longvideobench", tmp_path).tasks
    three, five = first.questions
    assert (three.options, three.answer, three.tags) == (("pan", "cup", "door"), "C", ("S2O",))
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
        ("lvbench", {"answer": "E"}, "answer must be one of A, B, C, D, got 'E' ("),
        ("lvbench", {"answer": "AB"}, "answer must be one of A, B, C, D, got 'AB'"),
        ("lvbench", {"answer": 2}, f"qa[0].answer must be {TEXT}, got 2 ("),
        ("lvbench", {"uid": 0}, f"qa[0].uid must be {TEXT}, got 0 ("),
        ("lvbench", {"uid": "1"}, "question id '1' stands at "),
        ("lvbench", {"question": None}, f"qa[0].question is missing; it must be {TEXT} ("),
        ("lvbench", {"question": "Who? (A) he (B) she"}, "options must stand on lines of their own that begin (A)"),
        ("lvbench", {"question": "Who?\n(A) he"}, "a question has 2 to 20 options, got 1"),
        ("lvbench", {"question": "Who?\n(A) he\n(B) "}, "an option is empty: ['he', '']"),
        ("lvbench", {"question": "\n(A) he\n(B) she"}, "the question has no text before its options"),
        ("lvbench", {"question": "?\ud800\n(A) he\n(B) she"}, f"qa[0].question must be {TEXT}, got '?\\ud800"),
        (
            "lvbench",
            {"question_type": "reasoning"},
            f"qa[0].question_type must be a list, each item {ITEM}, got 'reasoning' (",
        ),
        ("lvbench", {"question_type": ["reasoning", {}]}, f"qa[0].question_type[1] must be {ITEM}, got {{}} ("),
        ("videomme", {"duration": "endless"}, "duration must be one of long, medium, short, got 'endless' ("),
        ("videomme", {"duration": 61}, "duration must be one of long, medium, short, got 61 ("),
        ("videomme", {"options": None}, f"options is missing; it must be a list, each item {ITEM} ("),
        ("videomme", {"options": ["A. x", True]}, f"options[1] must be {ITEM}, got true ("),
        (
            "videomme",
            {"options": [f"{letter}. x" for letter in "ABCDEFGHIJKLMNOPQRSTU"]},
            "a question has 2 to 20 options, got 21",
        ),
        ("videomme", {"answer": "d"}, "answer must be one of A, B, C, D, got 'd'"),
        ("videomme", {"question_id": "601-2"}, "question id '601-2' stands at "),
        ("longvideobench", {"correct_choice": None}, "correct_choice is missing; it must be a whole number ("),
        ("longvideobench", {"correct_choice": 3}, "correct_choice must be 0 to 2, got 3"),
        ("longvideobench", {"correct_choice": -1}, "correct_choice must be 0 to 2, got -1"),
        ("longvideobench", {"correct_choice": "2"}, "correct_choice must be a whole number, got '2'"),
        ("longvideobench", {"correct_choice": True}, "correct_choice must be a whole number, got true"),
        ("longvideobench", {"candidates": ["only"], "correct_choice": 0}, "a question has 2 to 20 options, got 1"),
        ("mlvu", {"answer": "Seven"}, "answer must be one of the candidates, got 'Seven' ("),
        ("mlvu", {"candidates": None}, f"candidates is missing; it must be a list, each item {ITEM} ("),
        ("mlvu", {"candidates": "Three"}, f"candidates must be a list, each item {ITEM}, got 'Three' ("),
        ("mlvu", {"candidates": ["Three", " "]}, f"candidates[1] must be {ITEM}, got ' ' ("),
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
        (b'{"type": "tv"}', f"key is missing; it must be {TEXT}"),
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


@pytest.mark.parametrize("name", DATASETS)
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
    assert run_here([sys.executable, "-c", script]).stdout.split() == []


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


# scripts/get_lvbench.py

YT_DLP = """#!{python}
# A yt-dlp that fetches nothing: what happens is in the video's id. Like the real one it writes NAME.part, goes on
# with it, and renames it at the end.
import os, signal, sys
from pathlib import Path
key = sys.argv[-1].partition("v=")[2]
path = Path(sys.argv[sys.argv.index("--output") + 1] % {{}})
part = Path(f"{{path}}.part")
with Path(r"{log}").open("a") as log:
    print(*sys.argv[1:], file=log)
if key.startswith("private"):
    print("WARNING: odd", f"ERROR: [youtube] {{key}}: Private video", sep="\\n", file=sys.stderr)
    sys.exit(1)
if key.startswith("nothing"):
    sys.exit(0)
if key.startswith("crash") and not part.exists():
    part.write_text("first half, ")
    os.kill(os.getpid(), signal.SIGKILL)
if key.startswith("stop"):
    part.write_text("first half, ")
    os.kill(os.getppid(), signal.SIGINT)
    signal.pause()
with part.open("a") as file:
    file.write("second half")
part.rename(path)
"""


def run_here(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)


class Fetching:
    """The script on a folder of its own, with the fake yt-dlp alone on its PATH."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, self.log = tmp_path / "100% lvbench", tmp_path / "calls.txt"
        self.annotations, self.programs = tmp_path / "given.jsonl", tmp_path / "programs"
        self.programs.mkdir()
        self.program = self.programs / "yt-dlp"
        self.program.write_text(YT_DLP.format(python=sys.executable, log=self.log))
        self.program.chmod(0o755)

    def annotate(self, *keys: str) -> None:
        self.annotations.write_text("".join(lvbench_line(key, lvbench_row(key)) for key in keys))

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "get_lvbench.py"), str(self.folder), *options]
        return run_here(command, **{"PATH": str(self.programs), **environment})

    def videos(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted((self.folder / "videos").glob("*.*")) if path.is_file()}

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def fetching(tmp_path):
    return Fetching(tmp_path)


def test_all_fetched_is_exit_code_0_and_a_second_run_fetches_nothing(fetching):
    fetching.annotate("Cm73ma6Ibcs", "-starts-odd")
    result = fetching.run("--annotations", str(fetching.annotations), "--height", "480", "--", "--proxy", "a b")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("\n\ndone      2\ngone      0\nfailed    0\n")
    assert fetching.videos() == {"-starts-odd.mp4": "second half", "Cm73ma6Ibcs.mp4": "second half"}
    assert fetching.calls()[1].endswith(" https://www.youtube.com/watch?v=-starts-odd")
    assert "bv*[height<=480][ext=mp4]" in fetching.calls()[0] and "--proxy a b --output" in fetching.calls()[0]
    again = fetching.run()
    assert (again.returncode, len(fetching.calls())) == (0, 2)
    assert [task.path.exists() for task in load_dataset("lvbench", fetching.folder).tasks] == [True, True]


def test_gone_and_failed_are_listed_and_the_rest_is_fetched(fetching):
    fetching.annotate("idZkam9zqAs", "private_123", "nothing_123", "00000000", "Cm73ma6Ibcs", "QgWRyDV9Ozs")
    (fetching.folder / "videos").mkdir(parents=True)
    (fetching.folder / "videos" / "QgWRyDV9Ozs.mkv").write_text("kept from before it was gone")
    result = fetching.run("--annotations", str(fetching.annotations))
    assert result.returncode == 3
    for line in (
        "1/6 idZkam9zqAs: reported as gone from YouTube",
        "2/6 private_123: ERROR: [youtube] private_123: Private video",
        "3/6 nothing_123: yt-dlp ended well, but wrote no video",
        "4/6 00000000: not a YouTube id, which has 11 letters, digits, - or _",
        "5/6 Cm73ma6Ibcs: fetched",
        "6/6 QgWRyDV9Ozs: is there",
        "done      2",
        "gone      1  idZkam9zqAs",
        "failed    3  private_123 nothing_123 00000000",
    ):
        assert line in result.stdout.splitlines()
    assert list(fetching.videos()) == ["Cm73ma6Ibcs.mp4", "QgWRyDV9Ozs.mkv"]
    assert not any("idZkam9zqAs" in call for call in fetching.calls())


def test_gone_videos_are_tried_on_request(fetching):
    fetching.annotate("idZkam9zqAs")
    result = fetching.run("--annotations", str(fetching.annotations), "--try-gone")
    assert (result.returncode, list(fetching.videos())) == (0, ["idZkam9zqAs.mp4"])


def test_a_broken_fetch_leaves_no_video_and_is_resumed_at_the_same_height_only(fetching):
    fetching.annotate("crashes_123")
    result = fetching.run("--annotations", str(fetching.annotations))
    assert (result.returncode, fetching.videos()) == (3, {})
    assert "1/1 crashes_123: yt-dlp ended with -9" in result.stdout
    assert (fetching.run("--height", "480").returncode, fetching.videos()) == (3, {})
    assert fetching.run().returncode == 0
    assert fetching.videos() == {"crashes_123.mp4": "first half, second half"}


def test_ctrl_c_leaves_no_video_and_reports_how_to_go_on(fetching):
    fetching.annotate("stop_me_now")
    result = fetching.run("--annotations", str(fetching.annotations))
    assert (result.returncode, fetching.videos()) == (130, {})
    assert result.stderr.strip() == "stopped; run the same command again to go on"


def test_yt_dlp_is_found_as_a_module_too(fetching, tmp_path):
    (tmp_path / "modules" / "yt_dlp").mkdir(parents=True)
    fetching.program.rename(tmp_path / "modules" / "yt_dlp" / "__main__.py")
    (tmp_path / "modules" / "yt_dlp" / "__init__.py").touch()
    fetching.annotate("Cm73ma6Ibcs")
    result = fetching.run(
        "--annotations", str(fetching.annotations), PYTHONPATH=os.pathsep.join([str(ROOT), str(tmp_path / "modules")])
    )
    assert (result.returncode, list(fetching.videos())) == (0, ["Cm73ma6Ibcs.mp4"])


@pytest.mark.skipif(find_spec("yt_dlp") is not None, reason="yt-dlp is installed here as a module")
def test_a_missing_yt_dlp_is_one_clear_line(fetching):
    fetching.program.unlink()
    result = fetching.run()
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: there is no yt-dlp, neither a command nor a module; install it: python -m pip install yt-dlp\n"
    )


def test_annotations_that_can_not_be_read_are_named_and_not_put_in_place(fetching):
    fetching.annotations.write_text(lvbench_line("../x", lvbench_row("0")))
    result = fetching.run("--annotations", str(fetching.annotations))
    assert result.returncode == 1
    assert result.stderr == (
        f"error: key must be the name of a file, without a folder, got '../x' ({fetching.annotations}, line 1)\n"
    )
    missing = fetching.run("--annotations", "nowhere.jsonl")
    assert (missing.returncode, missing.stderr) == (1, "error: nowhere.jsonl: No such file or directory\n")
    assert list(fetching.folder.iterdir()) == []


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as one file of a dataset needs."""

    content = lvbench_line("Cm73ma6Ibcs", lvbench_row("0")).encode()

    def do_HEAD(self) -> None:
        is_known = self.path == "/datasets/zai-org/LVBench/resolve/main/video_info.meta.jsonl"
        self.send_response(200 if is_known else 404)
        self.send_header("ETag", '"0123456789abcdef0123456789abcdef01234567"')
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Silent."""


def test_annotations_come_from_the_hub_and_once(fetching, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hub")}
        result = fetching.run(**hub, HF_HUB_OFFLINE="0", NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert result.returncode == 0, result.stderr
    assert (fetching.folder / "video_info.meta.jsonl").read_bytes() == Hub.content
    assert fetching.run(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty")).returncode == 0


def test_without_the_hub_the_way_out_is_one_line(fetching, tmp_path):
    result = fetching.run(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"))
    assert result.returncode == 1
    assert result.stderr.startswith("error: zai-org/LVBench on the hub: ") and result.stderr.count("\n") == 1
    assert result.stderr.endswith("; or give the file: --annotations FILE\n")
