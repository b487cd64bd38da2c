"""FreeRet's own words, to the letter, and who is asked with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import small_models
import torch

from lvqa import prompts
from lvqa.config import load_config
from lvqa.embedding import Embedder
from lvqa.index import fingerprint
from lvqa.models import load_model
from lvqa.models.prompt import ClipTokens
from lvqa.pipeline import LongVideoQA
from lvqa.prompts import RetrievalTask
from lvqa.records import LvqaError
from lvqa.rerank import MultipleChoice
from lvqa.rerank.scoring import join_content
from lvqa.session import IndexSpec

NEWS = RetrievalTask(query="image and news", query_topic="news", candidate="sentence", relation=("news", "topic"))
CLIP = ClipTokens(torch.zeros(1, 4, 8), 2, 2)


def test_figure_3_is_to_the_letter() -> None:
    embedder = Embedder(wording="paper", nouns=NEWS)
    assert embedder.query_prompt("On her second album", media=(CLIP,)) == (
        CLIP,
        "On her second album\n"
        "You are required to assess if the news is related to the topic.\n"
        "Based on image and news, output one word:\n"
        "\u2022 Capture the semantics of the image and news. Favor the topic of the news.\n"
        "\u2022 Do not use function words, prepositions, or symbols.",
    )
    assert embedder.candidate_prompt("This topic of news relates to music.") == (
        "This topic of news relates to music.\n"
        "You are required to assess if the news is related to the topic.\n"
        "Based on sentence, output one word:\n"
        "\u2022 Capture the semantics of the sentence. Favor the topic of the sentence.\n"
        "\u2022 Do not use function words, prepositions, or symbols.",
    )


def test_both_sides_of_a_video_have_one_task_sentence() -> None:
    embedder = Embedder(wording="paper")
    sentence = "\nYou are required to assess if the video clip is related to the question.\n"
    (_, of_clip), (of_question,) = embedder.clip_prompt(CLIP), embedder.query_prompt("Who wins?")
    assert sentence in of_clip and sentence in of_question
    assert of_clip.startswith(sentence), "what follows the content is on a line of its own, as in equation 1"


def test_equation_1_is_to_the_letter() -> None:
    embedder = Embedder(wording="paper", prompt="e5v")
    assert embedder.clip_prompt(CLIP) == (CLIP, "\nSummary above content in one word:")
    assert embedder.query_prompt("Who wins?") == ("Who wins?\nSummary above content in one word:",)


def test_section_3_4_is_to_the_letter() -> None:
    before, after = prompts.rerank("Who wins?", wording="paper")
    assert f"{before}[clip]{after}" == (
        "Task: Determine whether the candidate matches the query.\n"
        "Query: Who wins?\n"
        "Candidate: [clip]\n"
        "A. Yes, the candidate fully matches the query.\n"
        "B. No, the candidate does not match or only partially matches."
    )
    assert "".join(join_content((before,), ("a text",), (after,))) == f"{before}a text{after}"


@pytest.mark.parametrize(
    ("labels", "last"),
    [
        ("yes_no", "Answer the question only with 'Yes' or 'No'."),
        ("true_false", "Answer the question only with 'True' or 'False'."),
        ("right_wrong", "Answer the question only with 'Right' or 'Wrong'."),
    ],
)
def test_figure_4_is_to_the_letter(labels: str, last: str) -> None:
    assert prompts.rerank("Who wins?", labels=labels, wording="paper")[1] == f"\n{last}"


@pytest.mark.parametrize("wording", prompts.WORDINGS)
@pytest.mark.parametrize("labels", prompts.LABELS)
def test_the_lead_of_a_prompt_with_the_clip_first_is_its_beginning(wording: str, labels: str) -> None:
    _, after = prompts.rerank("Who wins?", labels=labels, wording=wording, clip_first=True)
    assert after.startswith(prompts.rerank_lead(wording=wording, clip_first=True))
    before, _ = prompts.rerank("Who wins?", labels=labels, wording=wording)
    assert before.startswith(prompts.rerank_lead(wording=wording))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in a real layout, which does not say how it wants to be asked."""
    return small_models.save("qwen2_5_vl", tmp_path_factory.mktemp("model"))


@pytest.mark.slow
def test_each_model_is_asked_in_its_own_words(folder: Path, tmp_path: Path) -> None:
    real, tiny = load_model(str(folder), device="cpu"), load_model("tiny", device="cpu")
    assert (real.prompts, tiny.prompts) == ("paper", "lvqa")
    for model, overrides, expected in (
        (real, [], "paper"),
        (tiny, [], "lvqa"),
        (real, ["prompts=lvqa"], "lvqa"),
        (tiny, ["prompts=paper"], "paper"),
    ):
        qa = LongVideoQA(model, load_config(None, [f"store.folder={tmp_path}", *overrides]))
        assert isinstance(qa.retriever.reranker, MultipleChoice)
        assert (qa.spec.embedder.wording, qa.retriever.reranker.wording) == (expected, expected)


def test_wordings_have_indexes_and_rankings_of_their_own(folder: Path) -> None:
    model, config = load_model(str(folder), device="cpu"), load_config()
    specs = [IndexSpec.of(model, dataclasses.replace(config, prompts=name))[0].to_dict() for name in prompts.WORDINGS]
    assert fingerprint(specs[0]) != fingerprint(specs[1])
    settings = [dataclasses.replace(config, prompts=name).retrieval for name in prompts.WORDINGS]
    assert settings[0] != settings[1]


def test_a_wording_that_is_not_known_is_refused() -> None:
    with pytest.raises(LvqaError, match=r"prompts must be one of lvqa, paper, or null"):
        load_config(None, ["prompts=mine"])
    with pytest.raises(LvqaError, match="wording"):
        MultipleChoice(wording="mine")
