"""Selectors of your own, from a file: they work like the others, and what is wrong with them is said in one line."""

import dataclasses
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lvqa.cli.main import lvqa_command
from lvqa.components import check_settings, selector_of
from lvqa.config import load_config
from lvqa.plugins import absolute, is_file_name
from lvqa.records import LvqaError
from lvqa.selection import SelectorInput, make_selector
from lvqa.selection.contract import check_selector

LATEST = """
    from __future__ import annotations

    from dataclasses import dataclass

    from lvqa.selection import SelectorInput


    @dataclass(frozen=True, kw_only=True)
    class Latest:
        '''The last frames.'''

        skip: int = 0
        needs_scores = False

        def select(self, grid: SelectorInput):
            end = max(grid.budget, len(grid) - self.skip)
            return grid.selection(range(end - grid.budget, end))
"""


@pytest.fixture
def write(tmp_path):
    def write(source: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    return write


def selecting(body: str, before: str = "") -> str:
    """A file with one selector whose `select` has this body."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), " " * 8)
    return f"{textwrap.dedent(before)}\nclass Mine:\n    def select(self, grid):\n{lines}\n"


def refusal(call, *named: object) -> str:
    with pytest.raises(LvqaError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(str(part) in message for part in named), message
    return message


def run(*words: object):
    return CliRunner().invoke(lvqa_command, [str(word) for word in words])


# --- use -----------------------------------------------------------------------------------------------------------


def test_a_selector_from_a_file_is_one_like_the_others(write):
    path = write(LATEST)
    selector = make_selector(str(path), {"skip": 2}, seed=3, uniform="midpoint")
    assert selector.select(SelectorInput(np.arange(9), 3)).times_seconds == (4, 5, 6)
    assert (selector.needs_scores, selector.needs_features) == (False, False)
    assert make_selector(f"{path}:Latest").select(SelectorInput(np.arange(3), 5)).times_seconds == (0, 1, 2)
    refusal(lambda: make_selector(str(path), {"jump": 2}), "unknown option 'jump'", path, "it takes: skip")
    assert [file.name for file in path.parent.iterdir()] == ["mine.py"]  # no compiled copy beside it


def test_a_changed_file_is_read_anew(write):
    path = write(LATEST)
    grid = SelectorInput(np.arange(9), 3)
    before = make_selector(str(path)).select(grid)
    write(LATEST.replace("skip: int = 0", "skip: int = 4"))
    assert make_selector(str(path)).select(grid) != before


def test_it_can_be_named_in_the_settings(write):
    path = write(LATEST)
    settings = [f"method={path}", "selection.options.skip=3"]
    selector = selector_of(load_config(None, settings))
    assert selector.select(SelectorInput(np.arange(9), 3)).times_seconds == (3, 4, 5)  # type: ignore[union-attr]
    with pytest.raises(LvqaError, match="unknown option 'skip' of method 'uniform'"):
        check_settings(dataclasses.replace(load_config(None, settings), method="uniform"))


def test_names_of_files():
    assert is_file_name("a/b.py") and is_file_name("b.py:Class") and is_file_name("C:\\b.py")
    assert not is_file_name("freeret") and not is_file_name("b.pyc") and not is_file_name(".py")
    assert absolute("aks") == "aks" and Path(absolute("a/b.py:C")).is_absolute()


# --- what is wrong with the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("x = (1,\ny = 2\n", ("mine.py:1: SyntaxError",)),
        ("x = 1\n\nraise RuntimeError('no\\nway')\n", ("mine.py:3: RuntimeError: no way",)),
        ("import sys\nsys.exit(3)\n", ("mine.py:2: SystemExit: 3",)),
        ("import no_such_library\n", ("mine.py:1: ModuleNotFoundError", "no_such_library")),
        ("x = 1\n", ("has no class with a method select(grid): none",)),
        ("from lvqa.selection import UniformSelector\n", ("has no class",)),
        ("class A:\n  def select(self, grid): 0\nclass B(A): 0\n", ("more than one class", "A, B", "mine.py:Class")),
        ("class _A:\n  def select(self, grid): 0\n", ("has no class", "_A")),
        (
            "class A:\n  needs_scores = 1\n  def select(self, grid): 0\n",
            ("A.needs_scores must be true or false",),
        ),
        (
            "class A:\n  def __init__(self):\n    1 / 0\n  def select(self, grid): 0\n",
            ("mine.py:3: ZeroDivisionError",),
        ),
        ("x = '\0'\n", ("mine.py",)),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_file_that_is_no_selector_is_refused_in_one_line(write, source, named):
    path = write(source)
    refusal(lambda: make_selector(str(path)), *named)


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    refusal(lambda: make_selector(str(tmp_path / "no.py")), "cannot read the plug-in", tmp_path / "no.py")
    (tmp_path / "folder.py").mkdir()
    refusal(lambda: make_selector(str(tmp_path / "folder.py")), tmp_path / "folder.py")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
    refusal(lambda: make_selector(str(tmp_path / "bytes.py")), tmp_path / "bytes.py")


def test_a_class_that_is_not_there_is_refused_with_those_that_are(write):
    path = write(LATEST)
    refusal(lambda: make_selector(f"{path}:Earliest"), "no class 'Earliest'", "it has: Latest")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("x = 1\nreturn grid.selection([0, grid.there])", ("mine.py:5: AttributeError", "there")),
        ("return grid.selection([0])", ("mine.py:4: AssertionError", "as many distinct frames")),
        ("return [0, 1]", ("Mine.select gives a list and no FrameSelection",)),
        (
            "from lvqa.records import FrameSelection\nreturn FrameSelection('', (0.0, 0.5))",
            ("Mine.select gives 0.5 s, which is no time of the grid",),
        ),
        (
            "from lvqa.records import FrameSelection\nreturn FrameSelection('', (0.0,))",
            ("Mine.select gives 1 of 9 frames and not 2 when asked for 2",),
        ),
        (
            "from lvqa.records import FrameSelection\nreturn FrameSelection('w', (0.0, 1.0))",
            ("Mine.select gives frames of video 'w'",),
        ),
        ("grid.scores[0] = 1", ("mine.py:4: ValueError", "read-only")),
        ("raise SystemExit", ("mine.py:4: SystemExit",)),
        ("return self.select(grid)", ("mine.py:4: RecursionError",)),
    ],
)
def test_an_error_in_it_names_file_and_line(write, body, named):
    path = write(selecting(body))
    refusal(lambda: make_selector(str(path)).select(SelectorInput(np.arange(9), 2)), path, *named)


# --- the check -----------------------------------------------------------------------------------------------------


def failures(path: Path) -> dict[str, str]:
    return {what: problem for what, problem in check_selector(str(path)).items() if problem}


def test_a_good_one_passes(write):
    assert failures(write(LATEST)) == {}


@pytest.mark.parametrize(
    ("source", "failing", "said"),
    [
        (selecting("return grid.selection(range(grid.num_frames))"), {"random scores"}, "distinct frames"),
        (
            selecting(
                "limit = float(np.nanmin(grid.scores))\n"
                "assert limit > -np.inf, 'not finite'\n"
                "return grid.selection(grid.best_first()[: grid.budget])",
                before="import numpy as np",
            ),
            {"NaN scores", "all-NaN scores", "infinite scores", "the same again"},
            "not finite",
        ),
        (
            selecting(
                "order = sorted(range(len(grid)), key=lambda i: random.random())\n"
                "return grid.selection(order[: grid.budget])",
                before="import random",
            ),
            {"the same again", "the same in every process"},
            "other frames",
        ),
        (
            selecting(
                "order = sorted(range(len(grid)), key=lambda i: hash(f'{i}'))\n"
                "return grid.selection(order[: grid.budget])"
            ),
            {"the same in every process"},
            "processes differ",
        ),
        (
            selecting("return grid.selection(grid.best_first()[: grid.budget])").replace(
                "def select", "needs_scores = False\n    def select"
            ),
            {"looks at what it says"},
            "needs_scores is false",
        ),
        (
            selecting("return grid.even()").replace("def select", "needs_features = True\n    def select"),
            {"looks at what it says"},
            "needs_features is true",
        ),
        (
            selecting("grid.features.sum()\nreturn grid.even()"),
            {"constant scores", "the same again", "the same in every process"},
            "mine.py:4: AttributeError",
        ),
    ],
    ids=["budget", "finite", "random", "hash", "scores", "features", "no features"],
)
def test_what_fails_is_named(write, source, failing, said):
    found = failures(write(source))
    assert failing <= set(found)
    assert any(said in problem for problem in found.values())
    assert all("\n" not in problem for problem in found.values())
    if said != "distinct frames" and "AttributeError" not in said:
        assert set(found) == failing


def test_the_command_says_what_passes(write):
    path = write(LATEST)
    result = run("check-plugin", path)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert any(line.startswith("ok") and "NaN scores" in line for line in lines)
    assert lines[-1] == f"{path} keeps the contract of a selector"


def test_the_command_says_what_fails_in_one_line_each(write):
    path = write(selecting("return grid.selection(range(grid.num_frames))"))
    result = run("check-plugin", path)
    assert result.exit_code == 1
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILS")]
    assert any("random scores" in line and "mine.py:4: AssertionError" in line for line in failed)
    (line,) = result.stderr.splitlines()
    assert f"{len(failed)} of" in line


def test_the_command_needs_a_file(tmp_path):
    result = run("check-plugin", tmp_path / "no.py")
    assert result.exit_code == 1
    assert "cannot read the plug-in" in result.stderr and result.stdout == ""
    assert "a Python file" in run("check-plugin", "aks").stderr


def test_help_says_that_its_code_is_run():
    for words in (("check-plugin", "--help"), ("ask", "--help")):
        assert "code" in run(*words).stdout
