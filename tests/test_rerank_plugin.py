"""Rerankers of one's own, from a file: they work like the others, and what is wrong with them is one line."""

import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner
from reranking import rerank

from lvqa.cli.main import lvqa_command
from lvqa.records import LvqaError
from lvqa.rerank import make_reranker
from lvqa.rerank.contract import CHECKS, candidates_like, check_reranker

PLUGINS_PAGE = Path(__file__).parent.parent / "docs" / "plugins.md"

GOOD = """
    from dataclasses import dataclass, replace


    @dataclass(frozen=True, kw_only=True)
    class Latest:
        '''The later the better.'''

        sign: int = 1

        def rerank(self, model, requests):
            return [self.rerank_one(request.candidates) for request in requests]

        def rerank_one(self, candidates):
            scored = [replace(one, rerank_score=self.sign * one.start_seconds) for one in candidates]
            return sorted(scored, key=lambda one: -one.rerank_score)
"""

COUNTDOWN = "countdown = iter(range(0, -9999, -1))"


@pytest.fixture
def write(write_plugin):
    return write_plugin


def reranking(body: str, before: str = "") -> str:
    """Return a file with one reranker; its answer to each request is what this body returns."""
    return f"""
from dataclasses import replace
{before}

class Mine:
    def rerank(self, model, requests):
        return [self.answer(model, one.query, list(one.candidates), one.clips) for one in requests]

    def answer(self, model, query, candidates, clips):
{textwrap.indent(textwrap.dedent(body).strip(), " " * 8)}
"""


def answering(body: str) -> str:
    """Return a file with one reranker whose `rerank` has this body."""
    return f"class Mine:\n    def rerank(self, model, requests):\n        {body}\n"


def run(*words: object):
    return CliRunner().invoke(lvqa_command, [str(word) for word in words])


def test_a_reranker_from_a_file_is_one_like_the_others(write):
    path = write(GOOD)
    for name, options, best in ((str(path), {}, 48.0), (f"{path}:Latest", {"sign": -1}, 0.0)):
        reranker = make_reranker(name, options, layout="clip_first")
        assert rerank(reranker, None, candidates_like(4), query="?")[0].start_seconds == best
    with pytest.raises(LvqaError, match=r"unknown option 'top' of rerank.name .*mine.py.*; it takes: sign"):
        make_reranker(str(path), {"top": 2})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "has no class with a method rerank(model, requests): none"),
        (reranking("x = 1\nreturn query.there"), "mine.py:11: AttributeError"),
        (answering("return None"), "Mine.rerank gives None and no list with an item for each request"),
        (answering("return []"), "Mine.rerank gives [] and no list with an item for each request"),
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
def test_what_is_wrong_is_one_line_with_the_file(write, source, message):
    path = write(source)
    with pytest.raises(LvqaError) as caught:
        rerank(make_reranker(str(path)), None, candidates_like(3), query="?")
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "failing", "message"),
    [
        (GOOD, set(), ""),
        (reranking("candidates.pop()\nreturn candidates"), {*CHECKS}, "0 times; it was given 1 times"),
        (
            reranking("return [replace(one, rerank_score=next(countdown)) for one in candidates]", COUNTDOWN),
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
                "cache = clips.prefix_cache\n"
                "size = 0.0 if cache is None else float(len(cache))\n"
                "if cache is not None:\n"
                "    (prefix,) = model.prefill_prefix([(next(clips.read([candidates[0].clip])),)])\n"
                "    cache['prefix'] = prefix\n"
                "return [replace(one, rerank_score=size) for one in candidates]"
            ),
            {"the same after other questions", "the same among other requests"},
            "what was read before (prefix_cache)",
        ),
        (
            reranking("list(clips.read([one.clip for one in candidates]))\nreturn candidates"),
            {*CHECKS},
            "not in the order of time",
        ),
        (answering("return [list(one.candidates) for one in requests[:1]]"), {"the same among other requests"}, "each"),
    ],
    ids=["good", "breaks", "random", "batch", "prefix_cache", "order", "first"],
)
def test_what_fails_is_named(write, source, failing, message):
    problems = {name: problem for name, problem in check_reranker(str(write(source))).items() if problem}
    assert set(problems) == failing
    assert all("\n" not in problem for problem in problems.values())
    assert message in "".join(problems.values())


def test_the_command_knows_rerankers_from_selectors(write):
    path = write(GOOD)
    result = run("check-plugin", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"{path} keeps the contract of a reranker"
    assert "ok     reranker: the same again" in result.stdout
    write("x = 1\n")
    result = run("check-plugin", path)
    assert result.exit_code == 1 and result.stdout == ""
    assert "no class with a method select(inputs) or rerank(model, requests)" in result.stderr


@pytest.mark.slow
def test_the_example_of_the_docs_keeps_the_contract(tiny, write):
    (example,) = [part for part in PLUGINS_PAGE.read_text().split("```python\n") if "def rerank(" in part]
    path = write(example.partition("```")[0])
    assert set(check_reranker(str(path)).values()) == {None}
    answer = rerank(make_reranker(str(path)), tiny, candidates_like(4), query="the red fish")
    assert all(0 <= candidate.rerank_score <= 1 for candidate in answer)
