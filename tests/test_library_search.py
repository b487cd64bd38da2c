"""A library is searched and asked as one video is: the best clips of all videos are reranked, and nothing is hidden."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import video_files
from click.testing import CliRunner
from processes import needs_proc

from lvqa.cli.main import lvqa_command
from lvqa.index import Store
from lvqa.library import LibraryFilter, ask_library, index_videos, search_library
from lvqa.library.indexed import indexed_states
from lvqa.library.moments import join_moments
from lvqa.library.table import ClipTable
from lvqa.records import LvqaError, Question
from lvqa.synthetic.videos import ask_about, make_videos, write_script

SEEDS = (700, 701)
TINY = ("--model", "tiny", "--device", "cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Two synthetic videos of two minutes; tests must not change them."""
    return make_videos(tmp_path_factory.mktemp("videos"), num_videos=2, minutes=2, num_questions=1, seed=SEEDS[0])


@pytest.fixture
def library(make, videos):
    """A pipeline over a store in which both are indexed."""
    qa = make()
    for path in videos:
        qa.index(path)
    return qa


COUNT_THREADS = """
import os, sys
from pathlib import Path
import numpy as np
from indexes import SPEC
from library_writer import save_video
from lvqa.index import Store
from lvqa.library import LibraryFilter
from lvqa.library.codes import ClipCodes
from lvqa.library.indexed import indexed_states
from lvqa.library.table import ClipTable

def num_threads():
    return len(os.listdir("/proc/self/task"))

def counted(*args, nearest=ClipCodes.nearest):
    result = nearest(*args)
    counts.append(num_threads())
    return result

store, ClipCodes.nearest, counts = Store(Path(sys.argv[1])), counted, []
for number in range(4):  # each is a segment of the table
    save_video(store, number)
    table = ClipTable(store, SPEC)
    table.update(indexed_states(store, SPEC))
view = table.read(indexed_states(store, SPEC))
before = num_threads()
view.search(np.ones(32), 5, LibraryFilter())
print(len(counts), max(counts) - before)
"""


@pytest.mark.slow
@needs_proc
def test_a_search_has_no_more_threads_than_parts(tmp_path):
    """On 16 cores each of its threads had 15 of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "16", "PYTHONPATH": os.pathsep.join([*sys.path])}
    command = [sys.executable, "-c", COUNT_THREADS, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    num_parts, num_added = map(int, result.stdout.split())
    assert num_parts == 4 and 0 < num_added <= 4


@pytest.fixture(scope="module")
def questions() -> list[tuple[int, Question]]:
    """Questions about each video, without their options, and which video each is about."""
    return [
        (i, Question(question.text))
        for i, seed in enumerate(SEEDS)
        for question in ask_about(write_script(seed, 2), 8)
        if question.evidence_seconds is not None
    ]


def clips(candidates) -> list[tuple]:
    return [(c.clip, round(c.embed_score, 4), c.rerank_score and round(c.rerank_score, 4)) for c in candidates]


@pytest.mark.slow
def test_hits_have_the_scores_of_a_search_in_their_videos(library, videos, questions):
    for _, question in questions[:: len(questions) - 1]:  # one about each video
        ranking = search_library(library, question, top=100)
        in_files = {c.clip: c for path in videos for c in library.search(path, question, top=100)}
        hits = [hit.candidate for hit in ranking.hits]
        assert clips(hits) == clips(in_files[hit.clip] for hit in hits) and len(hits) == len(in_files) == 16
        scores = [hit.rerank_score for hit in hits]
        assert scores == sorted(scores, reverse=True) and ranking.warnings == ()
        assert [hit.location.path for hit in ranking.hits] == [
            videos[0] if hit.clip.video_id == library.inspect_video(videos[0]).id else videos[1] for hit in hits
        ]
        assert clips(hit.candidate for hit in search_library(library, question, top=3).hits) == clips(hits[:3])


@pytest.mark.slow
def test_the_right_video_comes_first_where_the_embedding_alone_is_wrong(library, make, videos, questions):
    """As in a search of one video, whose best clip is the library's best one."""
    plain, ids = make("rerank.pool=0"), [library.inspect_video(path).id for path in videos]
    num_wrong_before = num_right_now = 0
    for i, question in questions:
        before = search_library(plain, question, top=1).hits[0]
        assert before.candidate.rerank_score is None
        if before.video_id != ids[i]:
            num_wrong_before += 1
            (now,), (in_file,) = (
                search_library(library, question, top=1).hits,
                library.search(videos[i], question, top=1),
            )
            num_right_now += now.candidate.clip == in_file.clip
    assert num_wrong_before >= 2 and num_right_now > num_wrong_before / 2


@pytest.fixture
def no_video_is_few(monkeypatch):
    """The table of all clips is searched, however few videos there are."""
    monkeypatch.setattr("lvqa.library.find.FEW_VIDEOS", 0)
    monkeypatch.setattr("lvqa.library.background.FEW_VIDEOS", 1)


@pytest.mark.slow
def test_a_search_with_the_table_is_that_without_it(library, questions, no_video_is_few):
    for _, question in questions[:2]:
        one, two = (search_library(library, question, top=20, exact=exact) for exact in (False, True))
        assert clips(hit.candidate for hit in one.hits) == clips(hit.candidate for hit in two.hits)
        assert [hit.location for hit in one.hits] == [hit.location for hit in two.hits] and one.warnings == two.warnings
    assert list(Path(library.config.store.folder).glob("library/*/*.segment"))


@pytest.mark.slow
def test_a_search_keeps_to_its_condition_and_joins_moments(library, videos, questions):
    question = questions[0][1]
    only = LibraryFilter(videos=(str(videos[1]),))
    assert {hit.location.path for hit in search_library(library, question, condition=only).hits} == {videos[1]}
    assert ask_library(library, question, condition=only, frames=4).video.path == videos[1]
    hits = [hit.candidate for hit in search_library(library, question, top=16).hits]
    moments = search_library(library, question, top=2, moments=True).hits
    assert [hit.candidate for hit in moments] == join_moments(hits, 2) and len(moments) == 2
    with pytest.raises(LvqaError, match="none of the 2 videos of the library can be searched: folder /nowhere"):
        search_library(library, question, condition=LibraryFilter(folder=Path("/nowhere")))


@pytest.mark.slow
def test_indexing_many_videos_adds_them_to_the_table(make, tmp_path, no_video_is_few):
    paths = [video_files.write_video(tmp_path / f"{i}.mkv", 100 + 10 * i, fps=5) for i in range(3)]
    qa = make()
    config = dataclasses.replace(qa.config, model=dataclasses.replace(qa.config.model, name="tiny"))
    assert [indexed.error for indexed in index_videos(paths, config)] == [None] * 3
    spec = qa.spec.to_dict()
    view = ClipTable(qa.store, spec).read(indexed_states(qa.store, spec))
    assert view.lacking == [] and len(view.states) == 3


@pytest.mark.slow
def test_a_pool_bounds_what_is_reranked_and_the_rest_follows(library, make, questions):
    for pool, num_reranked in ((3, 3), ("null", 16), (0, 0)):
        hits = search_library(make(f"rerank.pool={pool}"), questions[0][1], top=100).hits
        scores = [hit.candidate.rerank_score for hit in hits]
        assert [score is not None for score in scores] == [True] * num_reranked + [False] * (16 - num_reranked)


@pytest.mark.slow
def test_what_cannot_be_read_is_named_and_comes_last(library, videos, questions, tmp_path, caplog):
    lost = tmp_path / "lost.mkv"
    video_files.write_video(lost, 100, fps=5)
    library.index(lost)
    lost.unlink()
    ranking = search_library(library, questions[0][1], top=100)
    states = [hit.location.state for hit in ranking.hits]
    assert states == ["ok"] * 16 + ["missing"] * 2
    assert all((hit.candidate.rerank_score is None) == (hit.location.state == "missing") for hit in ranking.hits)
    (warning,) = ranking.warnings
    assert f"{lost} (missing)" in warning and warning in caplog.messages
    answer = ask_library(library, questions[0][1], frames=4)
    assert answer.warnings == ranking.warnings and answer.hit.location.state == "ok"
    assert answer.runners_up[-1].location.path == lost


@pytest.mark.slow
def test_a_moved_video_is_searched_at_its_new_place(make, tmp_path):
    path = video_files.write_video(tmp_path / "a.mkv", 100, fps=5)
    qa = make()
    used = qa.index(path)
    moved = path.rename(tmp_path / "b.mkv")
    ranking = search_library(qa, "a disc")
    assert {(hit.location.path, hit.location.state) for hit in ranking.hits} == {(moved, "moved")}
    assert {hit.location.state for hit in search_library(qa, "a disc").hits} == {"ok"}
    assert qa.index(moved).reused and qa.index(moved).path == used.path


@pytest.mark.slow
def test_a_library_is_searched_under_one_spec(library, make, videos):
    make("video.clip_seconds=8").index(videos[0])
    assert len(Store(library.config.store.folder).paths()) == 3
    assert len(search_library(library, "the red fish", top=100).hits) == 16


def test_an_empty_library_is_reported(make, synthetic_video):
    for call in (search_library, lambda qa, text: ask_library(qa, Question(text))):
        with pytest.raises(LvqaError, match=r"no index in .* was made with tiny and these settings \(0 with others\)"):
            call(make(), "a red car")
    make("video.clip_seconds=8").index(synthetic_video(minutes=1))
    with pytest.raises(LvqaError, match=r"\(1 with others\); index some videos first: lvqa index"):
        search_library(make(), "a red car")


@pytest.mark.slow
def test_the_answer_is_that_of_the_best_video(library, videos, questions):
    question = questions[0][1]
    answer = ask_library(library, question, frames=8)
    best = search_library(library, question, top=1).hits[0]
    assert answer.hit.candidate.clip == best.candidate.clip and answer.video.path == best.location.path
    alone = library.answer(best.location.path, question, frames=8)
    assert (answer.answer.text, answer.answer.frames) == (alone.text, alone.frames)
    (runner_up,) = answer.runners_up
    assert {answer.video.path, runner_up.location.path} == set(videos)
    assert runner_up.candidate.rerank_score <= best.candidate.rerank_score


def test_no_file_that_can_be_read_is_one_line(make, tmp_path):
    path = video_files.write_video(tmp_path / "a.mkv", 100, fps=5)
    qa = make()
    qa.index(path)
    path.unlink()
    with pytest.raises(LvqaError, match=r"no file of the 1 video that match.*a\.mkv is missing.*lvqa library list"):
        ask_library(qa, Question("Where is the disc?"))


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lvqa(tmp_path, monkeypatch):
    """Run a command in this process, in a store of the test."""
    monkeypatch.setenv("LVQA_HOME", str(tmp_path / "store"))

    def run(*words: object, code: int = 0):
        result = CliRunner().invoke(lvqa_command, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture(scope="module")
def indexed_home(videos, tmp_path_factory) -> Path:
    """A store in which the command has indexed both videos."""
    home = tmp_path_factory.mktemp("home")
    words = ["index", *map(str, videos), *TINY, "--quiet"]
    assert CliRunner().invoke(lvqa_command, words, env={"LVQA_HOME": str(home)}).exit_code == 0
    return home


@pytest.fixture
def lvqa_indexed(lvqa, indexed_home, monkeypatch):
    """Run a command in this process, in that store."""
    monkeypatch.setenv("LVQA_HOME", str(indexed_home))
    return lvqa


@pytest.mark.slow
def test_the_commands_say_what_was_reranked_and_which_video_answered(lvqa_indexed, videos, questions, tmp_path):
    lvqa = lvqa_indexed
    search = ("search", "--library", "the red ball", *TINY, "--quiet")
    lines = lvqa(*search).stdout.splitlines()
    assert len(lines) == 5 and all("rerank " in line and any(str(path) in line for path in videos) for line in lines)
    output = json.loads(lvqa(*search, "--json").stdout)
    assert output["reranked"] and [line[:13] for line in output["warnings"]] == ["weak evidence"], (
        "there is no red ball"
    )
    words = ("search", "--library", questions[0][1].text, *TINY, "--quiet", "--json")
    assert json.loads(lvqa(*words).stdout)["warnings"] == []
    assert {*output["results"][0]} >= {"path", "video_id", "state", "start_seconds", "embed_score", "rerank_score"}
    plain = lvqa("search", "--library", "the red ball", *TINY, "--no-rerank")
    assert "rerank " not in plain.stdout and "lvqa: ranked by embedding alone" in plain.stderr
    output = json.loads(lvqa(*search, "--no-rerank", "--json").stdout)
    assert not output["reranked"] and all(result["rerank_score"] is None for result in output["results"])
    output = json.loads(lvqa("search", videos[0], "the red ball", *TINY, "--no-rerank", "--quiet", "--json").stdout)
    assert not output["reranked"] and output["results"][0]["rerank_score"] is None

    page = tmp_path / "answer.html"
    ask = ("ask", "--library", "What is seen?", *TINY, "--quiet", "--frames", 4)
    text = lvqa(*ask, "--report", page).stdout
    answer = json.loads(lvqa(*ask, "--json").stdout)
    assert answer["library"]["path"] in map(str, videos) and len(answer["library"]["runners_up"]) == 1
    assert f"video     {answer['library']['path']}, for " in text and "next best " in text
    assert Path(answer["library"]["path"]).name in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_commands_take_some_videos_of_the_library(lvqa_indexed, videos):
    lvqa = lvqa_indexed
    search = ("search", "--library", "the red ball", *TINY, "--quiet", "--no-rerank", "--json")
    paths = lambda *words: {hit["path"] for hit in json.loads(lvqa(*search, "--top", 16, *words).stdout)["results"]}  # noqa: E731
    assert paths() == paths("--folder", videos[0].parent) == paths("--min-minutes", 1.9) == set(map(str, videos))
    assert paths("--video", videos[1]) == {str(videos[1])} and paths("--until", "2100-01-01") == paths("--exact")
    moments = json.loads(lvqa(*search, "--moments", "--top", 2).stdout)["results"]
    assert len(moments) == 2
    result = lvqa(*search, "--max-minutes", 1, code=1)
    assert "none of the 2 videos of the library can be searched: max_seconds 60.0" in result.stderr
    ask = ("ask", "--library", "What is seen?", *TINY, "--quiet", "--frames", 4, "--json")
    assert json.loads(lvqa(*ask, "--video", videos[1]).stdout)["library"]["path"] == str(videos[1])
    for words in (
        ("search", videos[0], "a dog", "--folder", "/x"),
        ("ask", videos[0], "Where?", "--since", "2026-01-01"),
    ):
        assert "goes with --library" in lvqa(*words, *TINY, code=2).stderr


def test_an_empty_library_is_one_line_and_words_are_counted(lvqa):
    for command in ("search", "ask"):
        result = lvqa(command, "--library", "What is seen?", *TINY, code=1)
        assert result.stderr.startswith("lvqa: no index in ") and "lvqa index PATH" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    result = lvqa("ask", "--library", "video.mp4", "Where?", *TINY, code=2)
    assert "with --library, no VIDEO is given" in result.stderr
    assert "Missing argument 'VIDEO'" in lvqa("ask", *TINY, code=2).stderr
    assert "Missing argument 'QUESTION'" in lvqa("ask", "--library", *TINY, code=2).stderr


# --- a light first pass ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_key_frames_find_what_all_frames_are_reranked_for(make, videos, questions):
    light = make("video.sampling=keyframes", "rerank.pool=8")
    for path in videos:
        light.index(path)
    qa = make("rerank.pool=8")
    with pytest.raises(LvqaError, match="no index"):
        search_library(qa, questions[0][1])
    num_right = 0
    for i, question in questions:
        ranking = search_library(qa, question, top=20, light=True)
        judged = [hit.candidate for hit in ranking.hits if hit.candidate.rerank_score is not None]
        assert len(judged) >= 1 and len({candidate.clip for candidate in judged}) == len(judged)
        hit = ranking.hits[0]
        in_file = qa.with_config(dataclasses.replace(qa.config)).search(hit.location.path, question, top=100)
        by_clip = {candidate.clip: candidate.rerank_score for candidate in in_file}
        # The clips are those of all frames, with the scores that a search in the video gives them.
        reranked = by_clip[hit.candidate.clip]
        assert reranked is None or reranked == pytest.approx(hit.candidate.rerank_score, abs=1e-5)
        num_right += hit.location.path == videos[i]
    assert num_right >= 0.6 * len(questions)


def test_what_goes_with_the_library_is_refused_beside_a_video(tmp_path):
    for option in ("--moments", "--exact", "--light"):
        result = CliRunner().invoke(lvqa_command, ["search", "a.mp4", "red", option])
        assert result.exit_code == 2 and f"{option} goes with --library" in result.output
