"""The diagnostics: their formulas against the library's own states, their files, and the command.

Nothing here depends on how well the model was trained.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lvqa import prompts
from lvqa.cli.main import lvqa_command
from lvqa.config import load_config
from lvqa.diagnostics import LABELS, TOP_WORDS, depth_of, diagnose_model
from lvqa.models.chat import collate
from lvqa.pipeline import LongVideoQA
from lvqa.records import Question
from lvqa.report import write_diagnostics

QUERY = "What colour is the boat?"


@pytest.fixture(scope="module")
def video(synthetic_video) -> Path:
    return synthetic_video(minutes=1, seed=11, num_questions=6)


@pytest.fixture(scope="module")
def qa(tiny, tmp_path_factory) -> LongVideoQA:
    config = load_config(None, ["video.clip_seconds=8"])
    store = dataclasses.replace(config.store, folder=tmp_path_factory.mktemp("store"))
    return LongVideoQA(tiny, dataclasses.replace(config, store=store))


@pytest.fixture(scope="module")
def diagnostics(qa, video):
    return diagnose_model(qa, video, query=QUERY, num_clips=3)


def library_output(qa, prompt):
    """Return the output of the library's whole model for a prompt without a clip."""
    batch = collate([qa.model.encode_prompt(prompt)])
    with torch.no_grad():
        return qa.model.library(batch.ids, output_hidden_states=True, use_cache=False)


def test_alpha_and_beta_are_the_papers_formulas(qa):
    """The library's hidden states are those after each MLP, the last one normed."""
    prompt = qa.spec.embedder.query_prompt(QUERY)
    depth, output = depth_of(qa.model, [prompt]), library_output(qa, prompt)
    after_mlp = [state[0, -1] for state in output.hidden_states]
    after_attention = qa.model.last_hidden_states([prompt])[0]
    word = qa.model.library.lm_head.weight[output.logits[0, -1].argmax()]

    def cosine(one, other) -> float:
        return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))

    layers = len(after_mlp) - 1
    assert depth.similarity.shape == depth.alignment.shape == (1, 2 * layers)
    assert depth.similarity[0, -2] == pytest.approx(cosine(after_mlp[-2], after_attention), abs=1e-5)
    assert depth.similarity_normed[0] == pytest.approx(cosine(after_attention, after_mlp[-1]), abs=1e-5)
    betas = [cosine(state, word) for state in after_mlp[1:-1]]
    assert depth.alignment[0, 1:-1:2] == pytest.approx(betas, abs=1e-5)
    assert depth.alignment_normed[0] == pytest.approx(cosine(after_mlp[-1], word), abs=1e-5)


@pytest.mark.slow
def test_clips_are_evenly_spaced_and_the_query_is_diagnosed_too(diagnostics):
    assert diagnostics.clips == ((8.0, 16.0), (32.0, 40.0), (48.0, 56.0))
    assert {name: len(depth.similarity) for name, depth in diagnostics.depth.items()} == {"clips": 3, "query": 1}
    assert [(words.prompt, words.source, len(words.each)) for words in diagnostics.words] == [
        *(("e5v", "clips", 3), ("e5v", "query", 1), ("freeret", "clips", 3), ("freeret", "query", 1))
    ]


@pytest.mark.slow
def test_words_are_those_that_the_model_would_reply(qa, diagnostics):
    (words,) = (words for words in diagnostics.words if (words.prompt, words.source) == ("freeret", "query"))
    shares, tokens = library_output(qa, qa.spec.embedder.query_prompt(QUERY)).logits[0, -1].softmax(-1).topk(TOP_WORDS)
    assert [word for word, _ in words.mean] == [qa.model.tokenizer.decode([token]) for token in tokens]
    assert [share for _, share in words.mean] == pytest.approx(shares.tolist(), abs=1e-5)
    assert words.mean == words.each[0]


def test_the_reranking_prompt_is_diagnosed_without_a_question(qa, video):
    """The shares of A and B have the ratio of the logits that reranking compares."""
    biases = {bias.context: bias for bias in diagnose_model(qa, video, num_clips=1).bias}
    bias = biases["reranking, question 'N/A', no clip"]
    prompt = prompts.rerank("N/A", clip_first=qa.model.rerank_layout == "clip_first")
    first, second = qa.model.next_token_logits([prompt], ["A", "B"])[0].tolist()
    assert np.log(bias.probabilities[0] / bias.probabilities[1]) == pytest.approx(first - second, abs=0.01)
    assert bias.deviations == (0.0, 0.0)
    assert {bias.labels for bias in biases.values()} <= {*LABELS}


@pytest.mark.slow
def test_a_short_video_has_fewer_clips_and_no_index_is_made(qa, video):
    assert len(diagnose_model(qa, video, num_clips=99).clips) == 8
    assert not (qa.config.store.folder / "index").exists()


@pytest.mark.slow
def test_the_files_are_pictures_and_json(diagnostics, tmp_path):
    files = {path.name: path.read_bytes() for path in write_diagnostics(diagnostics, tmp_path / "new")}
    assert sorted(files) == ["bias.png", "depth.png", "diagnostics.json", "words.png"]
    assert all(content.startswith(b"\x89PNG") for name, content in files.items() if name.endswith(".png"))
    content = json.loads(files["diagnostics.json"])
    assert np.shape(content["depth"]["clips"]["similarity"]) == np.shape(diagnostics.depth["clips"].similarity)
    assert content["query"] == QUERY and len(content["words"]) == 4


@pytest.mark.slow
def test_every_framing_judges_the_clip_of_the_evidence_and_one_half_a_video_away(qa, video):
    """Scores are those of reranking: the softmax over the two labels."""
    questions = [
        Question("Is it red?", evidence_seconds=(20, 23)),
        Question("What is it about?", evidence_seconds=(0, 60)),
    ]
    framings = diagnose_model(qa, video, num_clips=1, questions=questions).framings
    assert {framing.labels for framing in framings} == {*prompts.LABELS.values()}
    with qa.open(video) as session:
        tokens = session.tokens
    for framing in framings:
        (name,) = (name for name, labels in prompts.LABELS.items() if labels == framing.labels)
        before, after = prompts.rerank("Is it red?", labels=name, clip_first=True)
        for first_second, score in ((16, framing.matching[0]), (48, framing.others[0])):
            (clip,) = tokens.clips([[(k, k + 1) for k in range(first_second, first_second + 8, 2)]])
            logits = qa.model.next_token_logits([(before, clip, after)], framing.labels)
            assert score == pytest.approx(float(logits.softmax(1)[0, 0]), abs=1e-4)
        assert framing.correct == (framing.matching[0] > 0.5, framing.others[0] < 0.5)
        assert framing.preferred == (framing.matching[0] > framing.others[0],)


@pytest.mark.slow
def test_the_command_writes_them(video, tmp_path):
    out, folder = tmp_path / "out", video.parent.parent
    arguments = ["--clips", "2", "--out", str(out), "--model", "tiny", "--quiet", "--questions", str(folder)]
    result = CliRunner().invoke(lvqa_command, ["diagnose", str(video), *arguments])
    assert result.exit_code == 0, result.output
    assert len(list(out.iterdir())) == 5 and "alpha" in result.output and "A/B: " in result.output
    assert (out / "framing.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", "0"], "clips must be a whole number, 1 or more"),
        (["--query", " "], "the question is empty"),
        (["--questions", "nowhere"], "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_model_is_loaded(video, tmp_path, arguments, message):
    result = CliRunner().invoke(lvqa_command, ["diagnose", str(video), "--out", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 1 and message in result.output
