"""The retriever of anything by anything: the pipeline's own vectors and scores for clips, the papers' prompts to the
letter, batches that equal singles, and what can't be taken in one line.
"""

import dataclasses
import itertools
import math

import hypothesis
import numpy as np
import pytest
import small_models
import torch
from hypothesis import strategies as st
from PIL import Image
from test_audio import tone, write_wave

import lvqa
from lvqa import Item, LvqaError, Question, RetrievalTask, Retriever
from lvqa.config import load_config
from lvqa.embedding import Embedder
from lvqa.items import MAX_FRAMES, NAMES, as_item, frame_pairs
from lvqa.models import MODELS, load_model
from lvqa.models.forward import STATES
from lvqa.opening import VideoOpener
from lvqa.pairs import PACKINGS
from lvqa.prompts import LABELS, VIDEO_RETRIEVAL
from lvqa.rerank import RERANKERS, retllm
from lvqa.session import IndexSpec
from lvqa.visual_tokens import image_tokens

QUERY = "What colour is the ball?"
IMAGES = RetrievalTask(query="caption", candidate="image")
FIGURE_3 = RetrievalTask(query="image and news", query_topic="news", candidate="sentence", relation=("news", "topic"))
ON_THE_NEWS = """You are required to assess if the news is related to the topic.
Based on the image and news, output one word:
- Capture the semantics of the image and news. Favor the topic of the news.
- Do not use function words, prepositions, or symbols."""
ON_THE_SENTENCE = """You are required to assess if the news is related to the topic.
Based on the sentence, output one word:
- Capture the semantics of the sentence. Favor the topic of the sentence.
- Do not use function words, prepositions, or symbols."""
CHOICE = """A. Yes, the candidate fully matches the query.
B. No, the candidate does not match or only partially matches.
Answer with the option's letter from the given choices directly."""


def picture(seed: int, *, height: int = 60, width: int = 84) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def video(synthetic_video):
    return synthetic_video()


@pytest.fixture(scope="module")
def retriever_of(tiny, tmp_path_factory):
    """Make retrievers over the embedded model, which share a store."""
    store = tmp_path_factory.mktemp("store")

    def make(*overrides: str, task: RetrievalTask = VIDEO_RETRIEVAL, model=tiny) -> Retriever:
        config = load_config(None, (f"store.folder={store}", *overrides))
        return Retriever(model, config, task=task)

    return make


@pytest.fixture(scope="module")
def retriever(retriever_of) -> Retriever:
    return retriever_of()


@pytest.fixture(scope="module")
def clips(video) -> list[Item]:
    return [Item(video=video, start_seconds=16.0 * i, end_seconds=16.0 * i + 16) for i in range(3)]


@pytest.fixture(scope="module")
def mixed(video) -> list[Item]:
    """Items of every kind that the embedded model takes, and of several."""
    return [
        Item("A red ball lies on the table."),
        Item(image=picture(1)),
        Item(video=video, start_seconds=16, end_seconds=32),
        Item("the dog", image=picture(2, height=80)),
        Item("the dog", video=video, end_seconds=8),
        Item(video=video, num_frames=6),
        Item("a cat", image=picture(3), video=video, start_seconds=40),
        Item("x"),
    ]


# --- the pipeline's own -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_clips_have_the_vectors_of_the_index(make, video, retriever):
    qa = make()
    (indexer,) = qa.indexers
    with qa.open(video) as session:
        found_clips = indexer.clips_of(session)
    expected = indexer.embed_segment(qa.inspect_video(video), found_clips).vectors
    items = [Item(video=video, start_seconds=c.start_seconds, end_seconds=c.end_seconds) for c in found_clips]
    assert np.array_equal(retriever.embed(items), expected)
    assert np.array_equal(qa.retriever.embed(items[::-1]), retriever.embed(items[::-1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [(), ("rerank.layout=question_first",), ("rerank.name=retllm",), ("rerank.pool=0",)]
)
def test_a_search_among_a_videos_clips_is_the_pipelines(make, retriever_of, video, overrides):
    candidates = make(*overrides).search(video, QUERY, top=100)
    clips = [Item(video=video, start_seconds=c.start_seconds, end_seconds=c.end_seconds) for c in candidates]
    matches = retriever_of(*overrides).search(QUERY, clips)
    assert [match.index for match in matches] == list(range(len(candidates)))
    for match, candidate in zip(matches, candidates, strict=True):
        assert match.embed_score == pytest.approx(candidate.embed_score, abs=1e-3)  # an index is kept in float16
        if candidate.rerank_score is None:
            assert match.rerank_score is None
        else:
            assert match.rerank_score == pytest.approx(candidate.rerank_score, rel=1e-4)


def test_a_question_with_a_picture_is_one_item(make, retriever, video, tmp_path):
    Image.fromarray(picture(4)).save(tmp_path / "p.png")
    qa = make()
    with qa.open(video) as session:
        media = session.query_media(Question(QUERY, image=tmp_path / "p.png"))
    expected = qa.spec.embedder.queries(qa.model, [(QUERY, media)])
    assert np.array_equal(retriever.embed([Item(QUERY, image=tmp_path / "p.png")], side="query"), expected)


def test_the_default_prompts_and_fingerprints_are_those_of_before():
    """Literal values of lvqa before there was a retriever: an index that was made then is still found."""
    embedder = Embedder()
    assert embedder.query_prompt("Why?") == (
        "Why?\nYou are required to assess if the question is related to the video clip.\n"
        "Based on the question, output one word:\n"
        "- Capture the semantics of the question. Favor the topic of the question.\n"
        "- Do not use function words, prepositions, or symbols.",
    )
    assert embedder.to_dict() == {
        **{"state": "attention", "final_norm": False, "prompt": "freeret", "task": True, "semantics": True},
        "noise": True,
        "text": "You are required to assess if the video clip is related to the question.\n"
        "Based on the video clip, output one word:\n"
        "- Capture the semantics of the video clip. Favor the topic of the video clip.\n"
        "- Do not use function words, prepositions, or symbols.",
    }
    assert embedder.for_task(IMAGES).to_dict() != embedder.to_dict()
    assert lvqa.prompts.rerank("Why?", clip_first=True)[1].startswith(
        "Determine whether the candidate matches the query.\nQuery: Why?\nA. Yes"
    )
    assert lvqa.prompts.retllm_true("Why?").startswith("Does the video clip match the query: <Why?>? ")


# --- the papers' prompts ----------------------------------------------------------------------------------------------


def unit(states: torch.Tensor) -> np.ndarray:
    return (states / states.norm(dim=1, keepdim=True)).numpy()


def test_the_prompts_of_figure_3_are_read_to_the_letter(tiny, retriever_of):
    retriever = retriever_of(task=FIGURE_3)
    news, tokens = "On her second album she presents herself.", image_tokens(picture(1), tiny)
    on_both = tiny.last_hidden_states([("Given image:", tokens, f"{news}\n{ON_THE_NEWS}")])
    query = retriever.embed([Item(news, image=picture(1))], side="query")
    np.testing.assert_allclose(query, unit(on_both), atol=1e-6)
    sentence = "This topic of news relates to music."
    on_sentence = tiny.last_hidden_states([(f"{sentence}\n{ON_THE_SENTENCE}",)])
    np.testing.assert_allclose(retriever.embed([sentence]), unit(on_sentence), atol=1e-6)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("final_norm", [False, True])
def test_a_picture_alone_is_followed_by_the_prompt_in_every_state(tiny, retriever_of, state, final_norm):
    retriever = retriever_of(f"embedding.state={state}", f"embedding.final_norm={final_norm}", task=IMAGES)
    text = Embedder(nouns=IMAGES).candidate_prompt()[0]
    assert text.startswith("You are required to assess if the image is related to the caption.\nBased on the image,")
    prompt = (image_tokens(picture(1), tiny), text)
    expected = unit(tiny.last_hidden_states([prompt], state=state, final_norm=final_norm))
    np.testing.assert_allclose(retriever.embed([Item(image=picture(1))]), expected, atol=1e-6)


def test_e5v_names_the_task_and_each_constraint_can_be_left_out(tiny, retriever_of):
    e5v = retriever_of("embedding.prompt=e5v", task=IMAGES)
    (states,) = (tiny.last_hidden_states([("a dog\nSummary above caption in one word:",)]),)
    np.testing.assert_allclose(e5v.embed(["a dog"], side="query"), unit(states), atol=1e-6)
    bare = retriever_of("embedding.task=false", "embedding.noise=false", "embedding.semantics=false", task=IMAGES)
    states = tiny.last_hidden_states([("a dog\nBased on the caption, output one word:",)])
    np.testing.assert_allclose(bare.embed(["a dog"], side="query"), unit(states), atol=1e-6)


def probability(tiny, prompt, labels=("A", "B")) -> float:
    return float(tiny.next_token_logits([prompt], labels).double().softmax(1)[0, 0])


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
def test_candidates_of_every_kind_are_judged_by_the_papers_prompt(tiny, retriever_of, layout):
    retriever = retriever_of(f"rerank.layout={layout}", task=IMAGES)
    tokens = image_tokens(picture(1), tiny)
    query = "Determine whether the candidate matches the query.\nQuery: a dog\n"
    items = {
        "a text": ("a cat",),
        "a picture": (Item(image=picture(1)), tokens),
        "both": (Item("a cat", image=picture(1)), "Given image:", tokens),
    }
    for match in retriever.rerank("a dog", [item[0] for item in items.values()]):
        has_text = match.item.text
        shown_parts = list(items.values())[match.index][1:]
        lead, between = ("" if shown_parts else " "), "\n" if has_text else ""
        content = (*shown_parts[:-1], *shown_parts[-1:], f"{lead}a cat{between}") if has_text else shown_parts
        before, after = (f"{query}Candidate:", CHOICE) if layout == "question_first" else ("Candidate:", query + CHOICE)
        if shown_parts and isinstance(shown_parts[0], str):
            before += " "
        expected = probability(tiny, (before, *content, after))
        assert match.rerank_score == pytest.approx(expected, rel=1e-4), match


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_every_framing_judges_items(tiny, retriever_of, labels, kind):
    """Both orders too: their mean, whether what is judged can be a prefix or is read whole."""
    item, tokens = (
        (Item("a cat"), " a cat\n") if kind == "text" else (Item(image=picture(1)), image_tokens(picture(1), tiny))
    )
    means = []
    for both in (False, True):
        settings = (f"rerank.labels={labels}", f"rerank.both_orders={both}", "rerank.layout=question_first")
        means.append(retriever_of(*settings, task=IMAGES).rerank("a dog", [item])[0].rerank_score)
    plain, swapped = (lvqa.prompts.rerank("a dog", labels=labels, swapped=swapped) for swapped in (False, True))
    each = [probability(tiny, (before, tokens, after), LABELS[labels]) for before, after in (plain, swapped)]
    if labels == "letters":
        each[1] = 1 - each[1]
    assert means == pytest.approx([each[0], sum(each) / 2], rel=1e-4)


def test_the_tasks_own_sentences_are_in_the_prompt(tiny, retriever_of):
    task = RetrievalTask(
        **{"query": "question", "candidate": "answer", "instruction": "Determine whether the answer is correct."},
        **{"match": "The object is clearly present.", "mismatch": "The object is not present."},
    )
    (match,) = retriever_of("rerank.layout=question_first", task=task).rerank("Which animal?", ["a cat"])
    prompt = "Determine whether the answer is correct.\nQuery: Which animal?\nCandidate: a cat\n"
    prompt += "A. The object is clearly present.\nB. The object is not present.\n"
    prompt += "Answer with the option's letter from the given choices directly."
    assert match.rerank_score == pytest.approx(probability(tiny, (prompt,)), rel=1e-4)


@pytest.mark.parametrize("ratio", [0, 0.12, 0.3])
def test_retllm_asks_about_an_image_and_a_caption_as_its_program_does(tiny, retriever_of, ratio):
    retriever = retriever_of("rerank.name=retllm", f"rerank.options={{ratio: {ratio}}}", task=IMAGES)
    question = "Does the image match the caption: <a dog>? Please directly output True or False"
    (match,) = retriever.rerank("a dog", [Item(image=picture(1))])
    with tiny.visual_enhancement(ratio=ratio):
        logits = tiny.next_token_logits([(image_tokens(picture(1), tiny), question)])
    true, _ = tiny.first_tokens(["True", "False"])
    assert match.rerank_score == pytest.approx(float(logits.double().softmax(1)[0, true]), rel=1e-4)


def test_retllm_judges_as_many_as_it_says_and_a_written_score_is_read(retriever_of, monkeypatch, mixed):
    """The rest stays behind, in its order; ties are asked about once more, texts among them."""
    replies = iter(["Answer: 0.2", "Answer: 0.9", "Answer: 0.9"])
    retriever = retriever_of("rerank.name=retllm_paper", "rerank.options={top: 3, ratio: 0}", task=IMAGES)
    monkeypatch.setattr(type(retriever.model), "generate", lambda *_, **__: [next(replies)])
    matches = retriever.rerank("a dog", mixed)
    scores = [match.rerank_score for match in matches]
    assert [match.index for match in matches[2:]] == [0, 3, 4, 5, 6, 7] and scores[3:] == [None] * 5
    assert sorted(match.index for match in matches[:2]) == [1, 2] and scores[2] == 0.2
    assert 0.9 < scores[1] <= scores[0] <= 0.9 + retllm.MAX_TIE_BONUS


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def singles(retriever, mixed) -> np.ndarray:
    """The vectors of items that are embedded one by one."""
    return np.concatenate([retriever.embed([item]) for item in mixed])


@pytest.mark.slow
@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(data=st.data())
def test_a_vector_depends_on_its_item_alone(retriever, mixed, singles, data):
    chosen = data.draw(st.lists(st.integers(0, len(mixed) - 1), max_size=20))
    vectors = retriever.embed([mixed[i] for i in chosen])
    assert vectors.shape == (len(chosen), retriever.model.dim) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, singles[chosen], atol=2e-5)


@pytest.mark.parametrize("name", [name for name in RERANKERS if name != "retllm_paper"])
@pytest.mark.slow
def test_every_reranker_scores_an_item_as_if_it_were_alone(retriever_of, mixed, name):
    """By any query; `retllm_paper` writes its scores, which the embedded model never learned to."""
    retriever = retriever_of(
        f"rerank.name={name}", *(["rerank.options={top: null, ties: none}"] if "ret" in name else [])
    )
    for query in (QUERY, Item(image=picture(5)), Item("a dog", image=picture(5))):
        matches = retriever.search(query, mixed)
        assert sorted(match.index for match in matches) == list(range(len(mixed)))
        if name == "none":
            assert [match.rerank_score for match in matches] == [None] * len(mixed)
            continue
        scores = [match.rerank_score for match in matches]
        assert scores == sorted(scores, reverse=True)
        for match in matches:
            (alone,) = retriever.rerank(query, [match.item])
            assert math.isclose(match.rerank_score, alone.rerank_score, rel_tol=1e-3, abs_tol=1e-6)


@pytest.mark.slow
def test_a_search_ranks_by_the_cosine_and_reranks_the_pool(retriever, retriever_of, mixed):
    vectors, (query,) = retriever.embed(mixed), retriever.embed([QUERY], side="query")
    by_cosine = np.argsort(-(vectors @ query), kind="stable").tolist()
    plain = retriever.search(QUERY, mixed, pool=0)
    assert [match.index for match in plain] == by_cosine and plain[0].item is mixed[by_cosine[0]]
    assert [match.embed_score for match in plain] == pytest.approx(sorted(vectors @ query, reverse=True), abs=1e-6)
    pooled = retriever.search(QUERY, mixed, pool=3, vectors=vectors)
    assert [match.index for match in pooled[3:]] == by_cosine[3:] and {m.index for m in pooled[:3]} == {*by_cosine[:3]}
    assert [match.rerank_score is None for match in pooled] == [False] * 3 + [True] * (len(mixed) - 3)
    by_settings = retriever_of("rerank.pool=3").search(QUERY, mixed, vectors=vectors)
    assert [match.index for match in by_settings] == [match.index for match in pooled]
    rows = vectors.astype(np.float64) - vectors.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    centred = retriever_of("embedding.centre=true").search(QUERY, mixed, pool=0)
    assert [match.embed_score for match in centred] == pytest.approx(sorted(rows @ query, reverse=True), abs=1e-5)


def test_a_picture_is_the_same_from_a_file_an_array_and_pillow(retriever, tmp_path):
    Image.fromarray(picture(6)).save(tmp_path / "p.png")
    forms = [picture(6), Image.fromarray(picture(6)), tmp_path / "p.png", str(tmp_path / "p.png")]
    vectors = retriever.embed([Item(image=form) for form in forms])
    np.testing.assert_allclose(vectors, vectors[[0] * 4], atol=1e-6)
    Image.fromarray(picture(7)).save(tmp_path / "p.png")  # a file that changes is read anew
    (changed,) = retriever.embed([Item(image=tmp_path / "p.png")])
    assert float(changed @ vectors[0]) < 0.999


def test_nothing_to_embed_and_nothing_to_search(retriever):
    assert retriever.embed([]).shape == (0, retriever.model.dim)
    assert retriever.search(QUERY, []) == retriever.rerank(QUERY, []) == []


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS)
def test_a_long_video_is_seen_at_an_even_step(make, synthetic_video, packing):
    path = synthetic_video(minutes=2)
    with make().open(path) as session:
        num_grid = session.grid.num_frames
        for num_frames in (None, 1, 2, 5, 8, 100):
            pairs = frame_pairs(Item(video=path, num_frames=num_frames), session, packing)
            frames = sorted({frame for pair in pairs for frame in pair})
            bound = num_frames or MAX_FRAMES
            assert len(frames) == min(bound, num_grid) and pairs == sorted(pairs)
            assert max(np.diff(frames), default=1) <= math.ceil(num_grid / bound)
        whole = frame_pairs(Item(video=path, start_seconds=10, end_seconds=26), session, packing)
        assert {frame for pair in whole for frame in pair} == {*range(10, 26)}


# --- the plug-ins and the package -------------------------------------------------------------------------------------


def test_a_reranker_of_ones_own_judges_items(retriever_of, tmp_path):
    file = tmp_path / "longest.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from lvqa.rerank import as_prompt, best_first\n"
        "class Longest:\n"
        "    def rerank(self, model, requests):\n"
        "        answers = []\n"
        "        for request in requests:\n"
        "            clips = sorted(candidate.clip for candidate in request.candidates)\n"
        "            contents = dict(zip(clips, request.clips.read(clips)))\n"
        "            length = lambda c: model.prompt_length((request.query, *as_prompt(contents[c.clip])))[0]\n"
        "            answers.append(best_first(replace(c, rerank_score=length(c)) for c in request.candidates))\n"
        "        return answers\n"
    )
    retriever = retriever_of(f"rerank.name={file}")
    matches = retriever.rerank("a", ["b", "b c d e f g h", Item("b", image=picture(1)), Item(image=picture(1))])
    assert [match.index for match in matches][:1] == [2] and matches[-1].index == 0
    assert all(isinstance(match.rerank_score, int) for match in matches)


def test_the_package_has_the_retriever_and_loads_its_model(tmp_path):
    loaded = lvqa.Retriever.load(
        "tiny", config=load_config(None, [f"store.folder={tmp_path}"]), overrides=["rerank.pool=1"], task=IMAGES
    )
    assert loaded.config.rerank.pool == 1 and loaded.config.store.folder == tmp_path and loaded.task == IMAGES
    other = loaded.for_task(FIGURE_3)
    assert other.model is loaded.model and other.videos is loaded.videos and other.embedder.nouns == FIGURE_3
    with pytest.raises(LvqaError, match=r"embedding.state must be one of"):
        lvqa.Retriever.load("nowhere", overrides=["embedding.state=x"])


# --- every family, every kind -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def family_of(tmp_path_factory):
    models = {}

    def load(name: str):
        if name not in models:
            folder = small_models.save(name, tmp_path_factory.mktemp(name))
            models[name] = load_model(str(folder), device="cpu", dtype="float32")
        return models[name]

    return load


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_every_family_embeds_and_judges_items(retriever_of, family_of, mixed, name):
    retriever = retriever_of("rerank.both_orders=true", model=family_of(name))
    vectors = retriever.embed(mixed)
    np.testing.assert_allclose(vectors, np.concatenate([retriever.embed([item]) for item in mixed]), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len(np.unique(vectors.round(4), axis=0)) == len(mixed)
    matches = retriever.search(mixed[3], mixed)
    assert sorted(match.index for match in matches) == list(range(len(mixed)))
    assert all(0 <= match.rerank_score <= 1 for match in matches)


KINDS = ("text", "image", "video", "sound")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    return {
        name: write_wave(folder / f"{name}.wav", tone(seconds)[None])
        for name, seconds in (("sound", 1), ("voice", 0.7))
    }


def item_of(kinds, video, sounds) -> Item:
    """Make an item of these kinds."""
    values = {"text": "the dog", "image": picture(1), "video": video, **sounds}
    item = Item(**{kind: values[kind] for kind in kinds})
    return dataclasses.replace(item, end_seconds=8) if "video" in kinds else item


@pytest.mark.slow
def test_any_of_15_combinations_finds_any_other(retriever_of, family_of, video, sounds):
    """Section 4.4: four kinds make 15 combinations, and 225 pairs of a query and a target, by a model that hears."""
    combinations = [c for n in (1, 2, 3, 4) for c in itertools.combinations(KINDS, n)]
    items = [item_of(kinds, video, sounds) for kinds in combinations]
    assert len(items) == 15 and [len(item.kinds) for item in items] == [len(kinds) for kinds in combinations]
    retriever = retriever_of(model=family_of("qwen2_5_omni"))
    queries, candidates = retriever.embed(items, side="query"), retriever.embed(items)
    assert len(np.unique(queries.round(5), axis=0)) == len(np.unique(candidates.round(5), axis=0)) == 15
    pairs = {(i, m.index): m.rerank_score for i, item in enumerate(items) for m in retriever.rerank(item, items)}
    assert len(pairs) == 225 and all(0 < score < 1 for score in pairs.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "kinds", [("sound",), ("voice",), ("image", "voice"), ("text", "video"), ("text", "image"), ("image", "sound")]
)
def test_the_mixed_queries_of_figure_6_are_read_part_by_part(retriever_of, family_of, video, sounds, kinds):
    """A medium alone has no name before it; beside others each has one; who speaks asks a question."""
    omni = family_of("qwen2_5_omni")
    retriever, item = retriever_of(model=omni), item_of(kinds, video, sounds)
    (content,) = [*retriever.embed([item], side="query")]
    with retriever.videos.open(video) as session:
        (clip,) = session.tokens.clips([frame_pairs(item, session, "sampled")]) if "video" in kinds else (None,)
    tokens = {"image": image_tokens(picture(1), omni), "video": clip}
    tokens |= {name: omni.encode_audio(lvqa.audio.read_audio(path)) for name, path in sounds.items()}
    media = [kind for kind in NAMES if kind in kinds]
    named = len(kinds) > 1 or "voice" in kinds
    parts = [part for kind in media for part in ((NAMES[kind], tokens[kind]) if named else (tokens[kind],))]
    text = "the dog" if "text" in kinds else "what the spoken question asks for" if "voice" in kinds else ""
    parts.append(Embedder(wording="paper").query_prompt(text)[0])
    np.testing.assert_allclose(content, unit(omni.last_hidden_states([tuple(parts)]))[0], atol=1e-5)
    matches = retriever.search(
        item, [Item(video=video, start_seconds=8.0 * i, end_seconds=8.0 * i + 8) for i in range(4)]
    )
    assert sorted(match.index for match in matches) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_question_by_voice_is_one_item(retriever_of, family_of, make, sounds, video):
    omni = family_of("qwen2_5_omni")
    retriever = retriever_of(model=omni)
    question = Question("", voice=sounds["voice"])
    with retriever.videos.open(video) as session:
        media = session.query_media(question)
    (spec,) = IndexSpec.of(omni, retriever.config)
    expected = spec.embedder.queries(omni, [(lvqa.prompts.query(question), media)])
    assert np.array_equal(retriever.embed([Item(voice=sounds["voice"])], side="query"), expected)


# --- what can't be taken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "an item has nothing in it"),
        ({"text": "  "}, "an item has nothing in it"),
        ({"text": 5}, "the text of an item must be text, got 5"),
        ({"text": "\ud800"}, "no valid Unicode"),
        ({"image": 5}, "image must be a path, an array or a picture, got 5"),
        ({"video": ""}, "video must be a path, got ''"),
        ({"sound": 3.5}, "sound must be a path, got 3.5"),
        ({"text": "a", "start_seconds": 3}, "need its video"),
        ({"text": "a", "num_frames": 3}, "need its video"),
        ({"video": "a.mp4", "start_seconds": 3, "end_seconds": 3}, "must end after it starts: 3 to 3"),
        ({"video": "a.mp4", "start_seconds": -1}, "start_seconds must be a time in seconds, 0 or more, got -1"),
        ({"video": "a.mp4", "end_seconds": math.nan}, "end_seconds must be a time in seconds"),
        ({"video": "a.mp4", "num_frames": 0}, "num_frames must be a whole number, 1 or more, got 0"),
    ],
)
def test_what_is_no_item_is_refused_in_one_line(values, message):
    with pytest.raises(LvqaError, match=message) as caught:
        Item(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, v: r.embed("a text"), "items must be a list"),
        (lambda r, v: r.embed([5]), "an item must be a text or an lvqa.Item, got 5"),
        (lambda r, v: r.embed(["a", ""]), "an item has nothing in it"),
        (lambda r, v: r.embed(["a"], side="left"), "side must be one of query, candidate, got 'left'"),
        (lambda r, v: r.embed([Item(image="nowhere.png")]), "nowhere.png': there is no such file"),
        (lambda r, v: r.embed([Item(image=np.zeros((4, 4)))]), r"must be \(height, width, 3\) uint8, got \(4, 4\)"),
        (lambda r, v: r.embed([Item(image=np.zeros((1, 900, 3), np.uint8))]), "is 1 x 900: one side"),
        (lambda r, v: r.embed([Item(video="nowhere.mp4")]), "nowhere.mp4"),
        (lambda r, v: r.embed([Item(video=v, start_seconds=1e6)]), "has no frame from"),
        (lambda r, v: r.embed([Item(sound=v)]), "sound .* cannot be read"),
        (lambda r, v: r.search("a", ["b"], pool=-1), "pool must be a whole number, 0 or more"),
        (lambda r, v: r.search("a", ["b"], vectors=np.zeros((2, 3))), "vectors must be"),
        (lambda r, v: r.search(None, ["b"]), "an item must be a text"),
        (lambda r, v: r.rerank("a", "bcd"), "items must be a list"),
    ],
)
def test_what_cant_be_read_is_refused_in_one_line(retriever, video, call, message):
    with pytest.raises(LvqaError, match=message) as caught:
        call(retriever, video)
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_hear_says_so(retriever, sounds):
    for kind in sounds:
        with pytest.raises(LvqaError, match="'tiny' does not hear"):
            retriever.search(Item(**{kind: sounds[kind]}), ["a"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"query": ""}, "query of a retrieval task must be a text"),
        ({"candidate": 3}, "candidate of a retrieval task must be a text, got 3"),
        ({"relation": ("news",)}, "relation must be two nouns"),
        ({"relation": ("news", " ")}, "relation of a retrieval task must be a text"),
        ({"query_topic": ""}, "query_topic of a retrieval task"),
        ({"match": ""}, "match of a retrieval task"),
    ],
)
def test_what_is_no_task_is_refused(values, message):
    with pytest.raises(LvqaError, match=message):
        RetrievalTask(**values)


def test_items_have_nouns():
    nouns = [
        as_item("a"),
        Item(image="a.png"),
        Item("a", image="a.png"),
        Item(video="a.mp4"),
        Item(video="a", end_seconds=3),
    ]
    assert [item.noun for item in nouns] == ["text", "image", "image and text", "video", "video clip"]


@pytest.mark.slow
def test_an_opener_can_be_shared(tiny, tmp_path, video, clips):
    config = load_config(None, [f"store.folder={tmp_path}"])
    videos = VideoOpener(tiny, config)
    first, second = (Retriever(tiny, config, videos=videos) for _ in range(2))
    first.embed(clips)
    decoded = tiny.counts.frames_decoded
    second.embed(clips)
    assert tiny.counts.frames_decoded == decoded
