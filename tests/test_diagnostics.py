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

from lvqa.cli.main import lvqa_command
from lvqa.config import load_config
from lvqa.diagnostics import LABELS, TOP_WORDS, depth_of, diagnose_model
from lvqa.models import load_model
from lvqa.models.chat import collate
from lvqa.pipeline import LongVideoQA
from lvqa.records import Question
from lvqa.report import write_diagnostics
from lvqa.synthetic.videos import make_videos

QUERY = "What colour is the boat?"


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    (path,) = make_videos(tmp_path_factory.mktemp("films"), num_videos=1, minutes=1, num_questions=6, seed=11)
    return path


@pytest.fixture(scope="module")
def qa(tmp_path_factory) -> LongVideoQA:
    config = load_config(None, ["video.clip_seconds=8"])
    store = dataclasses.replace(config.store, folder=tmp_path_factory.mktemp("store"))
    return LongVideoQA(load_model("tiny", device="cpu"), dataclasses.replace(config, store=store))


@pytest.fixture(scope="module")
def probes(qa, film):
    return diagnose_model(qa, film, query=QUERY, num_clips=3)


def library_output(qa, prompt):
    """Of the library's whole model, of a prompt without a clip."""
    batch = collate([qa.model.encode_prompt(prompt)])
    with torch.no_grad():
        return qa.model.library(batch.ids, output_hidden_states=True, use_cache=False)


def test_alpha_and_beta_are_the_papers_formulas(qa):
    """By the library's hidden states, which are those after each MLP, the last one normed."""
    prompt = qa.embedder.query_prompt(QUERY)
    found, output = depth_of(qa.model, [prompt]), library_output(qa, prompt)
    after_mlp = [state[0, -1] for state in output.hidden_states]
    after_attention = qa.model.last_hidden_states([prompt])[0]
    word = qa.model.library.lm_head.weight[output.logits[0, -1].argmax()]

    def cosine(one, other) -> float:
        return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))

    layers = len(after_mlp) - 1
    assert found.similarity.shape == found.alignment.shape == (1, 2 * layers)
    assert found.similarity[0, -2] == pytest.approx(cosine(after_mlp[-2], after_attention), abs=1e-5)
    assert found.similarity_normed[0] == pytest.approx(cosine(after_attention, after_mlp[-1]), abs=1e-5)
    betas = [cosine(state, word) for state in after_mlp[1:-1]]
    assert found.alignment[0, 1:-1:2] == pytest.approx(betas, abs=1e-5)
    assert found.alignment_normed[0] == pytest.approx(cosine(after_mlp[-1], word), abs=1e-5)


def test_clips_are_evenly_spaced_and_the_query_stands_beside_them(probes):
    assert probes.clips == ((8.0, 16.0), (32.0, 40.0), (48.0, 56.0))
    assert {name: len(depth.similarity) for name, depth in probes.depth.items()} == {"clips": 3, "query": 1}
    assert [(words.prompt, words.of, len(words.each)) for words in probes.words] == [
        *(("e5v", "clips", 3), ("e5v", "query", 1), ("freeret", "clips", 3), ("freeret", "query", 1))
    ]


def test_words_are_those_that_the_model_says(qa, probes):
    (found,) = (words for words in probes.words if (words.prompt, words.of) == ("freeret", "query"))
    shares, tokens = library_output(qa, qa.embedder.query_prompt(QUERY)).logits[0, -1].softmax(-1).topk(TOP_WORDS)
    assert [word for word, _ in found.mean] == [qa.model.tokenizer.decode([token]) for token in tokens]
    assert [share for _, share in found.mean] == pytest.approx(shares.tolist(), abs=1e-5)
    assert found.mean == found.each[0]


def test_the_reranking_prompt_is_probed_without_a_question(qa, film):
    """The shares of A and B have the ratio of the logits that reranking compares."""
    from lvqa import prompts

    found = {bias.context: bias for bias in diagnose_model(qa, film, num_clips=1).bias}
    bias = found["reranking, question 'N/A', no clip"]
    prompt = prompts.rerank("N/A", clip_first=qa.model.rerank_layout == "clip_first")
    first, second = qa.model.next_token_logits([prompt], ["A", "B"])[0].tolist()
    assert np.log(bias.probabilities[0] / bias.probabilities[1]) == pytest.approx(first - second, abs=0.01)
    assert bias.deviations == (0.0, 0.0)
    assert {bias.labels for bias in found.values()} <= {*LABELS}


def test_a_short_film_has_fewer_clips_and_no_index_is_made(qa, film):
    assert len(diagnose_model(qa, film, num_clips=99).clips) == 8
    assert not (qa.config.store.folder / "index").exists()


def test_the_files_are_pictures_and_json(probes, tmp_path):
    files = {path.name: path.read_bytes() for path in write_diagnostics(probes, tmp_path / "new")}
    assert sorted(files) == ["bias.png", "depth.png", "diagnostics.json", "words.png"]
    assert all(content.startswith(b"\x89PNG") for name, content in files.items() if name.endswith(".png"))
    told = json.loads(files["diagnostics.json"])
    assert np.shape(told["depth"]["clips"]["similarity"]) == np.shape(probes.depth["clips"].similarity)
    assert told["query"] == QUERY and len(told["words"]) == 4


def test_every_framing_judges_the_clip_of_the_evidence_and_one_half_a_film_away(qa, film):
    """Scores are those of reranking: the softmax over the two labels."""
    from lvqa import prompts

    asked = [Question("Is it red?", evidence_seconds=(20, 23)), Question("What is it about?", evidence_seconds=(0, 60))]
    framings = diagnose_model(qa, film, num_clips=1, questions=asked).framings
    assert {framing.labels for framing in framings} == {*prompts.LABELS.values()}
    opened = qa.open(film)
    for framing in framings:
        (name,) = (name for name, labels in prompts.LABELS.items() if labels == framing.labels)
        before, after = prompts.rerank("Is it red?", labels=name, clip_first=True)
        for first_second, score in ((16, framing.matching[0]), (48, framing.others[0])):
            (block,) = opened.tokens.clips([[(k, k + 1) for k in range(first_second, first_second + 8, 2)]])
            logits = qa.model.next_token_logits([(before, block, after)], framing.labels)
            assert score == pytest.approx(float(logits.softmax(1)[0, 0]), abs=1e-4)
        assert framing.right == (framing.matching[0] > 0.5, framing.others[0] < 0.5)
        assert framing.preferred == (framing.matching[0] > framing.others[0],)


def test_the_command_writes_them(film, tmp_path):
    out, folder = tmp_path / "out", film.parent.parent
    words = ["--clips", "2", "--out", str(out), "--model", "tiny", "--quiet", "--questions", str(folder)]
    done = CliRunner().invoke(lvqa_command, ["diagnose", str(film), *words])
    assert done.exit_code == 0, done.output
    assert len(list(out.iterdir())) == 5 and "alpha" in done.output and "A/B: " in done.output
    assert (out / "framing.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--clips", "0"], "clips must be a whole number, 1 or more"),
        (["--query", " "], "the question is empty"),
        (["--questions", "nowhere"], "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_model_is_loaded(film, tmp_path, words, named):
    done = CliRunner().invoke(lvqa_command, ["diagnose", str(film), "--out", str(tmp_path / "out"), *words])
    assert done.exit_code == 1 and named in done.output
