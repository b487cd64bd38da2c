"""Selectors of plug-ins, from files and installed packages: they work like the others, and errors are one line."""

import dataclasses
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lvqa.cli.main import lvqa_command
from lvqa.components import check_settings, selector_of
from lvqa.config import load_config
from lvqa.plugins import absolute, is_file_name
from lvqa.records import Candidate, Clip, LvqaError
from lvqa.rerank import RerankRequest, make_reranker
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

        def select(self, inputs: SelectorInput):
            end = max(inputs.budget, len(inputs) - self.skip)
            return inputs.selection(range(end - inputs.budget, end))
"""


@pytest.fixture
def write(write_plugin):
    return write_plugin


def selecting(body: str, before: str = "") -> str:
    """Return the source of a selector whose `select` has this body."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), " " * 8)
    return f"{textwrap.dedent(before)}\nclass Mine:\n    def select(self, inputs):\n{lines}\n"


def refusal(call, *words: object) -> str:
    """Return the message of the LvqaError that the call raises: one line, with all of the words."""
    with pytest.raises(LvqaError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(str(word) in message for word in words), message
    return message


def run(*arguments: object):
    return CliRunner().invoke(lvqa_command, [str(argument) for argument in arguments])


# --- use -----------------------------------------------------------------------------------------------------------


def test_a_selector_from_a_file_works_like_the_others(write):
    path = write(LATEST)
    selector = make_selector(str(path), {"skip": 2}, seed=3, uniform="midpoint")
    assert selector.select(SelectorInput(np.arange(9), 3)).times_seconds == (4, 5, 6)
    assert (selector.needs_scores, selector.needs_features) == (False, False)
    assert make_selector(f"{path}:Latest").select(SelectorInput(np.arange(3), 5)).times_seconds == (0, 1, 2)
    refusal(lambda: make_selector(str(path), {"jump": 2}), "unknown option 'jump'", path, "it takes: skip")
    assert [file.name for file in path.parent.iterdir()] == ["mine.py"]  # no compiled copy


def test_a_modified_file_is_read_again(write):
    path = write(LATEST)
    inputs = SelectorInput(np.arange(9), 3)
    before = make_selector(str(path)).select(inputs)
    write(LATEST.replace("skip: int = 0", "skip: int = 4"))
    assert make_selector(str(path)).select(inputs) != before


def test_the_parameter_may_have_any_name(write):
    path = write(selecting("return inputs.evenly_spaced()").replace("inputs", "x"))
    inputs = SelectorInput(np.arange(9), 3)
    assert make_selector(str(path)).select(inputs) == inputs.evenly_spaced()


def test_it_can_be_named_in_the_settings(write):
    path = write(LATEST)
    settings = [f"method={path}", "selection.options.skip=3"]
    selector = selector_of(load_config(None, settings))
    assert selector.select(SelectorInput(np.arange(9), 3)).times_seconds == (3, 4, 5)
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
        ("x = 1\n", ("has no class with a method select(inputs): none",)),
        ("from lvqa.selection import UniformSelector\n", ("has no class",)),
        ("class A:\n  def select(self, inputs): 0\nclass B(A): 0\n", ("more than one class", "A, B", "mine.py:Class")),
        ("class _A:\n  def select(self, inputs): 0\n", ("has no class", "_A")),
        (
            "class A:\n  needs_scores = 1\n  def select(self, inputs): 0\n",
            ("A.needs_scores must be true or false",),
        ),
        (
            "class A:\n  def __init__(self):\n    1 / 0\n  def select(self, inputs): 0\n",
            ("mine.py:3: ZeroDivisionError",),
        ),
        ("x = '\0'\n", ("mine.py",)),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_file_without_a_selector_is_refused_in_one_line(write, source, named):
    path = write(source)
    refusal(lambda: make_selector(str(path)), *named)


def test_a_file_that_is_missing_or_not_text(tmp_path):
    refusal(lambda: make_selector(str(tmp_path / "no.py")), "cannot read the plug-in", tmp_path / "no.py")
    (tmp_path / "folder.py").mkdir()
    refusal(lambda: make_selector(str(tmp_path / "folder.py")), tmp_path / "folder.py")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
    refusal(lambda: make_selector(str(tmp_path / "bytes.py")), tmp_path / "bytes.py")


def test_a_missing_class_is_refused_with_those_of_the_file(write):
    path = write(LATEST)
    refusal(lambda: make_selector(f"{path}:Earliest"), "no class 'Earliest'", "it has: Latest")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("x = 1\nreturn inputs.selection([0, inputs.absent])", ("mine.py:5: AttributeError", "absent")),
        ("return inputs.selection([0])", ("mine.py:4: AssertionError", "as many distinct frames")),
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
        ("inputs.scores[0] = 1", ("mine.py:4: ValueError", "read-only")),
        ("raise SystemExit", ("mine.py:4: SystemExit",)),
        ("return self.select(inputs)", ("mine.py:4: RecursionError",)),
    ],
)
def test_an_error_in_it_names_file_and_line(write, body, named):
    path = write(selecting(body))
    refusal(lambda: make_selector(str(path)).select(SelectorInput(np.arange(9), 2)), path, *named)


# --- installed packages --------------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution of one module with plug-ins, {group: {name: class}}."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))
    modules = []

    def install(module: str, source: str, **plugins: dict[str, str]) -> None:
        modules.append(module)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = [
            line
            for group, classes in plugins.items()
            for line in (f"[lvqa.{group}]", *(f"{name} = {module}:{value}" for name, value in classes.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (site / f"{module}.py").write_text(textwrap.dedent(source))

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def test_an_installed_selector_works_like_the_others(install):
    install("late_frames", LATEST, selectors={"latest": "Latest"})
    selector = make_selector("latest", {"skip": 2}, seed=3, uniform="midpoint")
    assert selector.select(SelectorInput(np.arange(9), 3)).times_seconds == (4, 5, 6)
    assert (selector.needs_scores, selector.needs_features) == (False, False)
    config = load_config(None, ["method=latest", "selection.options.skip=3"])
    check_settings(config)
    assert selector_of(config).select(SelectorInput(np.arange(9), 3)).times_seconds == (3, 4, 5)
    refusal(lambda: make_selector("latest", {"jump": 2}), "unknown option 'jump' of method 'latest'", "it takes: skip")
    refusal(lambda: make_selector("best"), "segments, router, oracle, blind, latest, or a file ending in .py or .json")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_library\n", ("site/mine_too.py:1): ModuleNotFoundError", "no_such_library")),
        ("x = (1,\ny = 2\n", ("site/mine_too.py:1): SyntaxError",)),
        ("x = 1\n", ("AttributeError", "'Mine'")),
        ("def Mine(): return 1\n", ("is not a class with a method select(inputs)",)),
        ("class Mine: 0\n", ("is not a class with a method select(inputs)",)),
        (selecting("return 1 / 0"), ("site/mine_too.py:4): ZeroDivisionError",)),
        (selecting("return [0, 1]"), (": Mine.select gives a list and no FrameSelection",)),
        (
            selecting("0", "").replace("def select", "needs_scores = 1\n    def select"),
            (": Mine.needs_scores must be",),
        ),
    ],
    ids=["import", "syntax", "attribute", "function", "method", "error", "result", "needs"],
)
def test_an_error_in_an_installed_selector_names_it_in_one_line(install, source, words):
    install("mine_too", source, selectors={"mine": "Mine"})
    refusal(lambda: make_selector("mine").select(SelectorInput(np.arange(9), 2)), "plug-in 'mine' of mine_too", *words)


def test_a_built_in_name_wins_with_one_warning(install, caplog):
    install("other_uniform", LATEST, selectors={"uniform": "Latest", "latest": "Latest"})
    inputs = SelectorInput(np.arange(9), 3)
    for _ in range(2):
        assert make_selector("uniform").select(inputs) == inputs.evenly_spaced()
        assert make_selector("latest").select(inputs) != inputs.evenly_spaced()
    (record,) = caplog.records
    message = "method 'uniform' is built in; the installed plug-in of the same name (other_uniform:Latest) is not used"
    assert (record.levelname, record.getMessage()) == ("WARNING", message)


def test_an_installed_reranker_works_like_the_others(install):
    source = """
        class AsGiven:
            def rerank(self, model, requests):
                return [request.candidates[request.query == "fewer" :] for request in requests]
    """
    install("as_given", source, rerankers={"as_given": "AsGiven"})
    candidates = [Candidate(Clip("v", 0, 4), 0.5), Candidate(Clip("v", 4, 8), 0.4)]
    reranker = make_reranker("as_given", layout="clip_first")
    requests = [RerankRequest(query, candidates, None) for query in ("?", "fewer")]  # type: ignore[arg-type]
    assert reranker.rerank(None, requests[:1]) == [candidates]  # type: ignore[arg-type]
    refusal(
        lambda: reranker.rerank(None, requests[1:]),  # type: ignore[arg-type]
        "plug-in 'as_given' of as_given: AsGiven.rerank gives the clip at 0 s 0 times",
    )
    refusal(lambda: make_reranker("best"), "as_given, or a file ending in .py, got 'best'")
    refusal(lambda: make_selector("as_given"), "method must be one of")


@pytest.mark.slow
def test_the_command_checks_an_installed_selector(install):
    install("late_frames_again", LATEST, selectors={"latest": "Latest"})
    result = run("check-plugin", "latest")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "latest keeps the contract of a selector"
    assert "or an installed plug-in (latest), got 'aks'" in run("check-plugin", "aks").stderr


def test_the_command_names_an_installed_selector_that_fails(install):
    install("broken_frames", "import no_such_library\n", selectors={"broken": "Broken"})
    result = run("check-plugin", "broken")
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1 and "plug-in 'broken' of broken_frames" in line and "no_such_library" in line


# --- the check -----------------------------------------------------------------------------------------------------


def failures(path: Path) -> dict[str, str]:
    return {check: problem for check, problem in check_selector(str(path)).items() if problem}


@pytest.mark.slow
def test_a_good_selector_passes(write):
    assert failures(write(LATEST)) == {}


@pytest.mark.parametrize(
    ("source", "failing", "message"),
    [
        (selecting("return inputs.selection(range(inputs.num_frames))"), {"random scores"}, "distinct frames"),
        (
            selecting(
                "limit = float(np.nanmin(inputs.scores))\n"
                "assert limit > -np.inf, 'not finite'\n"
                "return inputs.selection(inputs.best_first()[: inputs.budget])",
                before="import numpy as np",
            ),
            {"NaN scores", "all-NaN scores", "infinite scores", "the same again"},
            "not finite",
        ),
        (
            selecting(
                "order = sorted(range(len(inputs)), key=lambda i: random.random())\n"
                "return inputs.selection(order[: inputs.budget])",
                before="import random",
            ),
            {"the same again", "the same in every process"},
            "other frames",
        ),
        (
            selecting(
                "order = sorted(range(len(inputs)), key=lambda i: hash(f'{i}'))\n"
                "return inputs.selection(order[: inputs.budget])"
            ),
            {"the same in every process"},
            "processes differ",
        ),
        (
            selecting("return inputs.selection(inputs.best_first()[: inputs.budget])").replace(
                "def select", "needs_scores = False\n    def select"
            ),
            {"declares what it needs"},
            "needs_scores is false",
        ),
        (
            selecting("return inputs.evenly_spaced()").replace("def select", "needs_features = True\n    def select"),
            {"declares what it needs"},
            "needs_features is true",
        ),
        (
            selecting("inputs.features.sum()\nreturn inputs.evenly_spaced()"),
            {"constant scores", "the same again", "the same in every process"},
            "mine.py:4: AttributeError",
        ),
    ],
    ids=["budget", "finite", "random", "hash", "scores", "features", "no features"],
)
@pytest.mark.slow
def test_failing_checks_are_named(write, source, failing, message):
    problems = failures(write(source))
    assert failing <= set(problems)
    assert any(message in problem for problem in problems.values())
    assert all("\n" not in problem for problem in problems.values())
    if message != "distinct frames" and "AttributeError" not in message:
        assert set(problems) == failing


@pytest.mark.slow
def test_the_command_reports_what_passes(write):
    path = write(LATEST)
    result = run("check-plugin", path)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert any(line.startswith("ok") and "NaN scores" in line for line in lines)
    assert lines[-1] == f"{path} keeps the contract of a selector"


@pytest.mark.slow
def test_the_command_reports_what_fails_in_one_line_each(write):
    path = write(selecting("return inputs.selection(range(inputs.num_frames))"))
    result = run("check-plugin", path)
    assert result.exit_code == 1
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILS")]
    assert any("random scores" in line and "mine.py:4: AssertionError" in line for line in failed)
    (line,) = result.stderr.splitlines()
    assert f"{len(failed)} of" in line


def test_the_command_needs_a_plug_in(tmp_path):
    result = run("check-plugin", tmp_path / "no.py")
    assert result.exit_code == 1
    assert "cannot read the plug-in" in result.stderr and result.stdout == ""
    message = "a Python file, ending in .py or .py:Class, or an installed plug-in (none), got 'aks'"
    assert message in run("check-plugin", "aks").stderr


def test_help_warns_that_its_code_is_run():
    for arguments in (("check-plugin", "--help"), ("ask", "--help")):
        assert "code" in run(*arguments).stdout
