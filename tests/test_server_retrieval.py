"""`/v1/embeddings`, with OpenAI's client, and `/v1/rerank`: the numbers are the retriever's, the media are safe."""

import base64
import re
import shutil

import numpy as np
import openai
import pytest
from servers import call_json, running_server

from lvqa import Item, RetrievalTask
from lvqa.image import picture_bytes
from lvqa.server.guard import MAX_BODY_BYTES
from lvqa.server.retrieval_schemas import MAX_ITEM_CHARACTERS, MAX_ITEMS

QUESTION = "What colour is the ball?"
PIXELS = np.random.default_rng(3).integers(0, 256, (60, 84, 3), dtype=np.uint8)
NOUNS = {"query": "caption", "candidate": "image"}


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


PICTURE = data_url(picture_bytes(PIXELS, "png"), "image/png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, synthetic_video):
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(synthetic_video(seed=710), folder / "a.mp4")
    (folder / "p.png").write_bytes(picture_bytes(PIXELS, "png"))
    (folder.parent / "secret.png").write_bytes(picture_bytes(PIXELS, "png"))
    return folder


@pytest.fixture(scope="module")
def url(tiny, tmp_path_factory, folder):
    with running_server(tiny, tmp_path_factory.mktemp("store"), folder) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def retriever(make):
    return make().retriever


def embed(client, content, **options) -> np.ndarray:
    response = client.embeddings.create(model="lvqa", input=content, extra_body=options)
    assert [row.index for row in response.data] == list(range(len(response.data)))
    return np.array([row.embedding for row in response.data], np.float32)


def test_texts_are_embedded_as_questions(client, retriever):
    """By the official client, which asks for base64 and decodes it."""
    expected = retriever.embed([QUESTION, "a dog"], side="query")
    np.testing.assert_allclose(embed(client, [QUESTION, "a dog"]), expected, atol=1e-6)
    np.testing.assert_allclose(embed(client, QUESTION), expected[:1], atol=1e-6)
    (as_document,) = embed(client, QUESTION, input_type="document")
    np.testing.assert_allclose(as_document, retriever.embed([QUESTION])[0], atol=1e-6)


def test_numbers_are_the_same_in_both_formats_and_tokens_are_counted(client, tiny):
    rows = [
        client.embeddings.create(model="tiny", input=[QUESTION], encoding_format=form, dimensions=tiny.dim)
        for form in ("float", "base64")
    ]
    as_float, as_text = (row.data[0].embedding for row in rows)
    decoded = np.frombuffer(base64.b64decode(as_text), "<f4") if isinstance(as_text, str) else np.array(as_text)
    np.testing.assert_allclose(decoded, as_float, atol=1e-6)
    assert np.linalg.norm(as_float) == pytest.approx(1, abs=1e-5) and rows[0].model == "tiny"
    usage = rows[0].usage
    assert usage.prompt_tokens == usage.total_tokens == rows[1].usage.prompt_tokens > len(QUESTION.split())


@pytest.mark.slow
def test_pictures_videos_and_clips_are_embedded(client, retriever, folder, url):
    video = call_json(url, "GET", "/api/videos")[1]["videos"][0]["id"]
    path = folder / "a.mp4"
    pairs = {
        "a picture": ({"image": PICTURE}, Item(image=PIXELS)),
        "its file": ({"image": f"file://{folder / 'p.png'}"}, Item(image=PIXELS)),
        "both": ({"image": PICTURE, "text": "a dog"}, Item("a dog", image=PIXELS)),
        "a video": ({"video": video, "num_frames": 8}, Item(video=path, num_frames=8)),
        "a clip": ({"video": str(path), "start_seconds": 16, "end_seconds": 32}, None),
        "parts": ([{"type": "text", "text": "a dog"}, {"type": "image_url", "image_url": {"url": PICTURE}}], None),
        "a file": ([{"type": "file", "file": {"file_id": f"file-{video}"}}, {"type": "text", "text": "a dog"}], None),
    }
    items = {name: item for name, (_, item) in pairs.items()}
    items["a clip"] = Item(video=path, start_seconds=16, end_seconds=32)
    items["parts"], items["a file"] = items["both"], Item("a dog", video=path)
    sent = [body for body, _ in pairs.values()]
    np.testing.assert_allclose(embed(client, sent), retriever.embed(list(items.values())), atol=2e-5)


def test_parts_alone_are_one_item_and_a_task_has_its_own_nouns(client, retriever):
    parts = [{"type": "image_url", "image_url": {"url": PICTURE}}]
    task = RetrievalTask(**NOUNS)
    (vector,) = embed(client, parts, task=NOUNS)
    np.testing.assert_allclose(vector, retriever.for_task(task).embed([Item(image=PIXELS)])[0], atol=1e-6)
    assert float(vector @ embed(client, parts)[0]) < 0.9999


@pytest.mark.slow
def test_documents_are_reranked(url, retriever, folder):
    documents = ["a cat", {"image": PICTURE}, {"video": str(folder / "a.mp4"), "end_seconds": 8}, {"text": "a dog"}]
    items = ["a cat", Item(image=PIXELS), Item(video=folder / "a.mp4", end_seconds=8), "a dog"]
    body = {"model": "lvqa", "query": QUESTION, "documents": documents}
    status, content = call_json(url, "POST", "/v1/rerank", body)
    assert status == 200, content
    matches = retriever.rerank(QUESTION, items)
    assert [result["index"] for result in content["results"]] == [match.index for match in matches]
    scores = [result["relevance_score"] for result in content["results"]]
    assert scores == pytest.approx([match.rerank_score for match in matches], rel=1e-3) and "document" not in str(
        content
    )
    assert content["usage"]["total_tokens"] > 0
    body |= {"top_n": 2, "return_documents": True, "task": NOUNS, "query": {"text": QUESTION, "image": PICTURE}}
    status, content = call_json(url, "POST", "/v1/rerank", body)
    assert status == 200 and len(content["results"]) == 2
    for result in content["results"]:
        document = documents[result["index"]]
        assert result["document"] == ({"text": document} if isinstance(document, str) else document)
    task = RetrievalTask(**NOUNS)
    best = retriever.for_task(task).rerank(Item(QUESTION, image=PIXELS), items)[0]
    assert content["results"][0]["relevance_score"] == pytest.approx(best.rerank_score, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "num_judged"), [(("rerank.name=none",), 0), (("rerank.name=retllm", "rerank.options={top: 2}"), 2)]
)
def test_what_no_reranker_judges_is_ranked_by_the_cosine(tiny, tmp_path, make, overrides, num_judged):
    documents = ["a cat", "a dog", "a ball", "the sea"]
    with running_server(tiny, tmp_path, overrides=overrides) as address:
        body = {"model": "lvqa", "query": QUESTION, "documents": documents}
        results = call_json(address, "POST", "/v1/rerank", body)[1]["results"]
    expected = make(*overrides).retriever.search(QUESTION, documents)
    assert [result["index"] for result in results] == [match.index for match in expected]
    scores = [result["relevance_score"] for result in results]
    if num_judged:
        assert scores[:2] == pytest.approx([m.rerank_score for m in expected[:2]], rel=1e-3) and scores[2:] == [0, 0]
    else:
        assert scores == pytest.approx([match.embed_score for match in expected], abs=1e-5)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ("", 400, "input: "),
        ([], 400, "give a text"),
        (["a", ""], 400, r"input\[1\]: an item has nothing in it"),
        ([[1, 2]], 400, "input"),
        ({"text": "a"}, 400, "input"),
        ("x" * (MAX_ITEM_CHARACTERS + 1), 400, "input"),
        (["a"] * (MAX_ITEMS + 1), 400, "input"),
        ([{"image": "https://example.org/a.png"}], 400, "image: expected a URL data:image"),
        ([{"image": "file:///etc/passwd"}], 403, "is not in the folders that are served"),
        ([{"image": "file://{secret}"}], 403, "is not in the folders that are served"),
        ([{"image": "data:image/png;base64,AAAA"}], 400, "cannot be read"),
        ([{"image": "data:text/html;base64,AAAA"}], 400, "image: type 'text/html' is not one of"),
        ([{"video": "/etc/passwd"}], 403, "is not in the folders that are served"),
        ([{"video": "https://example.org/a.mp4"}], 403, "videos are not fetched from addresses here"),
        ([{"video": "nonsense"}], 404, "there is no video 'nonsense' here"),
        ([{"text": "a", "start_seconds": 3}], 400, "need its video"),
        ([{"sound": "data:audio/wav;base64,AAAA"}], 400, "sound .* cannot be read|does not hear"),
        ([{"path": "/etc/passwd"}], 400, "input"),
        ([[{"type": "image_url", "image_url": "{picture}"}] * 2], 400, "an item has one image at most"),
        ([[{"type": "thought"}]], 400, "a part of type 'thought' is not read here"),
    ],
)
def test_what_cant_be_embedded_is_refused_in_one_line(url, folder, content, status, message):
    filled = _filled(content, {"{secret}": str(folder.parent / "secret.png"), "{picture}": PICTURE})
    got, answer = call_json(url, "POST", "/v1/embeddings", {"model": "lvqa", "input": filled})
    assert got == status, answer
    assert re.search(message, answer["error"]["message"]), answer
    assert "\n" not in answer["error"]["message"] and len(answer["error"]["message"]) < 400


def _filled(content, names):
    """Return JSON with names in its texts replaced."""
    if isinstance(content, list):
        return [_filled(item, names) for item in content]
    if isinstance(content, dict):
        return {key: _filled(value, names) for key, value in content.items()}
    for name, value in names.items():
        content = content.replace(name, value) if isinstance(content, str) else content
    return content


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "gpt-9"}, 404, "model 'gpt-9' is not served here"),
        ({"documents": []}, 400, "documents"),
        ({"query": ""}, 400, "query: an item has nothing in it"),
        ({"documents": ["a", {"image": "x"}]}, 400, r"documents\[1\]: image: expected a URL"),
        ({"top_n": 0}, 400, "top_n"),
        ({"task": {"query": ""}}, 400, "task.query: String should have"),
        ({"task": {"noun": "x"}}, 400, "task.noun"),
        ({"query": "x" * (MAX_BODY_BYTES + 1)}, 413, "the body is too large"),
    ],
)
def test_what_cant_be_reranked_is_refused_in_one_line(url, change, status, message):
    body = {"model": "lvqa", "query": QUESTION, "documents": ["a", "b"], **change}
    got, answer = call_json(url, "POST", "/v1/rerank", body)
    assert got == status, answer
    assert message.replace("\\", "") in answer["error"]["message"]


def test_other_widths_are_refused(client):
    with pytest.raises(openai.BadRequestError, match="dimensions: the model's vectors have"):
        client.embeddings.create(model="lvqa", input="a", dimensions=7)


def test_they_need_the_token_too(tiny, tmp_path):
    with running_server(tiny, tmp_path, token="a-token-of-some-length") as address:
        for path in ("/v1/embeddings", "/v1/rerank"):
            assert call_json(address, "POST", path, {"model": "lvqa", "input": "a"})[0] == 401


def test_no_file_of_a_request_stays(url, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert call_json(url, "POST", "/v1/embeddings", {"model": "lvqa", "input": [{"image": PICTURE}]})[0] == 200
    assert not [*tmp_path.iterdir()]
