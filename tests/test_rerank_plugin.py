"""Rerankers of your own, from a file: they work like the others, and what is wrong with them is said in one line."""

import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from lvqa.cli.main import lvqa_command
from lvqa.models import load_model
from lvqa.records import LvqaError
from lvqa.rerank import make_reranker
from lvqa.rerank.contract import CHECKS, candidates_like, check_reranker, clip_tokens_for

README = Path(__file__).parent.parent / "README.md"

GOOD = """
    from dataclasses import dataclass, replace


    @dataclass(frozen=True, kw_only=True)
    class Latest:
        '''The later the better.'''

        sign: int = 1

        def rerank(self, model, query, candidates, clip_tokens, beginnings=None):
            scored = [replace(one, rerank_score=self.sign * one.start_seconds) for one in candidates]
            return sorted(scored, key=lambda one: -one.rerank_score)
"""

COUNTDOWN = "lots = iter(range(0, -999, -1))"


@pytest.fixture
def write(tmp_path):
    def write(source: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    return write


def reranking(body: str, before: str = "") -> str:
    """A file with one reranker whose `rerank` has this body."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), " " * 8)
    head = "def rerank(self, model, query, candidates, clip_tokens, beginnings=None):"
    return f"from dataclasses import replace\n{before}\n\nclass Mine:\n    {head}\n{lines}\n"


def run(*words: object):
    return CliRunner().invoke(lvqa_command, [str(word) for word in words])


def test_a_reranker_from_a_file_is_one_like_the_others(write):
    path = write(GOOD)
    candidates = candidates_like(4)
    for name, options, best in ((str(path), {}, 48.0), (f"{path}:Latest", {"sign": -1}, 0.0)):
        reranker = make_reranker(name, options, layout="clip_first")
        assert reranker.rerank(None, "?", candidates, iter)[0].start_seconds == best  # type: ignore[arg-type]
    with pytest.raises(LvqaError, match=r"unknown option 'top' of rerank.name .*mine.py.*; it takes: sign"):
        make_reranker(str(path), {"top": 2})


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("x = 1\n", "has no class with a method rerank(model, query, candidates, clip_tokens, beginnings): none"),
        (reranking("x = 1\nreturn query.there"), "mine.py:7: AttributeError"),
        (reranking("return None"), "Mine.rerank gives None and no list of candidates"),
        (reranking("return candidates[1:]"), "Mine.rerank gives the clip at 0 s 0 times; it was given 1 times"),
        (reranking("return candidates + candidates[:1]"), "gives the clip at 0 s 2 times; it was given 1 times"),
        (
            reranking("return [replace(one, rerank_score=float('nan')) for one in candidates]"),
            "gives nan as a rerank score, which must be a finite number",
        ),
        (
            reranking("return [replace(one, rerank_score=-one.embed_score) for one in candidates]"),
            "gives candidates that are not best first by rerank score, those without one last",
        ),
        (
            reranking("return [*candidates[:1], *(replace(one, rerank_score=1.0) for one in candidates[1:])]"),
            "gives candidates that are not best first",
        ),
    ],
    ids=lambda value: value[-40:],
)
def test_what_is_wrong_is_said_in_one_line(write, source, named):
    path = write(source)
    with pytest.raises(LvqaError) as caught:
        make_reranker(str(path)).rerank(None, "?", candidates_like(3), iter)  # type: ignore[arg-type]
    assert named in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "failing", "said"),
    [
        (GOOD, set(), ""),
        (reranking("candidates.pop()\nreturn candidates"), {*CHECKS}, "0 times; it was given 1 times"),
        (
            reranking("return [replace(one, rerank_score=next(lots)) for one in candidates]", COUNTDOWN),
            {*CHECKS} - {"the same clips, best first"},
            "another answer",
        ),
        (
            reranking(
                "size = float(model._prompt_budget.tokens)\n"
                "return [replace(one, rerank_score=size) for one in candidates]"
            ),
            {"the same in any batch"},
            "depend on the batches",
        ),
        (
            reranking(
                "known = 0.0 if beginnings is None else float(len(list(beginnings)))\n"
                "if beginnings is not None:\n"
                "    (read,) = model.prefill_prefix([(next(clip_tokens([candidates[0].clip])),)])\n"
                "    beginnings['seen'] = read\n"
                "return [replace(one, rerank_score=known) for one in candidates]"
            ),
            {"the same after other questions", "the same beside other questions"},
            "what was read before",
        ),
        (
            reranking("list(clip_tokens([one.clip for one in candidates]))\nreturn candidates"),
            {*CHECKS},
            "not in the order of time",
        ),
    ],
    ids=["good", "breaks", "random", "batch", "beginnings", "order"],
)
def test_what_fails_is_named(write, source, failing, said):
    found = {what: problem for what, problem in check_reranker(str(write(source))).items() if problem}
    assert set(found) == failing
    assert all("\n" not in problem for problem in found.values())
    assert said in "".join(found.values())


def test_the_command_knows_rerankers_from_selectors(write):
    path = write(GOOD)
    result = run("check-plugin", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"{path} keeps the contract of a reranker"
    assert "ok     reranker: the same again" in result.stdout
    write("x = 1\n")
    result = run("check-plugin", path)
    assert result.exit_code == 1 and result.stdout == ""
    assert "no class with a method select(grid) or rerank(model, query" in result.stderr


def test_the_example_of_the_readme_keeps_the_contract(write):
    (example,) = [part for part in README.read_text().split("```python\n") if "def rerank(" in part]
    path = write(example.partition("```")[0])
    assert set(check_reranker(str(path)).values()) == {None}
    model = load_model("tiny", device="cpu")
    found = make_reranker(str(path)).rerank(model, "the red fish", candidates_like(4), clip_tokens_for(model))
    assert all(0 <= one.rerank_score <= 1 for one in found)
