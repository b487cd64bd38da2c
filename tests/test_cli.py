"""The command line: what it prints, its exit codes, and one clear line for each error. On the embedded model.

Nothing here depends on how well the model was trained. `lvqa` runs in this process where that makes no difference.
"""

import base64
import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import video_files
import worker_tasks
from click.testing import CliRunner, Result
from forked import Program
from PIL import Image
from processes import LVQA_AND_MODULES, PATIENCE_SECONDS, wait_until
from stored_pages import stored_values

from lvqa.cli.index import videos_in
from lvqa.cli.main import COMMANDS, lvqa_command
from lvqa.cli.terminal import Progress, echo_message, one_line
from lvqa.config import Config
from lvqa.index import Store
from lvqa.records import SYNTHETIC_TAG
from lvqa.startup import paused_gc
from lvqa.synthetic.videos import make_videos

SEED = 11
TINY = ("--model", "tiny", "--device", "cpu")
LVQA = "from lvqa.cli.main import main; main()"


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A synthetic video of one minute: 60 frames in the grid, 4 clips."""
    return make_videos(tmp_path_factory.mktemp("videos"), num_videos=1, minutes=1, num_questions=4, seed=SEED)[0]


@pytest.fixture(scope="module")
def short_video(tmp_path_factory) -> Path:
    """20 seconds at 5 frames a second, with a key frame every 2 seconds: 2 clips."""
    tag = {"comment": SYNTHETIC_TAG}  # so that the embedded model does not warn
    return video_files.write_video(tmp_path_factory.mktemp("short") / "short.mkv", 100, fps=5, metadata=tag)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "store"
    monkeypatch.setenv("LVQA_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def lvqa(store):
    """Run the command in this process and return its result. `code` is the exit code that is expected."""

    def run(*words: object, code: int = 0) -> Result:
        result = CliRunner().invoke(lvqa_command, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def assert_refused(lvqa, store):
    """Run a command that must exit with 1, print one line with these names, and write no file."""

    def run(*words: object, names: str | tuple[str, ...]) -> str:
        result = lvqa(*words, code=1)
        (line,) = result.stderr.splitlines()
        assert result.stdout == ""
        assert line.startswith("lvqa: ")
        for name in (names,) if isinstance(names, str) else names:
            assert name in line
        assert files_in(store) == []
        return line

    return run


@pytest.fixture
def ask_json(lvqa):
    """Return the JSON of `lvqa ask --json`."""

    def run(*words: object) -> dict:
        result = lvqa("ask", *words, *TINY, "--quiet", "--json")
        (line,) = result.stdout.splitlines()
        output = json.loads(line)
        path = one_line(output["video"]["path"])
        assert result.stderr.splitlines() == [f"lvqa: {path}: {warning}" for warning in output["warnings"]]
        return output

    return run


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


KNOWN_OF_FILES = (".identity.json", ".metadata.npz", ".video.json")
"""The endings of what is known of video files: it is whole, and may stay where a command fails."""


def results_in(folder: Path) -> list[Path]:
    """Return what a command has made in the store, and all that is not whole."""
    return [path for path in files_in(folder) if not path.name.endswith(KNOWN_OF_FILES)]


def indexes_in(folder: Path) -> list[Path]:
    """Return the files of indexes; the store also has files of visual tokens and of metadata."""
    return [path for path in files_in(folder) if path.suffix == ".parquet"]


def process(script: str, *words: object, **options) -> subprocess.Popen:
    environment = {"OMP_NUM_THREADS": "1", **options.pop("environment", {})}
    command = [sys.executable, "-c", script, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=os.environ | environment, text=True, **{**pipes, **options})


# --- the command itself ----------------------------------------------------------------------------------------------


def test_help_is_quick_because_it_loads_nothing_heavy():
    out, modules = process(LVQA_AND_MODULES, "--help").communicate()
    assert "ask" in out
    assert not {"torch", "transformers", "ray", "faiss", "av", "matplotlib", "numpy"} & set(modules.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [("library list", "0 videos"), ("library prune", "0 bytes"), ("view none", "none"), ("report none", "none")],
)
def test_what_only_reads_files_loads_no_library_of_models(tmp_path, words, line):
    environment = {"LVQA_HOME": str(tmp_path)}
    out, errors = process(LVQA_AND_MODULES, *words.split(), environment=environment, cwd=tmp_path).communicate()
    *lines, modules = errors.splitlines()
    assert line in out + "".join(lines)
    assert not {"torch", "transformers", "faiss", "av"} & set(modules.split())


def test_no_summary_of_a_command_is_cut(lvqa):
    _, summaries = lvqa("--help").stdout.split("Commands:\n")
    lines = summaries.strip().splitlines()
    assert [line.split()[0] for line in lines] == sorted(COMMANDS)
    assert [line for line in lines if line.endswith("...") or len(line.split()) < 3] == []


@pytest.mark.parametrize(("command", "name_today"), [("make-film", "make-videos"), ("probe", "diagnose")])
def test_a_renamed_command_is_refused_with_its_name_today(lvqa, store, command, name_today):
    assert lvqa(command, "video.mp4", code=2).stderr == f"lvqa: lvqa {command} is called lvqa {name_today} since 0.2\n"
    assert not store.exists()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(lvqa, command):
    assert "--help" in lvqa(command, "--help").stdout


def test_the_commands_of_the_design_exist():
    assert {*COMMANDS} >= {"ask", "search", "index", "make-videos", "demo", "doctor"}


@pytest.mark.parametrize(
    "words",
    [
        ("ask",),
        ("ask", "video.mp4"),
        ("ask", "video.mp4", "Why?", "--frames", "many"),
        ("ask", "video.mp4", "Why?", "--colour"),
        ("search", "video.mp4"),
        ("search", "video.mp4", "red", "car"),
        ("search", "--library", "video.mp4", "red"),
        ("index",),
        ("sing",),
    ],
)
def test_wrong_usage_is_code_2(lvqa, store, words):
    assert "Usage: " in lvqa(*words, code=2).stderr
    assert not store.exists()


def test_garbage_collection_resumes_after_loading():
    try:
        with pytest.raises(ZeroDivisionError), paused_gc():
            assert not gc.isenabled()
            raise ZeroDivisionError
        assert gc.isenabled() and gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


@pytest.mark.slow
def test_a_bug_keeps_its_traceback(lvqa, monkeypatch, video):
    def broken(path, **_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("lvqa.video.inspect_video", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        lvqa("ask", video, "Where?", *TINY)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nlines \t here", "two lines here"),
        ("a \x1b[31mred\x1b[0m word", "a \\x1b[31mred\\x1b[0m word"),
        ("back\x08space\x00", "back\\x08space\\x00"),
        ("video \udcff.mp4", "video \\udcff.mp4"),
        ("видео 影片.mp4", "видео 影片.mp4"),
        ("right\u202eto left", "right\\u202eto left"),
    ],
)
def test_a_message_is_one_line_that_cannot_control_a_terminal(text, line):
    assert one_line(text) == line


# --- a good question -------------------------------------------------------------------------------------------------

KEYS = [
    *(
        "question",
        "image",
        "voice",
        "options",
        "answer",
        "parsed",
        "option",
        "option_scores",
        "method",
        "time_read",
        "question_kind",
        "looked_again",
        "frames_budget",
        "frames",
    ),
    *("evidence", "warnings", "frames_substituted", "index", "counts", "answer_tokens", "answer_visual_tokens"),
    *("seconds", "video"),
    *("model", "model_revision", "settings", "versions"),
]
"""The keys of the JSON of `lvqa ask --json`."""


@pytest.mark.slow
def test_json_is_complete(lvqa, video, store):
    words = ("ask", video, "Где мяч?", "--option", "sea", "--option", "snow", "--frames", 8, *TINY)
    result = lvqa(*words, "--json")
    (line,) = result.stdout.splitlines()
    output = json.loads(line)
    assert list(output) == KEYS
    assert (output["question"], output["model"], output["method"], output["frames_budget"]) == (
        "Где мяч?",
        "tiny",
        "freeret",
        8,
    )
    assert (output["answer"], output["option"]) in (("sea", "A"), ("snow", "B"))
    assert sum(output["option_scores"]) == pytest.approx(1)
    assert [list(frame) for frame in output["frames"]] == [["time_seconds", "substituted"]] * 8
    assert [sorted(c) for c in output["evidence"]] == [
        ["embed_score", "end_seconds", "frames", "rerank_score", "start_seconds"]
    ] * 4
    reranked = [candidate["rerank_score"] for candidate in output["evidence"]]
    assert reranked == sorted(reranked, reverse=True)
    assert output["index"] == {"reused": False, "clips": 4, "path": str(indexes_in(store)[0])}
    assert {*output["counts"]} == {"frames_decoded", "pairs_encoded", "tokens_prefilled"}
    assert all(seconds >= 0 for seconds in output["seconds"].values())
    # A second process reuses the index and prints the same.
    again = json.loads(lvqa(*words, "--json").stdout)
    assert again["index"]["reused"] is True
    for key in ("answer", "option", "option_scores", "frames", "evidence"):
        assert again[key] == output[key]


def test_a_free_question_has_no_option(ask_json, short_video):
    output = ask_json(short_video, "What is seen?", "--method", "uniform")
    assert (output["option"], output["option_scores"], output["index"], output["evidence"]) == (None, [], None, [])
    assert output["image"] is output["voice"] is None
    assert isinstance(output["answer"], str)


@pytest.mark.slow
def test_without_json_lines_are_printed(lvqa, video):
    result = lvqa("ask", video, "Where is the ball?", "--option", "sea", "--option", "snow", *TINY)
    first, blank, options, evidence, *_ = result.stdout.splitlines()
    assert first in ("A. sea", "B. snow")
    assert blank == ""
    assert options.startswith("options   A 0.")
    assert "embed 0." in evidence
    assert "rerank 0." in evidence
    assert evidence.split()[1] in ("0:00-0:16", "0:16-0:32", "0:32-0:48", "0:48-1:00")
    assert "frames    16: 0:" in result.stdout
    assert "index of 4 clips built" in result.stdout
    assert "\nlvqa: rerank 100% (60 of 60 frames" in f"\n{result.stderr}"


def test_quiet_is_quiet(lvqa, short_video):
    assert lvqa("ask", short_video, "Where?", *TINY, "--quiet", "--method", "uniform").stderr == ""


@pytest.mark.slow
def test_the_report_is_one_page_that_needs_no_other(lvqa, video, tmp_path):
    page = tmp_path / "new" / "answer.html"
    lvqa("ask", video, "Is <b>it</b> & here?", "--option", "yes", "--option", "no", *TINY, "--report", page)
    html = page.read_text(encoding="utf-8")
    assert "<b>it</b>" not in html and {*re.findall("https?://[^\"']+", html)} == {"http://www.w3.org/2000/svg"}
    stored = stored_values(page)
    (entry,) = stored["answer"]["answers"]
    assert entry["answer"]["question"] == "Is <b>it</b> & here?" and len(entry["answer"]["frames"]) == 16
    (pictures,) = stored["pictures"].values()
    assert len(pictures) == 16 and all(base64.b64decode(one)[:2] == b"\xff\xd8" for one in pictures.values())
    assert files_in(page.parent) == [page]


@pytest.mark.slow
def test_the_later_setting_counts(ask_json, short_video, tmp_path):
    (tmp_path / "c.yaml").write_text("method: random\nselection: {frames: 4}\nvideo: {clip_seconds: 4}\n")
    output = ask_json(short_video, "Where?", "-c", "c.yaml")
    assert (output["method"], output["frames_budget"]) == ("random", 4)
    output = ask_json(short_video, "Where?", "-c", "c.yaml", "-s", "selection.frames=5", "-s", "method=uniform")
    assert (output["method"], output["frames_budget"]) == ("uniform", 5)
    output = ask_json(
        short_video, "Where?", "-c", "c.yaml", "-s", "selection.frames=5", "-s", "method=uniform", "--frames", "6",
        "--method", "freeret", "--store", tmp_path / "elsewhere",
    )  # fmt: skip
    assert (output["method"], output["frames_budget"], output["index"]["clips"]) == ("freeret", 6, 5)
    assert Path(output["index"]["path"]).is_relative_to(tmp_path / "elsewhere")


# --- bad files -------------------------------------------------------------------------------------------------------


def bad_file(folder: Path, name: str) -> Path:
    path = folder / name
    if name == "empty.mp4":
        path.write_bytes(b"")
    elif name == "text.mp4":
        path.write_text("this is not a video\n" * 200)
    elif name == "sound.mp4":
        video_files.write_sound(path)
    elif name == "headless.mp4":  # the table of the frames is at the end of an mp4 file
        video_files.truncated(video_files.write_video(folder / "whole.mp4"), path)
    elif name == "folder.mp4":
        path.mkdir()
        (path / "notes.txt").write_text("not a video")
    elif name == "pipe.mp4":
        os.mkfifo(path)
    elif name != "missing.mp4":
        path.write_bytes(os.urandom(5000))
    return path


BAD_FILES = ["missing.mp4", "empty.mp4", "text.mp4", "sound.mp4", "headless.mp4", "folder.mp4", "noise.mp4", "pipe.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ask", "search", "index"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_video_is_named(assert_refused, tmp_path, name, command):
    words = () if command == "index" else ("Where?",)
    assert_refused(command, bad_file(tmp_path, name), *words, *TINY, names=(name, "video"))


def test_a_name_that_would_break_the_line_is_written_out(assert_refused):
    assert_refused("ask", "a\nb\x1b[2Jc.mp4", "Where?", *TINY, names="a b\\x1b[2Jc.mp4")


def test_a_name_that_no_system_allows(assert_refused):
    assert_refused("ask", "a" * 5000, "Where?", *TINY, names="too long")


@pytest.mark.slow
def test_a_truncated_video_is_answered_from_what_is_there(ask_json, short_video, tmp_path):
    output = ask_json(video_files.truncated(short_video, tmp_path / "cut.mkv"), "Where?", "--frames", 64)
    assert 3 <= len(output["frames"]) <= 14
    assert output["evidence"][0]["end_seconds"] < 14


@pytest.mark.slow
def test_damage_in_the_middle_costs_only_the_damaged_frames(ask_json, short_video, tmp_path):
    output = ask_json(video_files.damaged(short_video, tmp_path / "damaged.mkv"), "Where?", "--frames", 64)
    times = [frame["time_seconds"] for frame in output["frames"]]
    assert min(times) == 0
    assert max(times) >= 18


@pytest.mark.slow
def test_any_name_will_do(ask_json, lvqa, short_video, tmp_path):
    path = tmp_path / "моё видео 影片 'a' & b;.mkv"
    path.write_bytes(short_video.read_bytes())
    assert len(ask_json(path, "Where?")["frames"]) == 16
    output = json.loads(lvqa("search", "--library", "a disc", *TINY, "--json", "--quiet").stdout)
    assert output["results"][0]["path"] == str(path)


@pytest.mark.slow
def test_a_name_that_is_no_text_will_do(ask_json, short_video, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mkv"))
    path.write_bytes(short_video.read_bytes())
    assert len(ask_json(path, "Where?")["frames"]) == 16


@pytest.mark.parametrize(("num_frames", "frames"), [(1, [0]), (5, [0]), (75, [0, 1, 2])])
@pytest.mark.slow
def test_a_video_shorter_than_the_budget_gives_all_its_frames(ask_json, lvqa, tmp_path, num_frames, frames):
    path = video_files.write_video(tmp_path / "tiny.mp4", num_frames)
    for method in ("freeret", "uniform"):
        output = ask_json(path, "Where?", "--method", method)
        assert [frame["time_seconds"] for frame in output["frames"]] == frames
    assert f"frames    {len(frames)} (the video has no more)" in lvqa("ask", path, "Where?", *TINY).stdout


@pytest.mark.slow
def test_fewer_frames_than_the_budget_are_explained_by_what_chose_them(lvqa, video, tmp_path):
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps({video.stem: [{"question_id": "q", "question": "Where?", "frames": [3, 9]}]}))
    output = lvqa("ask", video, "Where?", "--method", chosen, *TINY, "--quiet").stdout
    assert "frames    2 (the method chose no more): 0:03 0:09" in output


# --- bad questions and settings --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("question", ["", "   ", "\n\t"])
def test_an_empty_question_is_refused(assert_refused, video, question):
    assert_refused("ask", video, question, *TINY, names="question is empty")
    assert_refused("search", video, question, *TINY, names="question is empty")
    assert_refused("search", "--library", question, *TINY, names="question is empty")


@pytest.mark.parametrize("text", ["wh\ud800y", "caf\udce9?"], ids=["lone surrogate", "latin-1"])
def test_a_text_that_is_no_unicode_is_refused(assert_refused, video, text):
    assert_refused("ask", video, text, *TINY, names=("the question", "Unicode", "at character"))
    assert_refused("ask", video, "Why?", "--option", "yes", "--option", text, *TINY, names=("an option", "Unicode"))
    assert_refused("search", video, text, *TINY, names=("the question", "Unicode"))
    assert_refused("search", "--library", text, *TINY, names=("the question", "Unicode"))


@pytest.mark.parametrize("command", [("ask",), ("search",), ("index",)])
@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("https://www.youtube.com/watch?v=xyz", "yt-dlp -o video.mp4 https://www.youtube.com/watch?v=xyz"),
        ("file:///tmp/x.mp4", "give the path alone"),
    ],
)
def test_an_address_must_be_downloaded_first(assert_refused, command, address, advice):
    assert_refused(*command, address, *(["Where?"] if command != ("index",) else []), *TINY, names=(address, advice))


def test_a_question_of_10000_words_is_refused(assert_refused, video):
    assert_refused("ask", video, "what is it " * 3334, *TINY, names=("36674 characters", "allowed: 8000"))


def options(texts) -> list[str]:
    return [word for text in texts for word in ("--option", text)]


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["one"], "got 1"),
        (map(str, range(21)), "got 21"),
        (["yes", " "], "['yes', ' ']"),
        (["no", "no "], "equal: 'no'"),
    ],
    ids=["one", "21", "blank", "equal"],
)
def test_a_wrong_set_of_options_is_refused(assert_refused, video, texts, names):
    assert_refused("ask", video, "Where?", *options(texts), *TINY, names=("option", names))


@pytest.mark.slow
def test_twenty_options_are_fine(ask_json, short_video):
    output = ask_json(short_video, "Where?", *options(f"place {i}" for i in range(20)))
    assert output["option"] in tuple("ABCDEFGHIJKLMNOPQRST")
    assert len(output["option_scores"]) == 20


@pytest.mark.parametrize("frames", [0, -1])
def test_no_frames_are_refused(assert_refused, video, frames):
    assert_refused("ask", video, "Where?", "--frames", frames, *TINY, names=("frames", "1 or more", f"got {frames}"))


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("method", ["freeret", "topk", "uniform", "random"])
@pytest.mark.slow
def test_few_frames_are_fine(ask_json, short_video, frames, method):
    assert len(ask_json(short_video, "Where?", "--frames", frames, "--method", method)["frames"]) == frames


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--model", "no/such/model"), ("'no/such/model'", "hub id")),
        (("--model", "tinny"), ("'tinny'", "did you mean 'tiny'?")),
        (("--model", "."), ("'.'", "config.json")),
        (("--model", ""), "''"),
        (("--device", "abacus"), ("'abacus'", "cpu")),
        (("--method", "best"), ("'best'", "freeret")),
        (("-s", "metod=uniform"), ("'metod'", "-s metod=uniform", "method")),
        (("-s", "video.clip_seconds=soon"), ("video.clip_seconds", "'soon'", "number")),
        (("-s", "video.clip_seconds=-1"), ("clip_seconds", "-1", "more than 0")),
        (("-s", "video.decoder=vlc"), ("'vlc'", "pyav")),
        (("-s", "rerank.name=best"), ("'best'", "mcq")),
        (("-s", "embedding.state=best"), ("'best'", "attention")),
        (("-s", "selection.frames"), ("key=value", "'selection.frames'")),
        (("-s", "method=[1"), ("-s method=[1", "YAML")),
        (("-c", "none.yaml"), "none.yaml"),
        (("-c", "."), "configuration ."),
        (("-c", "bad.yaml"), ("bad.yaml", "'colour'")),
        (("-c", "binary.yaml"), ("binary.yaml", "UTF-8")),
        (("--method", "oracle"), ("'oracle'", "evidence")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_settings_that_are_not_known_are_named(assert_refused, short_video, tmp_path, words, names):
    (tmp_path / "bad.yaml").write_text("colour: red\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert_refused("ask", short_video, "Where?", *TINY, "--quiet", *words, names=names)


@pytest.mark.slow
def test_a_model_that_the_hub_does_not_give_is_named(short_video, store):
    running = process(LVQA, "ask", short_video, "Where?", "--model", "nobody/no-such-model", "--store", store)
    out, err = running.communicate(timeout=PATIENCE_SECONDS)
    assert (running.returncode, out) == (1, "")
    (line,) = err.splitlines()
    assert "'nobody/no-such-model'" in line
    assert files_in(store) == []


@pytest.mark.parametrize("top", [0, -2])
def test_top_is_checked(assert_refused, video, top):
    assert_refused("search", video, "ball", "--top", top, *TINY, names=("top", str(top)))


# --- the store -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("ask", "Where?"), ("index",)])
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="this system has no folder that nobody can write into")
def test_a_store_that_cannot_be_written_is_named(lvqa, short_video, command):
    (line,) = lvqa(command[0], short_video, *command[1:], *TINY, "--store", "/proc/lvqa", code=1).stderr.splitlines()
    assert "cannot write the index into /proc/lvqa" in line
    assert "give another --store" in line


@pytest.mark.slow
@pytest.mark.parametrize("command", [("ask", "Where?"), ("index",)])
def test_a_store_inside_a_file_is_named(lvqa, short_video, tmp_path, command):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    result = lvqa(command[0], short_video, *command[1:], *TINY, "--store", taken / "store", code=1)
    (line,) = result.stderr.splitlines()
    assert str(taken / "store") in line
    assert taken.read_text() == "a file"


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_nothing(short_video, store):
    running = Program("index", short_video, *TINY, "--store", store, "--quiet", before=worker_tasks.limit_files)
    out, err = running.communicate()
    assert (running.process.exitcode, out) == (1, "")
    (line,) = err.splitlines()
    assert str(store) in line
    assert "make room" in line
    assert results_in(store) == []


@pytest.mark.slow
def test_other_settings_have_an_index_of_their_own(lvqa, short_video, store):
    lvqa("index", short_video, *TINY, "--quiet")
    (old,) = indexes_in(store)
    content = old.read_bytes()
    result = lvqa("ask", short_video, "Where?", *TINY, "-s", "video.clip_seconds=4", "--json")
    output = json.loads(result.stdout)
    assert (output["index"]["reused"], output["index"]["clips"]) == (False, 5)
    assert old.read_bytes() == content
    assert len(indexes_in(store)) == 2
    again = lvqa("ask", short_video, "Where?", *TINY, "--json")
    assert json.loads(again.stdout)["index"] == {"reused": True, "clips": 2, "path": str(old)}


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
@pytest.mark.slow
def test_a_damaged_index_is_refused_and_can_be_rebuilt(lvqa, short_video, store, harm):
    lvqa("index", short_video, *TINY, "--quiet")
    (path,) = indexes_in(store)
    data = bytearray(path.read_bytes())
    data[data.index(Store(store).read(path).halves.tobytes()[:64])] ^= 1
    path.write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[harm])
    for words in (("ask", short_video, "Where?"), ("search", short_video, "ball"), ("index", short_video)):
        (line,) = lvqa(*words, *TINY, code=1).stderr.splitlines()
        assert str(path) in line
        assert "lvqa index --rebuild" in line
    assert "indexed in" in lvqa("index", short_video, "--rebuild", *TINY).stdout
    assert indexes_in(store) == [path]
    assert json.loads(lvqa("ask", short_video, "Where?", *TINY, "--json").stdout)["index"]["reused"] is True


@pytest.mark.slow
def test_ctrl_c_while_indexing_leaves_nothing_and_the_next_run_works(lvqa, video, store):
    words = ("index", video, *TINY, "-s", "video.frames_per_second=8")
    running = Program(*words, "--quiet")
    wait_until((store / "index").exists)  # it is made when the work starts
    os.kill(running.process.pid, signal.SIGINT)
    assert running.communicate() == ("", "lvqa: interrupted\n")
    assert running.process.exitcode == 130
    assert indexes_in(store) == []
    assert "4 clips, indexed in" in lvqa(*words).stdout
    assert len(indexes_in(store)) == 1


@pytest.mark.slow
def test_a_decoder_that_hangs_does_not_keep_the_process(short_video, store):
    options = ("-s", "video.decoder=hanging", "-s", "video.stall_seconds=0.5")
    words = ("index", short_video, *TINY, "--store", store, *options)
    running = Program(*words, before=worker_tasks.install_hanging_decoder)
    _, err = running.communicate()
    assert running.process.exitcode == 1
    (line,) = err.splitlines()
    assert str(short_video) in line
    assert "at 5 s of the video" in line
    assert results_in(store) == []


@pytest.mark.slow
def test_a_closed_output_gives_no_traceback(video):
    reading, writing = os.pipe()
    os.close(reading)
    # The video exists, so the command only prints its name.
    words = ("make-videos", video.parent.parent, "--minutes", 1, "--questions", 4, "--seed", SEED)
    running = process(LVQA, *words, stdout=writing)
    os.close(writing)
    _, err = running.communicate(timeout=PATIENCE_SECONDS)
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert running.returncode in (0, 1)


# --- index and search ------------------------------------------------------------------------------------------------


def test_a_folder_is_its_videos_in_order(tmp_path):
    for name in ("b.MP4", "a.mkv", "notes.txt", "c"):
        (tmp_path / name).write_text("")
    (tmp_path / "d.mp4").mkdir()
    assert videos_in([tmp_path, Path("other")]) == ([tmp_path / "a.mkv", tmp_path / "b.MP4", Path("other")], [])


def test_subfolders_are_searched_only_when_asked_for(tmp_path, caplog):
    top, below, deep = tmp_path / "top.mp4", tmp_path / "b" / "below.H264", tmp_path / "a" / "c" / "deep.m2v"
    for path in (top, below, deep):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert videos_in([tmp_path], recursive=True) == ([top, deep, below], [])
    assert not caplog.messages
    assert videos_in([tmp_path]) == ([top], [])
    assert caplog.messages == [f"{tmp_path}: its subfolders hold videos, too, for example {deep}; add --recursive"]
    caplog.clear()
    top.unlink()
    message = f"{tmp_path}: this folder contains no video file; its subfolders do, for example {deep}: add --recursive"
    assert videos_in([tmp_path]) == ([], [(tmp_path, message)])
    assert videos_in([deep.parent]) == ([deep], []) and not caplog.messages


@pytest.mark.parametrize("suffix", ["m2v", "h264", "264", "hevc", "dv", "ogm", "f4v", "3g2", "divx", "rm"])
def test_a_folder_is_searched_for_less_common_suffixes(tmp_path, suffix):
    path = tmp_path / f"video.{suffix.upper()}"
    path.touch()
    assert videos_in([tmp_path]) == ([path], [])


@pytest.mark.slow
def test_indexing_goes_on_after_a_failure(lvqa, short_video, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_text("not a video")
    (folder / "b.mkv").write_bytes(short_video.read_bytes())
    result = lvqa("index", folder, tmp_path / "missing.mp4", *TINY, "--quiet", code=3)
    assert result.stdout.startswith(f"{folder / 'b.mkv'}: 2 clips, indexed in")
    first, second = result.stderr.splitlines()
    assert "a.mp4" in first
    assert "missing.mp4" in second
    outputs = [
        json.loads(line) for line in lvqa("index", folder, *TINY, "--quiet", "--json", code=3).stdout.splitlines()
    ]
    by_name = {Path(line["path"]).name: line for line in outputs}
    assert "not readable" in by_name["a.mp4"]["error"]
    assert (by_name["b.mkv"]["error"], by_name["b.mkv"]["reused"], by_name["b.mkv"]["clips"]) == (None, True, 2)


@pytest.mark.slow
def test_indexing_that_fails_for_all_is_code_1(lvqa, tmp_path):
    result = lvqa("index", tmp_path / "a.mp4", tmp_path / "b.mp4", *TINY, "--quiet", code=1)
    assert len(result.stderr.splitlines()) == 2
    assert "no video file" in lvqa("index", tmp_path, *TINY, code=1).stderr


@pytest.mark.slow
def test_a_picture_can_be_searched_for_and_asked_about(lvqa, assert_refused, video, tmp_path):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (60, 40), (0, 0, 255)).save(picture)
    assert_refused("search", video, "--image", tmp_path / "other.png", *TINY, names=("other.png", "no such file"))
    assert_refused("ask", video, "", "--image", picture, *TINY, names="question is empty")
    for words in ([video], [video, "a ball"], ["--library"]):
        output = json.loads(lvqa("search", *words, "--image", picture, *TINY, "--json", "--quiet").stdout)
        assert len(output["results"]) == 4
    page = tmp_path / "answer.html"
    words = ["ask", video, "What is it?", "--image", picture, *TINY, "--quiet"]
    output = json.loads(lvqa(*words, "--json", "--report", page).stdout)
    assert (output["question"], output["image"], output["index"]["reused"]) == ("What is it?", str(picture), True)
    source = re.search(
        r'class="question-image" src="data:image/jpeg;base64,([^"]+)"', page.read_text(encoding="utf-8")
    )[1]
    picture = Image.open(io.BytesIO(base64.b64decode(source)))
    assert picture.size == (60, 40) and picture.getpixel((30, 20)) == pytest.approx((0, 0, 255), abs=4)


@pytest.mark.slow
def test_search_prints_the_best_moments(lvqa, short_video, video):
    lines = lvqa("search", video, "the red ball", "--top", 3, *TINY, "--quiet").stdout.splitlines()
    assert len(lines) == 3
    assert all("embed " in line and "rerank " in line for line in lines)
    output = json.loads(lvqa("search", video, "the red ball", "--top", 3, *TINY, "--json", "--quiet").stdout)
    assert (output["query"], output["model"], len(output["results"])) == ("the red ball", "tiny", 3)
    assert output["results"][0]["path"] == str(video)
    lvqa("index", short_video, *TINY, "--quiet")
    library = lvqa("search", "--library", "the red ball", "--top", 100, *TINY, "--quiet").stdout
    assert (library.count(str(video)), library.count(str(short_video))) == (4, 2)


def test_an_empty_library_is_named(assert_refused, store):
    assert_refused("search", "--library", "the red ball", *TINY, names=(str(store), "lvqa index"))


# --- synthetic videos, the demo, the doctor ---------------------------------------------------------------------------


@pytest.mark.slow
def test_make_videos_makes_a_benchmark(lvqa, tmp_path):
    result = lvqa("make-videos", tmp_path / "bench", "--minutes", 1, "--questions", 3, "--seed", 5)
    assert [Path(line).is_file() for line in result.stdout.splitlines()] == [True]
    (line,) = (tmp_path / "bench" / "video_info.meta.jsonl").read_text().splitlines()
    assert len(json.loads(line)["qa"]) == 3
    assert result.stderr.splitlines()[-1].startswith("lvqa: make videos 100% (60 of 60 s")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--videos", 0), ("videos", "0")),
        (("--minutes", 0), ("minutes", "0")),
        (("--minutes", "nan"), ("minutes", "nan")),
        (("--minutes", "inf"), ("minutes", "inf")),
        (("--questions", -1), ("questions", "-1")),
        (("--seed", -1), ("seed", "-1")),
        pytest.param(("--minutes", 1, "--questions", 5000), ("5000", "longer"), marks=pytest.mark.slow),
    ],
)
def test_videos_that_cannot_be_made_are_refused(assert_refused, tmp_path, monkeypatch, words, names):
    monkeypatch.setattr("lvqa.synthetic.questions.MAX_MISSES", 20)  # so that it gives up sooner
    assert_refused("make-videos", tmp_path / "bench", *words, names=names)
    assert not (tmp_path / "bench").exists()


def test_a_folder_for_videos_that_cannot_be_written_is_named(assert_refused, tmp_path):
    (tmp_path / "taken").write_text("")
    assert_refused("make-videos", tmp_path / "taken", "--minutes", 1, "--questions", 1, names=str(tmp_path / "taken"))


@pytest.mark.slow
def test_the_demo_runs_all_stages(lvqa, tmp_path):
    output = lvqa("demo", "--minutes", 1, "--folder", tmp_path / "demo", "--quiet", "--device", "cpu").stdout
    assert "knows only the synthetic world" in output
    assert output.count("   uniform  ") == output.count("   freeret  ") == output.count("   truth    ") == 4
    assert "correct at 16 frames: uniform " in output
    assert (tmp_path / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert files_in(tmp_path / "store") == []


def test_the_demo_refuses_held_out_seeds(assert_refused, tmp_path):
    assert_refused("demo", "--seed", 900_000, "--folder", tmp_path / "demo", names=("900000", "899999"))


@pytest.mark.slow
def test_the_doctor_reports_that_all_is_well(lvqa):
    output = lvqa("doctor", "--device", "cpu").stdout
    words = {line.split()[1]: line.split()[0] for line in output.splitlines()}
    assert {*words} >= {"lvqa", "torch", "transformers", "av", "decord", "faiss", "ray", "CPU", "GPU", "store", "disk"}
    assert words["torch"] == words["store"] == words["model"] == "ok"
    assert "broken" not in words.values()


@pytest.mark.slow
def test_the_doctor_names_what_is_broken(lvqa, tmp_path):
    (tmp_path / "taken").write_text("")
    output = lvqa("doctor", "--store", tmp_path / "taken" / "store", "--model", "no/such/model", code=1).stdout
    broken = [line for line in output.splitlines() if line.startswith("broken")]
    assert [line.split()[1] for line in broken] == ["store", "model"]
    assert "taken" in broken[0]
    assert "'no/such/model'" in broken[1]


@pytest.mark.slow
@pytest.mark.parametrize("named", ["--model", "-s model.name="])
def test_the_doctor_checks_the_default_model_where_it_is_named(lvqa, tmp_path, named):
    name = Config().model.name
    options = [named, name] if named == "--model" else ["-s", f"model.name={name}"]
    output = lvqa("doctor", "--store", tmp_path, *options, code=1).stdout
    (line,) = [line for line in output.splitlines() if line.startswith("broken")]
    assert f"{name} does not answer" in line


@pytest.mark.slow
def test_the_doctor_names_a_missing_home(lvqa, monkeypatch):
    monkeypatch.delenv("LVQA_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", dict[int, object]().__getitem__)
    output = lvqa("doctor", "--device", "cpu", code=1).stdout
    (broken,) = [line for line in output.splitlines() if line.startswith("broken")]
    assert broken.split()[1] == "store" and "LVQA_HOME" in broken and "--store" in broken


def test_bench_measures_a_model_or_random_weights_and_not_both(assert_refused):
    assert_refused("bench", "--model", "tiny", "--random", "3b", names=("--model tiny", "--random 3b"))


# --- progress --------------------------------------------------------------------------------------------------------


def test_progress_outside_a_terminal_is_at_most_a_line_for_each_tenth(capsys, monkeypatch):
    monkeypatch.setattr("lvqa.cli.terminal.SECONDS_BETWEEN_LINES", 0.0)
    with Progress(quiet=False) as progress:
        for num_done in range(1, 101):
            progress("index", num_done, 100)
        progress("index", 7, 7)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("lvqa: index 10% (20 of 200 frames")
    assert lines[-1] == "lvqa: index 100% (14 of 14 frames)"


def test_slow_progress_says_how_slow_and_how_long(capsys, monkeypatch):
    monkeypatch.setattr("lvqa.cli.terminal.SECONDS_BETWEEN_LINES", 0.0)
    seconds = iter([0.0, 2.0, 20.0, 25.0])
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    with Progress(quiet=False) as progress:
        progress("answer", 1, 200)
        progress("answer", 20, 200)
        progress("answer", 200, 200)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "lvqa: answer 10% (20 of 200 answers, 57 answers/min, 3:09 left)"
    assert lines[1] == "lvqa: answer 100% (200 of 200 answers, 8.0 answers/s)"


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(quiet=False) as progress:
        progress("rerank", 3, 10)
        progress("rerank", 10, 10)
    output = capsys.readouterr().err
    assert "rerank: 100%" in output
    assert "20/20" in output and ".0" not in output.split("[")[0]
    assert "frames/s" in output or "?" in output


def test_lines_stand_above_the_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(quiet=False) as progress:
        progress("plan", 1, 3)
        echo_message("a line")
        progress("plan", 3, 3)
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "lvqa: a line" in [line.strip() for line in lines], "nothing stands before it on its line"


def test_a_bar_that_is_full_at_once_has_no_rate(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(quiet=False) as progress:
        progress("plan", 2, 2)
        progress("index", 60, 60)
    output = capsys.readouterr().err
    assert "2/2" in output and "120/120" in output
    assert re.search(r"\d frames/s|\d videos/s", output) is None
