"""The server: our own API, and that answers are those of the command line."""

import io
import json
import shutil
import threading
import time

import av
import pytest
from servers import call, call_json, events_of, running_server

import lvqa
from lvqa.client import RemoteVideoQA, connect
from lvqa.library import LibraryFilter
from lvqa.pipeline import LongVideoQA
from lvqa.records import LvqaError, Question
from lvqa.server.settings import ServerSettings

QUESTION = "What colour is the ball?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, synthetic_video):
    """A folder with two videos, and a third next to it, which is not served."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(synthetic_video(seed=710), folder / "a.mp4")
    (folder / "deep").mkdir()
    shutil.copy(synthetic_video(seed=711), folder / "deep" / "b.mp4")
    return folder


@pytest.fixture(scope="module")
def url(tiny, tmp_path_factory, folder, run):
    with running_server(tiny, tmp_path_factory.mktemp("store"), folder, runs=(run.folder,)) as address:
        yield address


@pytest.fixture(scope="module")
def video(url):
    """The first video as the server describes it."""
    return call_json(url, "GET", "/api/videos")[1]["videos"][0]


def plain(answer: dict) -> dict:
    """Return an answer without what it cost, and without what only the server adds."""
    changing = ("counts", "seconds", "index", "clips", "time_spans", "history", "event", "record")
    return {key: value for key, value in answer.items() if key not in changing}


@pytest.mark.slow
def test_the_folders_videos_are_listed(url, folder, video):
    _, listed = call_json(url, "GET", "/api/videos")
    assert [known["path"] for known in listed["videos"]] == [str(folder / "a.mp4"), str(folder / "deep" / "b.mp4")]
    assert listed["failures"] == []
    status, one = call_json(url, "GET", f"/api/videos/{video['id']}")
    assert status == 200 and (one["width"], one["height"], one["duration_seconds"]) == (320, 240, 60.0)


@pytest.mark.slow
def test_a_question_is_answered_with_events(url, video):
    body = {"video": video["id"], "question": QUESTION, "options": ["red", "blue"], "stream": True}
    status, headers, content = call(url, "POST", "/api/ask", body)
    events = events_of(content)
    names = list(dict.fromkeys(event["event"] for event in events))
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    assert [name for name in names if name != "indexing"] == [
        "waiting",
        "running",
        "ranking",
        "frames",
        "answer",
        "done",
    ]
    chosen, answer = events[-3], events[-2]
    assert chosen["frames"] == [frame["time_seconds"] for frame in answer["frames"]]
    assert len(chosen["clips"]) == 4 and chosen["clips"] == answer["clips"]
    assert answer["option"] in "AB" and sum(answer["option_scores"]) == pytest.approx(1)


@pytest.mark.slow
def test_answers_are_those_of_the_pipeline(url, video, make):
    status, answer = call_json(url, "POST", "/api/ask", {"video": video["id"], "question": QUESTION, "record": True})
    expected = make().ask(video["path"], QUESTION)
    remote = RemoteVideoQA(url).ask(video["path"], QUESTION)
    assert status == 200 and answer["answer"] == expected.text == remote.text
    assert remote.frames == expected.frames and remote.evidence == expected.evidence
    assert (remote.caveats, remote.question.text) == (expected.caveats, QUESTION)


@pytest.mark.slow
def test_a_client_has_the_pipelines_methods(url, video, make):
    server, qa = LongVideoQA.connect(url), make()
    path = video["path"]
    assert server.search(path, "a ball", top=2) == qa.search(path, "a ball", top=2)
    assert server.index(path).reused and server.index(video["id"]).clips == 4
    uniform = server.ask(video["id"], QUESTION, frames=4, method="uniform")
    assert uniform.frames == qa.ask(path, QUESTION, frames=4, method="uniform").frames
    question = Question(QUESTION, history=(("What is there?", "a ball"),))
    assert server.answer(path, question).text == qa.answer(path, question).text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"question": QUESTION}, 400, "video: say which one, by id or path; or library: true"),
        ({"video": "0" * 16, "question": QUESTION}, 404, "there is no video '0000000000000000' here"),
        ({"video": "/etc/passwd", "question": QUESTION}, 403, "'/etc/passwd' is not in the folders that are served"),
        ({"video": "VIDEO", "question": ""}, 400, "the question is empty"),
        ({"video": "VIDEO", "question": "x", "options": ["a", "a"]}, 400, "two options are equal: 'a'"),
        ({"video": "VIDEO", "question": "x", "frames": 0}, 400, "frames: Input should be greater than or equal to 1"),
        ({"video": "VIDEO", "question": "x", "method": "/tmp/evil.py"}, 400, "method must be one of freeret"),
        ({"video": "VIDEO", "question": "x", "colour": 1}, 400, "colour: Extra inputs are not permitted"),
        ({"video": "VIDEO", "question": "x", "image": "http://x/a.png"}, 400, "image: expected a URL data:image/"),
    ],
)
def test_a_bad_question_is_one_line(url, video, body, status, message):
    body = {key: video["id"] if value == "VIDEO" else value for key, value in body.items()}
    got, content = call_json(url, "POST", "/api/ask", body)
    assert got == status and content["error"]["message"].startswith(message), content
    assert "\n" not in content["error"]["message"] and content["error"]["code"] == status


@pytest.mark.slow
def test_the_library_is_searched_and_asked(url, video):
    server = RemoteVideoQA(url)
    for known in call_json(url, "GET", "/api/videos")[1]["videos"]:
        server.index(known["id"])
    results = server.search_json(None, Question("a ball"), top=3)["results"]
    assert len(results) == 3 and results[0]["rerank_score"] >= results[1]["rerank_score"]
    only = LibraryFilter(videos=(video["id"],))
    moments = server.search_json(None, Question("a ball"), top=3, condition=only, moments=True, exact=True)["results"]
    assert {result["video_id"] for result in moments} == {video["id"]}
    assert server.ask_json(None, Question(QUESTION), condition=only)["video"]["id"] == video["id"]
    with pytest.raises(LvqaError, match="none of the 2 videos of the library can be searched: min_seconds 7200"):
        server.search_json(None, Question("a ball"), condition=LibraryFilter(min_seconds=7200.0))
    answer = server.ask_json(None, Question(QUESTION))
    assert answer["library"]["video_id"] == answer["video"]["id"] and len(answer["library"]["runners_up"]) == 1


def test_a_job_of_indexing_tells_how_far_it_is(url, video):
    status, job = call_json(url, "POST", f"/api/videos/{video['id']}/index", {"rebuild": True})
    assert status == 202 and job["kind"] == "index"
    events = events_of(call(url, "GET", f"/api/jobs/{job['job']}/events")[2])
    assert [event["event"] for event in events][-2:] == ["indexed", "done"] and events[-2]["clips"] == 4
    assert call_json(url, "GET", f"/api/jobs/{job['job']}")[1]["state"] == "done"
    assert call_json(url, "GET", "/api/videos")[1]["videos"][0]["is_indexed"] is True
    assert call_json(url, "GET", "/api/jobs/nothing")[0] == 404


@pytest.mark.slow
def test_uploads_are_kept_deduplicated_and_deleted(url, synthetic_video, folder):
    server, path = RemoteVideoQA(url), synthetic_video(seed=712)
    first, again = server.upload(path), server.upload(path)
    assert first["is_upload"] and again["path"] == first["path"] and first["name"] == path.name
    with pytest.raises(LvqaError, match="is not named as a video file"):
        server.request("PUT", "/api/uploads/a.txt", {"a": 1})
    with pytest.raises(LvqaError, match="expected a video"):
        server.request("PUT", "/api/uploads/fake.mp4", {"a": 1})
    assert call(url, "DELETE", f"/api/videos/{first['id']}")[0] == 204
    assert call_json(url, "GET", f"/api/videos/{first['id']}")[0] == 404
    assert not [*folder.parent.rglob(f"uploads/{path.name}")] and not [*folder.parent.rglob("uploads/.*.tmp")]


def test_media_are_cut_out_on_demand(url, video):
    path = f"/api/videos/{video['id']}"
    status, headers, content = call(url, "GET", f"{path}/media", range="bytes=4-7")
    assert (status, content) == (206, b"ftyp") and headers["content-type"] == "video/mp4"
    for name in ("thumbnail", "frame?time=12.5&height=120&form=png", "frame?time=60"):
        status, headers, content = call(url, "GET", f"{path}/{name}")
        assert status == 200 and headers["content-type"] in ("image/jpeg", "image/png") and len(content) > 500
    assert call_json(url, "GET", f"{path}/frame?time=61")[0] == 400
    status, headers, content = call(url, "GET", f"{path}/clip?start=16&end=20")
    with av.open(io.BytesIO(content)) as clip:
        frames = sum(1 for _ in clip.decode(video=0))
        assert (status, frames, clip.streams.video[0].codec_context.name) == (200, 32, "h264")
    for bad in ("start=5&end=5", "start=9&end=5", "start=61&end=70", "start=-1&end=3", "start=nan&end=3"):
        assert call_json(url, "GET", f"{path}/clip?{bad}")[0] == 400


def test_runs_are_listed_and_filtered(url, run):
    (listed,) = call_json(url, "GET", "/api/runs")[1]["runs"]
    path = f"/api/runs/{listed['name']}"
    about = call_json(url, "GET", path)[1]
    assert about["num_rows"] == len(run.rows)
    arm = about["conditions"][0]["arm"]
    right = call_json(url, "GET", f"{path}/rows?arm={arm}&correct=true&limit=1000")[1]
    wrong = call_json(url, "GET", f"{path}/rows?arm={arm}&correct=false")[1]
    assert right["num_rows"] + wrong["num_rows"] == sum(row["arm"] == arm for row in run.rows)
    assert all(row["correct"] and row["arm"] == arm for row in right["rows"])
    sorted_rows = call_json(url, "GET", f"{path}/rows?sort=-confidence")[1]["rows"]
    scores = [row["confidence"] for row in sorted_rows if row["confidence"] is not None]
    assert scores == sorted(scores, reverse=True)
    assert call_json(url, "GET", f"{path}/rows?evidence=everywhere")[0] == 400
    assert call_json(url, "GET", "/api/runs/..%2f..%2fetc")[0] == 404


def test_openapi_describes_all_paths(url):
    spec = call_json(url, "GET", "/api/openapi.json")[1]
    assert {"/api/ask", "/api/search", "/api/videos", "/api/runs/{name}/rows", "/v1/chat/completions"} <= {
        *spec["paths"]
    }
    lacking = [
        f"{method} {path}"
        for path, item in spec["paths"].items()
        for method, op in item.items()
        if not op.get("description")
    ]
    assert lacking == []


@pytest.mark.slow
def test_a_question_that_is_dropped_stops_its_work(url, synthetic_video):
    server = RemoteVideoQA(url)
    known = server.upload(synthetic_video(seed=713, minutes=10))
    connection = server._connection()
    body = json.dumps({"video": known["id"], "question": QUESTION, "stream": True}).encode()
    connection.request("POST", "/api/ask", body, {"content-type": "application/json"})
    response = connection.getresponse()
    while b"indexing" not in response.readline():
        pass
    response.close()
    connection.close()
    deadline = time.monotonic() + 60
    while call_json(url, "GET", "/api/status")[1]["running"]:
        assert time.monotonic() < deadline, "the work goes on though nobody waits for it"
        time.sleep(0.05)
    assert call_json(url, "GET", f"/api/videos/{known['id']}")[1]["is_indexed"] is False
    assert call(url, "DELETE", f"/api/videos/{known['id']}")[0] == 204


@pytest.mark.slow
def test_too_many_questions_are_refused(tiny, tmp_path, folder):
    with running_server(tiny, tmp_path, folder, max_waiting=1) as address:
        video = call_json(address, "GET", "/api/videos")[1]["videos"][0]
        statuses = []
        body = {"video": video["id"], "question": QUESTION}
        threads = [
            threading.Thread(target=lambda: statuses.append(call_json(address, "POST", "/api/ask", body)[0]))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200, 429}


def test_a_server_that_is_not_there_is_one_line():
    with pytest.raises(LvqaError, match=r"no server answers at http://127.0.0.1:9 "):
        connect("http://127.0.0.1:9")
    with pytest.raises(LvqaError, match="the address of a server is http://HOST:PORT"):
        connect("127.0.0.1:8765")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "needs a token"),
        ({"token": "short"}, "the token has 5 characters; it must have 16 or more"),
        ({"paths": ("nowhere",)}, "there is no such file or folder"),
    ],
)
def test_unsafe_settings_are_refused(options, message, tmp_path):
    from pathlib import Path

    from lvqa.config import Config

    options = {**options, "paths": tuple(map(Path, options.get("paths", ())))}
    with pytest.raises(LvqaError, match=message):
        ServerSettings(config=Config(), **options)


def test_lvqa_has_connect():
    assert lvqa.LongVideoQA.connect is connect
