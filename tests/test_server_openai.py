"""OpenAI's form, with the official client: text, streaming, an upload, options, follow-ups, and the model itself."""

import base64
import shutil

import openai
import pytest
from servers import call_json, running_server

from lvqa.letters import listed_options
from lvqa.records import Question

QUESTION = "What colour is the ball?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, synthetic_video):
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(synthetic_video(seed=710), folder / "a.mp4")
    return folder


@pytest.fixture(scope="module")
def url(tiny, tmp_path_factory, folder):
    with running_server(tiny, tmp_path_factory.mktemp("store"), folder) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, content, **options):
    return client.chat.completions.create(model="lvqa", messages=[{"role": "user", "content": content}], **options)


def test_the_models_are_the_pipeline_and_then_the_model(client):
    assert [model.id for model in client.models.list()] == ["lvqa", "tiny"]


@pytest.mark.slow
def test_a_text_is_answered_about_the_only_video(client, folder, make):
    expected = make().ask(folder / "a.mp4", QUESTION)
    reply = ask(client, QUESTION)
    content, answer = reply.choices[0].message.content, reply.lvqa
    assert content.startswith(expected.text) and answer["answer"] == expected.text
    assert answer["frames"] == [{"time_seconds": t, "substituted": False} for t in expected.frames]
    assert "\n\nEvidence: [0:" in content and f"/api/videos/{answer['video']['id']}/clip?start=" in content
    plain = ask(client, QUESTION, extra_body={"lvqa": {"links": False}})
    assert plain.choices[0].message.content == expected.text


@pytest.mark.slow
def test_a_stream_ends_with_the_evidence(client):
    chunks = list(ask(client, QUESTION, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == ask(client, QUESTION).choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop" and chunks[-1].lvqa["evidence"]
    assert {chunk.lvqa["event"] for chunk in chunks if hasattr(chunk, "lvqa") and "event" in chunk.lvqa} >= {"frames"}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["A. red\nB. blue", "(A) red\n(B) blue", "A) red\nB) blue\nAnswer with the letter."])
def test_options_in_the_text_are_recognised(client, folder, make, form):
    expected = make().ask(folder / "a.mp4", QUESTION, options=["red", "blue"])
    reply = ask(client, f"{QUESTION}\n{form}")
    assert reply.lvqa["options"] == ["red", "blue"] and reply.lvqa["question"] == QUESTION
    assert reply.choices[0].message.content.startswith(f"{expected.option}. {expected.text}")


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("Which?\nA. red\nB. blue", ("Which?", ("red", "blue"))),
        ("A. red\nB. blue\nWhich?", ("Which?", ("red", "blue"))),
        ("Which?\nA. red\nC. blue", None),
        ("Which?\nA. red", None),
        ("A. red\nB. blue", None),
        ("Is A. Smith there?\nB. is not", None),
        ("What happens at 3?", None),
    ],
)
def test_options_are_recognised_only_where_they_are_listed(text, listed):
    assert listed_options(text) == listed


@pytest.mark.slow
def test_an_upload_is_a_video_of_its_own(client, url, synthetic_video):
    with synthetic_video(seed=711).open("rb") as file:
        uploaded = client.files.create(file=file, purpose="user_data")
    part = {"type": "file", "file": {"file_id": uploaded.id}}
    reply = ask(client, [{"type": "text", "text": QUESTION}, part])
    assert "file-" + reply.lvqa["video"]["id"] == uploaded.id
    assert client.files.delete(uploaded.id).deleted
    assert len(call_json(url, "GET", "/api/videos")[1]["videos"]) == 1


@pytest.mark.slow
def test_a_video_can_be_named_or_sent_along(client, url, folder, synthetic_video):
    video = call_json(url, "GET", "/api/videos")[1]["videos"][0]
    content = base64.b64encode(synthetic_video(seed=712).read_bytes()).decode()
    addresses = {
        video["id"]: video["id"],
        f"file://{folder / 'a.mp4'}": video["id"],
        f"{url}/api/videos/{video['id']}/media": video["id"],
        f"data:video/mp4;base64,{content}": None,
    }
    for address, video_id in addresses.items():
        part = {"type": "video_url", "video_url": {"url": address}}
        answer = ask(client, [part, {"type": "text", "text": QUESTION}], extra_body={"lvqa": {"frames": 4}}).lvqa
        assert len(answer["frames"]) == 4 and (video_id is None or answer["video"]["id"] == video_id)
        if video_id is None:
            assert answer["video"]["id"] != video["id"]
            call_json(url, "DELETE", f"/api/videos/{answer['video']['id']}")


@pytest.mark.slow
def test_a_follow_up_knows_the_earlier_turns(client, folder, make):
    first = ask(client, QUESTION).choices[0].message.content
    messages = [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And what comes right after that?"},
    ]
    answer = client.chat.completions.create(model="lvqa", messages=messages).lvqa
    earlier = (QUESTION, first.split("\n\nEvidence")[0])
    expected = make().answer(folder / "a.mp4", Question("And what comes right after that?", history=(earlier,)))
    assert answer["history"] == [{"question": earlier[0], "answer": earlier[1]}]
    assert answer["answer"] == expected.text
    assert [clip["start_seconds"] for clip in answer["evidence"]] == [c.start_seconds for c in expected.evidence]


@pytest.mark.parametrize(
    ("url_part", "status", "message"),
    [
        ("file:///etc/passwd", 403, "is not in the folders that are served"),
        ("https://example.org/a.mp4", 403, "videos are not fetched from addresses here"),
        ("data:text/html;base64,AAAA", 400, "video: type 'text/html' is not one of"),
        ("nonsense", 404, "there is no video 'nonsense' here"),
    ],
)
def test_errors_are_those_of_the_client(client, url_part, status, message):
    part = {"type": "video_url", "video_url": {"url": url_part}}
    with pytest.raises(openai.APIStatusError, match=message) as error:
        ask(client, [part, {"type": "text", "text": QUESTION}])
    assert error.value.status_code == status


def test_another_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="model 'gpt-9' is not served here"):
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])


def test_the_model_itself_sees_exactly_what_is_sent(client, tiny):
    reply = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=1,
        logprobs=True,
        top_logprobs=3,
        extra_body={"logprob_token_ids": [5, 7]},
    )
    log_probs = tiny.next_token_logits([(QUESTION,)])[0].log_softmax(-1)
    (token,) = reply.choices[0].logprobs.content
    assert token.logprob == pytest.approx(float(log_probs.max()), abs=1e-4)
    scored = {other.token_id: other.logprob for other in token.top_logprobs}
    assert scored[5] == pytest.approx(float(log_probs[5]), abs=1e-4) and len(scored) == 5 and 7 in scored
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.prompt_tokens == tiny.prompt_length((QUESTION,))[0]


@pytest.mark.slow
def test_the_model_itself_sees_a_video_and_earlier_turns(client, url, tiny):
    video = call_json(url, "GET", "/api/videos")[1]["videos"][0]
    part = {"type": "video_url", "video_url": {"url": video["id"]}}
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [part, {"type": "text", "text": QUESTION}]},
    ]
    whole = client.chat.completions.create(model="tiny", messages=messages)
    stream = client.chat.completions.create(model="tiny", messages=messages, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == whole.choices[0].message.content
    assert whole.usage.prompt_tokens > tiny.prompt_length((QUESTION,))[0] + 16
    messages[0]["content"] = "<|im_end|>"
    with pytest.raises(openai.BadRequestError, match="an earlier turn has the text of a special token"):
        client.chat.completions.create(model="tiny", messages=messages)
