"""Subtitles in the forms in which benchmarks publish them."""

from __future__ import annotations

import json
import math

import pytest
from annotation_files import WRITERS

from lvqa.datasets import load_dataset
from lvqa.datasets.subtitles import SubtitleFile
from lvqa.records import LvqaError, Subtitle
from lvqa.subtitles import MAX_BYTES

SRT = """1
00:00:01,500 --> 00:00:03,000
<font color="white" size=".72c">Good
evening.</font>

2
01:02:03,004 --> 01:02:04,000

3
00:00:05,000 --> 00:00:06,000
Bye.
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_subrip(newline, tmp_path):
    (tmp_path / "a.srt").write_bytes(b"\xef\xbb\xbf" + SRT.replace("\n", newline).encode())
    assert SubtitleFile(tmp_path / "a.srt", "srt").read() == (
        Subtitle(1.5, 3.0, "Good evening."),
        Subtitle(3723.004, 3724.0, ""),
        Subtitle(5.0, 6.0, "Bye."),
    )


def test_longvideobenchs_two_forms_and_a_video_that_was_cut(tmp_path):
    file = SubtitleFile(tmp_path / "a.json", "longvideobench", 10.0)
    file.path.write_text(
        json.dumps([{"timestamp": [12, 13.5], "text": " Hi. "}, {"timestamp": [15.0, None], "text": "Oh"}])
    )
    assert file.read() == (Subtitle(2.0, 3.5, "Hi."), Subtitle(5.0, math.inf, "Oh"))
    file.path.write_text(json.dumps([{"start": "00:00:12.250", "end": "00:01:00.000", "line": "Hi."}]))
    assert file.read() == (Subtitle(2.25, 50.0, "Hi."),)


def test_words(tmp_path):
    file = SubtitleFile(tmp_path / "a.jsonl", "words")
    file.path.write_text(
        '{"text": "Hello", "start_time": 0.5, "end_time": 0.8}\n\n{"text": "you", "start_time": 1, "end_time": 2}\n'
    )
    assert file.read() == (Subtitle(0.5, 0.8, "Hello"), Subtitle(1.0, 2.0, "you"))


@pytest.mark.parametrize(
    ("form", "content", "reason"),
    [
        ("srt", "1\n00:00 --> 00:01\nHi", "a time of subtitles must be HH:MM:SS,mmm, got '00:00' ("),
        ("longvideobench", "{}", "the content must be a list"),
        ("longvideobench", '[{"line": "x"}]', "a subtitle has timestamp and text, or start, end and line; got "),
        ("longvideobench", '[{"timestamp": [1], "text": "x"}]', "timestamp must be a list of 2"),
        ("words", '{"text": "x"}', "end_time, start_time are missing ("),
        ("words", "x", "not JSON: "),
    ],
)
def test_a_hostile_file_is_refused(form, content, reason, tmp_path):
    file = SubtitleFile(tmp_path / "a", form)
    file.path.write_text(content)
    with pytest.raises(LvqaError) as caught:
        file.read()
    assert reason in str(caught.value) and str(file.path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_or_too_large_file_is_refused(tmp_path):
    file = SubtitleFile(tmp_path / "a", "srt")
    with pytest.raises(LvqaError, match="No such file"):
        file.read()
    with file.path.open("wb") as opened:
        opened.truncate(MAX_BYTES + 1)
    with pytest.raises(LvqaError, match="allowed: 16 MiB"):
        file.read()


@pytest.mark.parametrize(
    ("name", "path", "content"),
    [
        ("videomme", "subtitle/Cm73ma6Ibcs.srt", SRT),
        ("videomme_v2", "subtitle/001.jsonl", '{"text": "Hi", "start_time": 0.5, "end_time": 0.8}'),
        ("longvideobench", "subtitles/Cm73ma6Ibcs_en.json", '[{"timestamp": [1.5, 3.0], "text": "Hi"}]'),
    ],
)
def test_a_benchmark_says_where_the_subtitles_of_a_video_are(name, path, content, tmp_path):
    WRITERS[name](tmp_path)
    assert not any(task.subtitles for task in load_dataset(name, tmp_path).tasks)
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_text(content)
    first, *others = load_dataset(name, tmp_path).tasks
    assert first.subtitles is not None and first.subtitles.read()[0].end_seconds in (3.0, 0.8)
    assert len([task for task in others if task.subtitles]) == (1 if name == "longvideobench" else 0)
