"""Pages: what they are told of runs and answers, the files of a bundle, and that all their modules are one script."""

import dataclasses
import json
import re
import shutil
import subprocess

import pytest
from click.testing import CliRunner
from runs import CONDITIONS, NUM_QUESTIONS, NUM_VIDEOS, copy_of
from servers import call, call_json, running_server
from stored_pages import stored_values

from lvqa.cli.main import lvqa_command
from lvqa.config import Config
from lvqa.evaluation import is_correct, read_run
from lvqa.evaluation.filters import evidence_of
from lvqa.records import Answer, Candidate, Clip, Counts, LvqaError, Question
from lvqa.server.settings import ServerSettings
from lvqa.video import inspect_video
from lvqa.web import RunView, answer_view, read_notes, write_bundle, write_note, write_page
from lvqa.web.pages import picture_key
from lvqa.web.script import STATIC, classic_script

NUM_IN_ALL = NUM_VIDEOS * NUM_QUESTIONS


@pytest.fixture(scope="module")
def view(run):
    return RunView(run)


# --- what pages are told ---------------------------------------------------------------------------------------------


def test_a_run_in_short_has_every_row_once(run, view):
    summary = view.summary
    assert [(one["arm"], one["budget"]) for one in summary["conditions"]] == CONDITIONS
    assert len(summary["questions"]) == len(view) == NUM_IN_ALL
    by_key = {(f"{row['video_id']}/{row['question_id']}", row["arm"], row["budget"]): row for row in run.rows}
    for question in summary["questions"]:
        for condition, outcome in zip(CONDITIONS, question["answers"], strict=True):
            row = by_key.pop((question["key"], *condition))
            assert outcome["correct"] == is_correct(row) and outcome["evidence"] == evidence_of(row)
            assert outcome["confidence"] == (max(row["option_scores"]) if row["option_scores"] else None)
    assert not by_key


def test_the_figures_of_a_run_are_those_of_its_rows(run, view):
    for condition in view.summary["conditions"]:
        rows = [row for row in run.rows if (row["arm"], row["budget"]) == (condition["arm"], condition["budget"])]
        assert tuple(condition["all"]) == (sum(map(is_correct, rows)), NUM_IN_ALL)
        for tag, (hits, total) in condition["tags"].items():
            tagged = [row for row in rows if tag in row["tags"]]
            assert (hits, total) == (sum(map(is_correct, tagged)), len(tagged))


def test_a_question_has_the_numbers_of_its_rows(run, view):
    content = view.question(0, view.video_of(0))
    rows = [row for row in run.rows if f"{row['video_id']}/{row['question_id']}" == content["key"]]
    for row, entry in zip(rows, content["answers"], strict=True):
        answer, ranking = entry["answer"], content["rankings"][entry["ranking"]]
        assert [frame["time_seconds"] for frame in answer["frames"]] == row["times_seconds"]
        assert (answer["option"], answer["answer"], answer["counts"]) == (row["prediction"], row["text"], row["counts"])
        assert {tuple(clip[:3]) for clip in ranking} == {tuple(clip) for clip in row["embedded"]}
        if row["reranked"]:  # the order is the reranker's
            assert [(start, end, score) for start, end, _, score in ranking] == [tuple(c) for c in row["reranked"]]
    num_rankings = len({json.dumps([row["embedded"], row["reranked"]]) for row in rows})
    assert len(content["rankings"]) == num_rankings < len(rows)  # what arms share is told once


def test_a_run_that_is_cut_off_is_shown_as_it_grows(run, tmp_path):
    folder = copy_of(run, tmp_path)
    lines = (folder / "answers.jsonl").read_text().splitlines(keepends=True)
    (folder / "answers.jsonl").write_text("".join(lines[:5]))
    summary = RunView(read_run(folder)).summary
    assert summary["num_rows"] == 5 and summary["is_growing"]
    assert not RunView(run).summary["is_growing"]


def test_a_time_that_was_read_is_shown_where_it_is(synthetic_video):
    video = inspect_video(synthetic_video())
    clip = Candidate(Clip("v", 16.0, 32.0), embed_score=0.5, rerank_score=None)
    known = {"text": "x", "option": None, "option_scores": (), "model": "tiny", "method": "apportion", "index": None}
    known |= {"frames_budget": 2, "frames": (20.0, 21.0), "evidence": (clip,), "counts": Counts(), "seconds": {}}
    answer = Answer(question=Question("What is there at 0:21?"), time_read="0:21", **known)
    assert answer_view(answer, video, (clip,))["time_spans"] == ((21.0, 21.0),)
    assert answer_view(dataclasses.replace(answer, time_read=None), video, ())["time_spans"] == ()


@pytest.mark.parametrize(
    ("seconds", "key"), [(31.0, "31"), (0.5, "0.5"), (1234.25, "1234.25"), (0.1 + 0.2, "0.30000000000000004")]
)
def test_a_time_is_written_as_javascript_writes_it(seconds, key):
    assert picture_key(seconds) == key


# --- notes -----------------------------------------------------------------------------------------------------------


def test_notes_are_kept_in_the_run_folder_and_an_empty_one_goes(tmp_path):
    write_note(tmp_path, "v/1", "odd \u00e9 <b>")
    write_note(tmp_path, "v/2", "other")
    write_note(tmp_path, "v/1", "")
    assert read_notes(tmp_path) == {"v/2": "other"}
    (tmp_path / "notes.json").write_text("[1]")
    with pytest.raises(LvqaError, match=r"notes\.json"):
        read_notes(tmp_path)


# --- the script ------------------------------------------------------------------------------------------------------


def test_every_module_is_in_the_script_once_and_after_those_that_it_imports():
    names = re.findall(r"^// --- (\S+)$", classic_script(), re.MULTILINE)
    assert sorted(names) == sorted(path.name for path in STATIC.glob("*.js"))
    for path in STATIC.glob("*.js"):
        for imported in re.findall(r'from "\./([a-z_]+\.js)"', path.read_text()):
            assert names.index(imported) < names.index(path.name)


def test_no_two_modules_declare_the_same_name_and_nothing_is_loaded_from_elsewhere():
    script = classic_script()
    declared = re.findall(r"^(?:async )?(?:function\*? |class |const |let )(\w+)", script, re.MULTILINE)
    assert len(declared) == len({*declared}) > 50
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    files = "".join(path.read_text() for path in STATIC.iterdir() if path.is_file())
    assert {url for url in re.findall(r"https?://[^\s\"'`]+", files)} == {"http://www.w3.org/2000/svg"}


# --- files that need no server ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    """The files of a run's bundle, with a note."""
    folder = tmp_path_factory.mktemp("bundle")
    copy = copy_of(run, folder)
    write_note(copy, RunView(run).key_of(1), "</script><b>a note")
    write_bundle([copy], folder / "b")
    return folder / "b"


def stored_value(path):
    """Return the value that a data script puts into a global one."""
    return json.loads(path.read_text().partition(" = ")[2].removesuffix(";\n"))


@pytest.mark.slow
def test_a_bundle_has_all_questions_and_pictures_and_links_the_videos(run, bundle):
    page = (bundle / "index.html").read_text()
    scripts = re.findall(r'<script src="([^"]+)">', page)
    assert scripts == ["data/start.js", "data/0.js", "lvqa.js"] and all((bundle / name).is_file() for name in scripts)
    assert len(list((bundle / "data" / "0").glob("*.js"))) == NUM_IN_ALL
    assert len(list((bundle / "data").glob("pictures-*.js"))) == NUM_VIDEOS
    question = stored_value(bundle / "data" / "0" / "0.js")
    assert (bundle / question["video"]["media"]).resolve().is_file()
    video_id = question["video"]["id"]
    times = {picture_key(t) for row in run.rows if row["content_id"] == video_id for t in row["times_seconds"]}
    assert set(stored_value(bundle / "data" / f"pictures-{video_id}.js")) == times


@pytest.mark.slow
def test_a_bundle_keeps_to_its_size_and_says_what_it_left_out(run, tmp_path):
    copy = copy_of(run, tmp_path)
    result = CliRunner().invoke(lvqa_command, ["view", str(copy), "--bundle", str(tmp_path / "b"), "--max-mib", "0.5"])
    assert result.exit_code == 2 and "--max-mib" in result.stderr  # 1 is the least

    def size_of(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert write_bundle([copy], tmp_path / "whole") == []
    max_bytes = size_of(tmp_path / "whole") - 20_000
    (remark,) = write_bundle([copy], tmp_path / "cut", max_mib=max_bytes / (1 << 20))
    assert re.fullmatch(r"\d+ of \d+ frames have a picture; more need a larger --max-mib", remark)
    assert max_bytes - 10_000 < size_of(tmp_path / "cut") < max_bytes + 5_000


def test_a_bundle_is_made_without_the_videos_too(run, tmp_path):
    copy = copy_of(run, tmp_path)
    text = (copy / "answers.jsonl").read_text()
    (copy / "answers.jsonl").write_text(re.sub(r'"video_path": "[^"]+/', '"video_path": "/gone/', text))
    remarks = write_bundle([copy], tmp_path / "b")
    assert len(remarks) == NUM_VIDEOS and all("/gone/" in remark and "no pictures" in remark for remark in remarks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--bundle", "{full}"], "not empty: name a new folder"),
        (["{full}", "--bundle", "{new}"], "is not a run folder: it has no config.yaml"),
        (["{full}"], "is not a run folder: it has no config.yaml"),
        (["{run}", "{run}", "--bundle", "{new}"], "two of the 2 runs have the same name"),
        (["{run}", "--max-mib", "5"], "--max-mib goes with --bundle"),
    ],
)
def test_what_view_refuses(run, tmp_path, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    places = {"run": run.folder, "full": tmp_path / "full", "new": tmp_path / "new"}
    result = CliRunner().invoke(lvqa_command, ["view", *(word.format(**places) for word in arguments)])
    assert result.exit_code in (1, 2) and message in result.stderr
    assert not (tmp_path / "new").exists()


EVIL = Question("Which </script><script>alert(1)</script> costs $1?", ("red", "blue"), answer="B")


def test_the_page_of_an_answer_is_one_file_and_reads_no_text_as_html(synthetic_video, tmp_path):
    video = inspect_video(synthetic_video())
    clip = Candidate(Clip("v", 16.0, 32.0), embed_score=0.5, rerank_score=0.9)
    known = {"text": "blue", "option": "B", "option_scores": (0.4, 0.6), "model": "tiny", "method": "freeret"}
    known |= {"frames_budget": 2, "frames": (20.0, 21.5), "evidence": (clip,), "counts": Counts(), "seconds": {}}
    write_page(tmp_path / "a.html", Answer(question=EVIL, index=None, **known), video, evidence=(clip,))
    html = (tmp_path / "a.html").read_text()
    assert "alert(1)</script>" not in html and html.count("<script") == 2
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    stored = stored_values(tmp_path / "a.html")
    assert stored["answer"]["answers"][0]["answer"]["question"] == EVIL.text
    assert set(stored["pictures"][video.id]) == {"20", "21.5"}


# --- the server's part -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tiny, tmp_path_factory, run):
    """A server without a model, over a copy of the run."""
    folder = tmp_path_factory.mktemp("viewed")
    copy = copy_of(run, folder)
    with running_server(tiny, folder / "store", has_model=False, runs=(copy,), token=TOKEN) as url:
        yield url, copy


TOKEN = "a token that nobody guesses"
KNOWN = {"authorization": f"Bearer {TOKEN}"}


def test_pages_are_sent_without_a_token_and_their_content_is_not(served):
    url, copy = served
    for path in ("/runs", f"/runs/{copy.name}", "/videos/0123456789abcdef", "/static/main.js", "/static/style.css"):
        assert call(url, "GET", path)[0] == 200
    status, headers, _ = call(url, "GET", "/")
    assert (status, headers["location"]) == (307, "/runs")  # there is no library without a model
    for path in ("/api/runs", f"/api/runs/{copy.name}/questions", "/api/videos"):
        assert call(url, "GET", path)[0] == 401
    assert call(url, "GET", "/static/../pages.py")[0] == call(url, "GET", "/static/%2e%2e/pages.py")[0] == 404


def test_a_run_is_seen_without_a_model_and_its_videos_with_it(served, view):
    url, copy = served
    status, summary = call_json(url, "GET", f"/api/runs/{copy.name}/questions", **KNOWN)
    assert status == 200 and summary["questions"] == json.loads(json.dumps(view.summary["questions"]))
    status, question = call_json(url, "GET", f"/api/runs/{copy.name}/questions/0", **KNOWN)
    assert status == 200 and question["video"]["is_there"]
    video = question["video"]["id"]
    assert call(url, "GET", f"/api/videos/{video}/frame?time=1&height=90", **KNOWN)[0] == 200
    assert call_json(url, "GET", f"/api/runs/{copy.name}/questions/99", **KNOWN)[0] == 404
    status, error = call_json(url, "POST", "/api/ask", {"video": video, "question": "What?"}, **KNOWN)
    assert status == 409 and "no model is loaded" in error["error"]["message"]
    assert call_json(url, "GET", "/api/videos", **KNOWN)[1]["videos"] == []


def test_notes_are_written_through_the_server(served, view):
    url, copy = served
    path, key = f"/api/runs/{copy.name}/notes", view.key_of(2)
    assert call_json(url, "PUT", path, {"key": key, "text": "odd"}, **KNOWN)[0] == 204
    assert read_notes(copy) == {key: "odd"}
    assert call_json(url, "GET", f"/api/runs/{copy.name}/questions", **KNOWN)[1]["notes"] == {key: "odd"}
    assert call_json(url, "PUT", path, {"key": "no/such", "text": "x"}, **KNOWN)[0] == 404
    assert call_json(url, "PUT", path, {"key": key, "text": ""}, **KNOWN)[0] == 204
    assert read_notes(copy) == {}


def test_frames_come_as_one_archive(served):
    import io
    import zipfile

    url, copy = served
    video = call_json(url, "GET", f"/api/runs/{copy.name}/questions/0", **KNOWN)[1]["video"]["id"]
    status, _, content = call(url, "GET", f"/api/videos/{video}/frames.zip?times=12.5,3", **KNOWN)
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert status == 200 and [name[-13:] for name in archive.namelist()] == ["00003.000.png", "00012.500.png"]
    assert archive.testzip() is None
    for times in ("1,x", "nan", "-1", "1e9", ""):
        assert call(url, "GET", f"/api/videos/{video}/frames.zip?times={times}", **KNOWN)[0] == 400


def test_answers_that_are_none_are_no_page(served):
    url, copy = served
    video = call_json(url, "GET", f"/api/runs/{copy.name}/questions/0", **KNOWN)[1]["video"]["id"]
    late = {"question": "x", "frames": [{"time_seconds": 9e9}]}
    for answer in ({}, {"frames": []}, {"frames": [1], "question": "x"}, late):
        body = {"video": video, "answers": [{"label": "x", "answer": answer}]}
        status, error = call_json(url, "POST", "/api/page", body, **KNOWN)
        assert status == 400 and error["error"]["message"].startswith("answers: ")
    assert call_json(url, "POST", "/api/page", {"video": video, "answers": []}, **KNOWN)[0] == 400


def test_view_needs_the_packages_of_a_server(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(lvqa_command, ["view", str(run.folder)])
    assert result.exit_code == 1 and 'pip install "lvqa[serve]"' in result.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="node checks the script where it is installed")
def test_the_script_is_javascript(tmp_path):
    (tmp_path / "lvqa.js").write_text(classic_script())
    assert subprocess.run(["node", "--check", tmp_path / "lvqa.js"], capture_output=True).returncode == 0


def test_a_server_without_a_model_needs_no_settings_of_one():
    assert ServerSettings(config=Config(), has_model=False).has_model is False
