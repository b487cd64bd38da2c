"""Whatever a user can type or write into a file gives an answer or an LvqaError: never another exception."""

from __future__ import annotations

import json
import os
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvqa.cli.main import lvqa_command
from lvqa.config import Config, load_config, to_dict
from lvqa.datasets.annotations import json_lines
from lvqa.evaluation import load_run_config
from lvqa.evaluation.rows import Row, read_rows
from lvqa.letters import named_letter
from lvqa.models.checkpoint import find_checkpoint
from lvqa.models.devices import best_device
from lvqa.records import LETTERS, LvqaError, Question
from lvqa.selection.files import read_scores, read_selections
from lvqa.settings_tree import flat
from lvqa.validation import check_question, option_texts
from lvqa.video import inspect_video

often = settings(deadline=None, derandomize=True, max_examples=100, suppress_health_check=list(HealthCheck))
seldom = settings(often, max_examples=25)

ANY_TEXT = st.text(st.characters(codec=None), max_size=60)  # with lone surrogates, NUL and all controls
WORDS = st.sampled_from(
    [
        *("", " ", "tiny", "~", "~nobody/x", "/", "..", "a/b", "a/b/c", "C:\\x", "\0", "\udcff", "x" * 300, "-s", "--"),
        *("https://youtu.be/x?v=1", "https:/a/b", "file:///etc", "NaN", "1e999", "{}", "[", "null", "<think>", "a\nb"),
    ]
)
TEXT = ANY_TEXT | WORDS | st.lists(WORDS, max_size=3).map("/".join)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
TREE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
SETTING_NAMES = sorted({*to_dict(Config()), *flat(to_dict(Config()))})

VIDEO = Path(__file__).parent / "golden" / "dataset" / "videos" / "film000011-1min.mp4"


def refused_or(compute: Callable[[], Any]) -> Any:
    """Return what a call returns, or None if it refuses in one line."""
    try:
        return compute()
    except LvqaError as error:
        assert len(str(error).splitlines()) == 1
        return None


def in_file(content: bytes, read: Callable[[Path], Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        path.write_bytes(content)
        refused_or(lambda: read(path))


# --- questions and answers -------------------------------------------------------------------------------------------


@often
@given(TEXT | SCALAR, st.lists(TEXT | SCALAR, max_size=4) | SCALAR, st.booleans(), st.booleans())
def test_any_question_is_taken_or_refused(text, options, is_search, distinct):
    def check() -> Question:
        question = Question(text, option_texts(options))
        check_question(question, is_search=is_search, distinct_options=distinct)
        return question

    question = refused_or(check)
    if question is not None:
        json.dumps([question.text, *question.options], ensure_ascii=False).encode()  # a tokenizer gets bytes


@pytest.mark.slow
@often
@given(st.lists(TEXT | st.sampled_from("AB (),.:/\n"), max_size=12).map("".join), st.lists(TEXT, max_size=21))
def test_any_reply_names_a_letter_of_the_options_or_none(text, options):
    letter = named_letter(text, options)
    assert letter is None or letter in LETTERS[: len(options)]


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@often
@given(TREE)
def test_any_settings_file_is_taken_or_refused(tree):
    content = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    in_file(content, load_config)
    in_file(content, load_run_config)


@seldom
@given(st.binary(max_size=60))
def test_any_bytes_as_settings_are_taken_or_refused(content):
    in_file(content, load_config)
    in_file(content, load_run_config)


@often
@given(st.sampled_from(SETTING_NAMES) | TEXT, SCALAR, st.booleans())
def test_any_override_is_taken_or_refused(name, value, is_bare):
    override = name if is_bare else f"{name}={value}"
    config = refused_or(lambda: load_config(None, [override]))
    assert config is None or isinstance(config, Config)


# --- files -----------------------------------------------------------------------------------------------------------

JSON_TREE = TREE | st.dictionaries(st.sampled_from(sorted(Row.__annotations__)), SCALAR, max_size=20)


@pytest.mark.slow
@often
@given(JSON_TREE)
def test_any_json_is_read_or_refused(tree):
    content = json.dumps(tree).encode() + b"\n"
    in_file(content, lambda path: list(read_rows(path)))
    in_file(content, read_selections)
    in_file(content, read_scores)
    in_file(content, lambda path: list(json_lines(path, dict[str, Any])))


@seldom
@given(st.binary(max_size=60).map(lambda content: content + b"\n"))
def test_any_bytes_are_read_or_refused(content):
    for read in (lambda path: list(read_rows(path)), read_selections, read_scores, inspect_video):
        in_file(content, read)


# --- names -----------------------------------------------------------------------------------------------------------


@often
@given(TEXT | st.text(string.ascii_letters + "/-._", max_size=20))
def test_any_name_of_a_model_is_found_or_refused(name):
    refused_or(lambda: find_checkpoint(name))


@seldom
@given(JSON_TREE | st.fixed_dictionaries({"model_type": SCALAR, "cpu_dtype": SCALAR}))
def test_any_config_of_a_model_is_read_or_refused(tree):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(tree))
        refused_or(lambda: find_checkpoint(folder))


@often
@given(TEXT | st.sampled_from(["xpu", "mps", "meta", "cuda:99", "cpu:0", "hpu", "mtia", "privateuseone", "vulkan"]))
def test_any_name_of_a_device_is_taken_or_refused(name):
    refused_or(lambda: best_device(name))


@often
@given(TEXT)
def test_any_path_is_inspected_or_refused(name):
    refused_or(lambda: inspect_video(name))
    refused_or(lambda: inspect_video(Path(name)))


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def no_model(monkeypatch, tmp_path):
    """Refuse to load a model, so that a command ends where one would be loaded."""

    def refuse(*_: object, **__: object) -> None:
        raise LvqaError("a model would be loaded now")

    monkeypatch.setattr("lvqa.components.load_model", refuse)
    monkeypatch.setenv("LVQA_HOME", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)


def is_an_argument(word: str) -> bool:
    """Return whether the system can hand the word to a program: it is bytes without a NUL."""
    try:
        return b"\0" not in os.fsencode(word) and word not in ("--help", "-h")
    except UnicodeEncodeError:
        return False


WORD = (TEXT | st.integers().map(str)).filter(is_an_argument)
OPTION = st.tuples(
    st.sampled_from(["--option", "--frames", "--method", "--image", "-s", "--model", "--device", "--store", "-c"]), WORD
)


@seldom
@given(
    st.sampled_from(["ask", "search", "index"]), st.sampled_from(["video"]) | WORD, WORD, st.lists(OPTION, max_size=3)
)
def test_any_words_end_in_one_line(no_model, command, video, query, options):
    path = str(VIDEO) if video == "video" else video
    words = [word for option in options for word in option] + [path] + ([] if command == "index" else [query])
    result = CliRunner().invoke(lvqa_command, [command, "--quiet", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1, 2, 3)
    if result.exit_code == 1:
        (line,) = result.stderr.splitlines()
        assert line.startswith("lvqa: ")
