"""The door: what it prints, its exit codes, and one clear line for all that can go wrong. On the embedded model.

Nothing here depends on how well the model was trained. `lvqa` runs in this process where that shows the same.
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
import time
from pathlib import Path

import pytest
import video_files
from click.testing import CliRunner, Result
from PIL import Image

from lvqa.cli.index import videos_in
from lvqa.cli.main import COMMANDS, lvqa_command
from lvqa.cli.terminal import Progress, one_line
from lvqa.index import Store
from lvqa.startup import paused_gc
from lvqa.synthetic.videos import make_videos

SEED = 11
TINY = ("--model", "tiny", "--device", "cpu")
LVQA = "from lvqa.cli.main import main; main()"


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """A made film of a minute: 60 grid frames, 4 clips."""
    return make_videos(tmp_path_factory.mktemp("films"), num_videos=1, minutes=1, num_questions=4, seed=SEED)[0]


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """20 seconds at 5 frames a second, with a key frame every 2 seconds: 2 clips."""
    return video_files.write_video(tmp_path_factory.mktemp("short") / "short.mkv", 100, fps=5)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "store"
    monkeypatch.setenv("LVQA_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def lvqa(store):
    def run(*words: object, code: int = 0) -> Result:
        result = CliRunner().invoke(lvqa_command, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def refused(lvqa, store):
    """Runs a command that must end with code 1 and one line that names these things, and leave nothing behind."""

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
def answered(lvqa):
    def run(*words: object) -> dict:
        result = lvqa("ask", *words, *TINY, "--quiet", "--json")
        assert result.stderr == ""
        (line,) = result.stdout.splitlines()
        return json.loads(line)

    return run


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def indexes_in(folder: Path) -> list[Path]:
    """All files but those of visual tokens, of which every finished pair is good, and of what is known of films."""
    return [path for path in files_in(folder) if not path.name.endswith((".tokens", ".metadata.npz"))]


def process(script: str, *words: object, **options) -> subprocess.Popen:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **{**pipes, **options})


# --- the command itself ----------------------------------------------------------------------------------------------


def test_help_is_quick_and_loads_nothing_heavy():
    script = f"import sys; sys.argv[0] = 'lvqa'\ntry:\n    {LVQA}\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        out, modules = process(script, "--help").communicate()
        seconds.append(time.perf_counter() - started)
    assert "ask" in out
    assert not {"torch", "transformers", "ray", "faiss", "av", "matplotlib", "numpy"} & set(modules.split())
    assert min(seconds) < 0.3


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(lvqa, command):
    assert "--help" in lvqa(command, "--help").stdout


def test_the_commands_are_those_of_the_design():
    assert {*COMMANDS} >= {"ask", "search", "index", "make-videos", "demo", "doctor"}


@pytest.mark.parametrize(
    "words",
    [
        ("ask",),
        ("ask", "film.mp4"),
        ("ask", "film.mp4", "Why?", "--frames", "many"),
        ("ask", "film.mp4", "Why?", "--colour"),
        ("search", "film.mp4"),
        ("search", "film.mp4", "red", "car"),
        ("search", "--library", "film.mp4", "red"),
        ("index",),
        ("sing",),
    ],
)
def test_wrong_usage_is_code_2(lvqa, store, words):
    assert "Usage: " in lvqa(*words, code=2).stderr
    assert not store.exists()


def test_garbage_is_looked_for_again_once_a_model_is_loaded():
    try:
        with pytest.raises(ZeroDivisionError), paused_gc():
            assert not gc.isenabled()
            raise ZeroDivisionError
        assert gc.isenabled() and gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_a_bug_keeps_its_traceback(lvqa, monkeypatch, film):
    def broken(path, **_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("lvqa.pipeline.probe", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        lvqa("ask", film, "Where?", *TINY)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nlines \t here", "two lines here"),
        ("a \x1b[31mred\x1b[0m word", "a \\x1b[31mred\\x1b[0m word"),
        ("back\x08space\x00", "back\\x08space\\x00"),
        ("film \udcff.mp4", "film \\udcff.mp4"),
        ("фильм 影片.mp4", "фильм 影片.mp4"),
        ("right\u202eto left", "right\\u202eto left"),
    ],
)
def test_a_message_is_one_line_that_a_terminal_only_shows(text, line):
    assert one_line(text) == line


# --- a good question -------------------------------------------------------------------------------------------------

KEYS = [
    *("question", "image", "voice", "answer", "option", "option_scores", "model", "method", "frames_budget", "frames"),
    *("evidence", "index", "counts", "seconds"),
]
"""As the design names them, and the picture."""


def test_json_is_complete(lvqa, film, store):
    words = ("ask", film, "Где мяч?", "--option", "sea", "--option", "snow", "--frames", 8, *TINY)
    result = lvqa(*words, "--json")
    (line,) = result.stdout.splitlines()
    told = json.loads(line)
    assert list(told) == KEYS
    assert (told["question"], told["model"], told["method"], told["frames_budget"]) == (
        "Где мяч?",
        "tiny",
        "freeret",
        8,
    )
    assert (told["answer"], told["option"]) in (("sea", "A"), ("snow", "B"))
    assert sum(told["option_scores"]) == pytest.approx(1)
    assert [list(frame) for frame in told["frames"]] == [["time_seconds"]] * 8
    assert [sorted(c) for c in told["evidence"]] == [
        ["embed_score", "end_seconds", "rerank_score", "start_seconds"]
    ] * 4
    reranked = [candidate["rerank_score"] for candidate in told["evidence"]]
    assert reranked == sorted(reranked, reverse=True)
    assert told["index"] == {"reused": False, "clips": 4, "path": str(indexes_in(store)[0])}
    assert {*told["counts"]} == {"frames_decoded", "pairs_encoded", "tokens_prefilled"}
    assert all(seconds >= 0 for seconds in told["seconds"].values())
    # A second process finds the index, and says the same.
    again = json.loads(lvqa(*words, "--json").stdout)
    assert again["index"]["reused"] is True
    for key in ("answer", "option", "option_scores", "frames", "evidence"):
        assert again[key] == told[key]


def test_a_free_question_has_no_option(answered, short):
    told = answered(short, "What is seen?", "--method", "uniform")
    assert (told["option"], told["option_scores"], told["index"], told["evidence"]) == (None, [], None, [])
    assert told["image"] is told["voice"] is None
    assert isinstance(told["answer"], str)


def test_people_get_lines(lvqa, film):
    told = lvqa("ask", film, "Where is the ball?", "--option", "sea", "--option", "snow", *TINY)
    first, blank, options, evidence, *_ = told.stdout.splitlines()
    assert first in ("A. sea", "B. snow")
    assert blank == ""
    assert options.startswith("options   A 0.")
    assert "embed 0." in evidence
    assert "rerank 0." in evidence
    assert evidence.split()[1] in ("0:00-0:16", "0:16-0:32", "0:32-0:48", "0:48-1:00")
    assert "frames    16: 0:" in told.stdout
    assert "index of 4 clips made" in told.stdout
    assert told.stderr.splitlines()[-1].startswith("lvqa: rerank 100% (60 of 60 frames")


def test_quiet_is_quiet(lvqa, short):
    assert lvqa("ask", short, "Where?", *TINY, "--quiet").stderr == ""


def test_the_report_is_one_page_that_needs_no_other(lvqa, film, tmp_path):
    page = tmp_path / "new" / "answer.html"
    lvqa("ask", film, "Is <b>it</b> & here?", "--option", "yes", "--option", "no", *TINY, "--report", page)
    html = page.read_text(encoding="utf-8")
    assert "Is &lt;b&gt;it&lt;/b&gt; &amp; here?" in html
    assert html.count('<img src="data:image/jpeg;base64,') == 16
    assert html.count("data:image/svg+xml;base64,") == 1
    assert "http" not in html
    assert "0:16-0:32" in html
    assert files_in(page.parent) == [page]


def test_a_report_that_cannot_be_written_is_named(lvqa, short, tmp_path):
    (tmp_path / "taken").write_text("")
    result = lvqa("ask", short, "Where?", *TINY, "--quiet", "--report", tmp_path / "taken" / "r.html", code=1)
    assert "cannot write" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_later_setting_counts(answered, short, tmp_path):
    (tmp_path / "c.yaml").write_text("method: random\nselection: {frames: 4}\nvideo: {clip_seconds: 4}\n")
    told = answered(short, "Where?", "-c", "c.yaml")
    assert (told["method"], told["frames_budget"]) == ("random", 4)
    told = answered(short, "Where?", "-c", "c.yaml", "-s", "selection.frames=5", "-s", "method=uniform")
    assert (told["method"], told["frames_budget"]) == ("uniform", 5)
    told = answered(
        short, "Where?", "-c", "c.yaml", "-s", "selection.frames=5", "-s", "method=uniform", "--frames", "6",
        "--method", "freeret", "--store", tmp_path / "elsewhere",
    )  # fmt: skip
    assert (told["method"], told["frames_budget"], told["index"]["clips"]) == ("freeret", 6, 5)
    assert Path(told["index"]["path"]).is_relative_to(tmp_path / "elsewhere")


# --- bad files -------------------------------------------------------------------------------------------------------


def bad_file(folder: Path, name: str) -> Path:
    path = folder / name
    if name == "empty.mp4":
        path.write_bytes(b"")
    elif name == "text.mp4":
        path.write_text("this is no film\n" * 200)
    elif name == "sound.mp4":
        video_files.write_sound(path)
    elif name == "headless.mp4":  # an mp4 ends with the table that says where its frames are
        video_files.truncated(video_files.write_video(folder / "whole.mp4"), path)
    elif name == "folder.mp4":
        path.mkdir()
        (path / "notes.txt").write_text("no film")
    elif name == "pipe.mp4":
        os.mkfifo(path)
    elif name != "missing.mp4":
        path.write_bytes(os.urandom(5000))
    return path


BAD_FILES = ["missing.mp4", "empty.mp4", "text.mp4", "sound.mp4", "headless.mp4", "folder.mp4", "noise.mp4", "pipe.mp4"]


@pytest.mark.parametrize("command", ["ask", "search", "index"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_film_is_named(refused, tmp_path, name, command):
    words = () if command == "index" else ("Where?",)
    refused(command, bad_file(tmp_path, name), *words, *TINY, names=(name, "video"))


def test_a_name_that_would_break_the_line_is_written_out(refused):
    refused("ask", "a\nb\x1b[2Jc.mp4", "Where?", *TINY, names="a b\\x1b[2Jc.mp4")


def test_a_name_that_no_system_allows(refused):
    refused("ask", "a" * 5000, "Where?", *TINY, names="too long")


def test_a_truncated_film_is_answered_from_what_is_there(answered, short, tmp_path):
    told = answered(video_files.truncated(short, tmp_path / "cut.mkv"), "Where?", "--frames", 64)
    assert 3 <= len(told["frames"]) <= 14
    assert told["evidence"][0]["end_seconds"] < 14


def test_damage_in_the_middle_costs_the_damaged_part_only(answered, short, tmp_path):
    told = answered(video_files.damaged(short, tmp_path / "damaged.mkv"), "Where?", "--frames", 64)
    times = [frame["time_seconds"] for frame in told["frames"]]
    assert min(times) == 0
    assert max(times) >= 18


def test_any_name_will_do(answered, lvqa, short, tmp_path):
    path = tmp_path / "мой фильм 影片 'a' & b;.mkv"
    path.write_bytes(short.read_bytes())
    assert len(answered(path, "Where?")["frames"]) == 16
    found = json.loads(lvqa("search", "--library", "a disc", *TINY, "--json", "--quiet").stdout)
    assert found["results"][0]["path"] == str(path)


def test_a_name_that_is_no_text_will_do(answered, short, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mkv"))
    path.write_bytes(short.read_bytes())
    assert len(answered(path, "Where?")["frames"]) == 16


@pytest.mark.parametrize(("num_frames", "frames"), [(1, [0]), (5, [0]), (75, [0, 1, 2])])
def test_a_film_shorter_than_the_budget_shows_all_it_has(answered, lvqa, tmp_path, num_frames, frames):
    path = video_files.write_video(tmp_path / "tiny.mp4", num_frames)
    for method in ("freeret", "uniform"):
        told = answered(path, "Where?", "--method", method)
        assert [frame["time_seconds"] for frame in told["frames"]] == frames
    assert f"frames    {len(frames)} (the video has no more)" in lvqa("ask", path, "Where?", *TINY).stdout


# --- bad questions and settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", ["", "   ", "\n\t"])
def test_an_empty_question_is_refused(refused, film, question):
    refused("ask", film, question, *TINY, names="question is empty")
    refused("search", film, question, *TINY, names="question is empty")
    refused("search", "--library", question, *TINY, names="question is empty")


def test_a_question_of_10000_words_is_refused(refused, film):
    refused("ask", film, "what is it " * 3334, *TINY, names=("36674 characters", "allowed: 8000"))


def options(texts) -> list[str]:
    return [word for text in texts for word in ("--option", text)]


@pytest.mark.parametrize(
    ("texts", "names"),
    [(["one"], "got 1"), (map(str, range(21)), "got 21"), (["yes", " "], "['yes', ' ']")],
    ids=["one", "21", "blank"],
)
def test_a_wrong_set_of_options_is_refused(refused, film, texts, names):
    refused("ask", film, "Where?", *options(texts), *TINY, names=("option", names))


def test_twenty_options_are_fine(answered, short):
    told = answered(short, "Where?", *options(f"place {i}" for i in range(20)))
    assert told["option"] in tuple("ABCDEFGHIJKLMNOPQRST")
    assert len(told["option_scores"]) == 20


@pytest.mark.parametrize("frames", [0, -1])
def test_no_frames_are_refused(refused, film, frames):
    refused("ask", film, "Where?", "--frames", frames, *TINY, names=("frames", "1 or more", f"got {frames}"))


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("method", ["freeret", "topk", "uniform", "random"])
def test_few_frames_are_fine(answered, short, frames, method):
    assert len(answered(short, "Where?", "--frames", frames, "--method", method)["frames"]) == frames


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--model", "no/such/model"), ("'no/such/model'", "hub id")),
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
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else None,
)
def test_settings_that_are_not_known_are_named(refused, short, tmp_path, words, names):
    (tmp_path / "bad.yaml").write_text("colour: red\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    refused("ask", short, "Where?", *TINY, "--quiet", *words, names=names)


def test_a_model_that_the_hub_does_not_give_is_named(short, store):
    running = process(LVQA, "ask", short, "Where?", "--model", "nobody/no-such-model", "--store", store)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (1, "")
    (line,) = err.splitlines()
    assert "'nobody/no-such-model'" in line
    assert files_in(store) == []


@pytest.mark.parametrize("top", [0, -2])
def test_top_is_checked(refused, film, top):
    refused("search", film, "ball", "--top", top, *TINY, names=("top", str(top)))


# --- the store -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("ask", "Where?"), ("index",)])
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no folder here that no one can write into")
def test_a_store_where_no_one_can_write_is_named(lvqa, short, command):
    (line,) = lvqa(command[0], short, *command[1:], *TINY, "--store", "/proc/lvqa", code=1).stderr.splitlines()
    assert "cannot write the index into /proc/lvqa" in line
    assert "give another --store" in line


@pytest.mark.parametrize("command", [("ask", "Where?"), ("index",)])
def test_a_store_inside_a_file_is_named(lvqa, short, tmp_path, command):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    result = lvqa(command[0], short, *command[1:], *TINY, "--store", taken / "store", code=1)
    (line,) = result.stderr.splitlines()
    assert str(taken / "store") in line
    assert taken.read_text() == "a file"


def test_a_disk_that_fills_up_leaves_nothing(short, store):
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); {LVQA}"
    running = process(limited, "index", short, *TINY, "--store", store, "--quiet")
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (1, "")
    (line,) = err.splitlines()
    assert str(store) in line
    assert "make room" in line
    assert files_in(store) == []


def test_a_stale_index_is_made_anew_and_said(lvqa, short, store):
    lvqa("index", short, *TINY, "--quiet")
    (old,) = indexes_in(store)
    content = old.read_bytes()
    result = lvqa("ask", short, "Where?", *TINY, "-s", "video.clip_seconds=4", "--json")
    told = json.loads(result.stdout)
    assert (told["index"]["reused"], told["index"]["clips"]) == (False, 5)
    assert result.stderr.splitlines()[0] == f"lvqa: {short}: index made anew because settings or model changed"
    assert old.read_bytes() == content
    assert len(indexes_in(store)) == 2
    again = lvqa("ask", short, "Where?", *TINY, "--json")
    assert json.loads(again.stdout)["index"] == {"reused": True, "clips": 2, "path": str(old)}
    assert "made anew" not in again.stderr


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_index_is_refused_and_can_be_mended(lvqa, short, store, harm):
    lvqa("index", short, *TINY, "--quiet")
    (path,) = indexes_in(store)
    data = bytearray(path.read_bytes())
    data[data.index(Store(store).read(path).halves.tobytes()[:64])] ^= 1
    path.write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[harm])
    for words in (("ask", short, "Where?"), ("search", short, "ball"), ("index", short)):
        (line,) = lvqa(*words, *TINY, code=1).stderr.splitlines()
        assert str(path) in line
        assert "lvqa index --rebuild" in line
    assert "indexed in" in lvqa("index", short, "--rebuild", *TINY).stdout
    assert indexes_in(store) == [path]
    assert json.loads(lvqa("ask", short, "Where?", *TINY, "--json").stdout)["index"]["reused"] is True


def test_ctrl_c_while_indexing_leaves_nothing_and_the_next_run_works(lvqa, film, store):
    words = ("index", film, *TINY, "-s", "video.frames_per_second=8")
    running = process(LVQA, *words, "--quiet")
    deadline = time.monotonic() + 60
    while not (store / "index").exists() and time.monotonic() < deadline:  # made when the work begins
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    interrupted = time.monotonic()
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (130, "", "lvqa: interrupted\n")
    assert time.monotonic() - interrupted < 10
    assert indexes_in(store) == []
    assert "4 clips, indexed in" in lvqa(*words).stdout
    assert len(indexes_in(store)) == 1


def test_a_decoder_that_hangs_does_not_keep_the_process(short, store):
    script = f"""
import time
from lvqa import video

class Hanging(video.PyAVDecoder):
    def frames(self, film, times_seconds, **size):
        for place, frame in enumerate(super().frames(film, times_seconds, **size)):
            if place == 5:
                time.sleep(1000)
            yield frame

video.DECODERS["hanging"] = Hanging
{LVQA}"""
    running = process(
        script, "index", short, *TINY, "--store", store, "-s", "video.decoder=hanging", "-s", "video.stall_seconds=0.5"
    )
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    (line,) = err.splitlines()
    assert str(short) in line
    assert "at 5 s of the video" in line
    assert files_in(store) == []


def test_a_reader_that_stops_reading_gets_no_traceback(film):
    reading, writing = os.pipe()
    os.close(reading)
    # The film is there, so all that it does is print its name.
    words = ("make-videos", film.parent.parent, "--minutes", 1, "--questions", 4, "--seed", SEED)
    running = process(LVQA, *words, stdout=writing)
    os.close(writing)
    _, err = running.communicate(timeout=60)
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert running.returncode in (0, 1)


# --- index and search ------------------------------------------------------------------------------------------------


def test_a_folder_is_its_videos_in_order(tmp_path):
    for name in ("b.MP4", "a.mkv", "notes.txt", "c"):
        (tmp_path / name).write_text("")
    (tmp_path / "d.mp4").mkdir()
    assert videos_in([tmp_path, Path("other")]) == ([tmp_path / "a.mkv", tmp_path / "b.MP4", Path("other")], [])


def test_indexing_goes_on_after_a_failure(lvqa, short, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.mp4").write_text("no film")
    (folder / "b.mkv").write_bytes(short.read_bytes())
    result = lvqa("index", folder, tmp_path / "missing.mp4", *TINY, "--quiet", code=3)
    assert result.stdout.startswith(f"{folder / 'b.mkv'}: 2 clips, indexed in")
    first, second = result.stderr.splitlines()
    assert "a.mp4" in first
    assert "missing.mp4" in second
    told = [json.loads(line) for line in lvqa("index", folder, *TINY, "--quiet", "--json", code=3).stdout.splitlines()]
    by_name = {Path(line["path"]).name: line for line in told}
    assert "not readable" in by_name["a.mp4"]["error"]
    assert (by_name["b.mkv"]["error"], by_name["b.mkv"]["reused"], by_name["b.mkv"]["clips"]) == (None, True, 2)


def test_indexing_that_fails_for_all_is_code_1(lvqa, tmp_path):
    result = lvqa("index", tmp_path / "a.mp4", tmp_path / "b.mp4", *TINY, "--quiet", code=1)
    assert len(result.stderr.splitlines()) == 2
    assert "no video file" in lvqa("index", tmp_path, *TINY, code=1).stderr


def test_a_picture_can_be_searched_for_and_asked_about(lvqa, refused, film, tmp_path):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (60, 40), (0, 0, 255)).save(picture)
    refused("search", film, "--image", tmp_path / "other.png", *TINY, names=("other.png", "no such file"))
    refused("ask", film, "", "--image", picture, *TINY, names="question is empty")
    for words in ([film], [film, "a ball"], ["--library"]):
        told = json.loads(lvqa("search", *words, "--image", picture, *TINY, "--json", "--quiet").stdout)
        assert len(told["results"]) == 4
    page = tmp_path / "answer.html"
    words = ["ask", film, "What is it?", "--image", picture, *TINY, "--quiet"]
    told = json.loads(lvqa(*words, "--json", "--report", page).stdout)
    assert (told["question"], told["image"], told["index"]["reused"]) == ("What is it?", str(picture), True)
    source = re.search(r'class="asked" src="data:image/jpeg;base64,([^"]+)"', page.read_text(encoding="utf-8"))[1]
    drawn = Image.open(io.BytesIO(base64.b64decode(source)))
    assert drawn.size == (60, 40) and drawn.getpixel((30, 20)) == pytest.approx((0, 0, 255), abs=4)


def test_search_tells_the_best_moments(lvqa, short, film):
    lines = lvqa("search", film, "the red ball", "--top", 3, *TINY, "--quiet").stdout.splitlines()
    assert len(lines) == 3
    assert all("embed " in line and "rerank " in line for line in lines)
    told = json.loads(lvqa("search", film, "the red ball", "--top", 3, *TINY, "--json", "--quiet").stdout)
    assert (told["query"], told["model"], len(told["results"])) == ("the red ball", "tiny", 3)
    assert told["results"][0]["path"] == str(film)
    lvqa("index", short, *TINY, "--quiet")
    library = lvqa("search", "--library", "the red ball", "--top", 100, *TINY, "--quiet").stdout
    assert (library.count(str(film)), library.count(str(short))) == (4, 2)


def test_an_empty_library_is_named(refused, store):
    refused("search", "--library", "the red ball", *TINY, names=(str(store), "lvqa index"))


# --- made films, the demo, the doctor --------------------------------------------------------------------------------


def test_make_film_makes_a_benchmark(lvqa, tmp_path):
    made = lvqa("make-videos", tmp_path / "bench", "--minutes", 1, "--questions", 3, "--seed", 5)
    assert [Path(line).is_file() for line in made.stdout.splitlines()] == [True]
    (line,) = (tmp_path / "bench" / "video_info.meta.jsonl").read_text().splitlines()
    assert len(json.loads(line)["qa"]) == 3
    assert made.stderr.splitlines()[-1].startswith("lvqa: make film 100% (60 of 60 s")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--films", 0), ("videos", "0")),
        (("--minutes", 0), ("minutes", "0")),
        (("--minutes", "nan"), ("minutes", "nan")),
        (("--minutes", "inf"), ("minutes", "inf")),
        (("--questions", -1), ("questions", "-1")),
        (("--seed", -1), ("seed", "-1")),
        (("--minutes", 1, "--questions", 5000), ("5000", "longer")),
    ],
)
def test_films_that_cannot_be_made_are_refused(refused, tmp_path, monkeypatch, words, names):
    monkeypatch.setattr("lvqa.synthetic.questions.MAX_MISSES", 20)  # it gives up sooner
    refused("make-videos", tmp_path / "bench", *words, names=names)
    assert not (tmp_path / "bench").exists()


def test_a_folder_for_films_that_cannot_be_written_is_named(refused, tmp_path):
    (tmp_path / "taken").write_text("")
    refused("make-videos", tmp_path / "taken", "--minutes", 1, "--questions", 1, names=str(tmp_path / "taken"))


def test_the_demo_shows_the_whole_path(lvqa, tmp_path):
    told = lvqa("demo", "--minutes", 1, "--folder", tmp_path / "demo", "--quiet", "--device", "cpu").stdout
    assert "knows only the made world" in told
    assert told.count("   uniform  ") == told.count("   freeret  ") == told.count("   truth    ") == 4
    assert "right at 16 frames: uniform " in told
    assert (tmp_path / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert files_in(tmp_path / "store") == []


def test_the_demo_keeps_off_the_held_out_films(refused, tmp_path):
    refused("demo", "--seed", 900_000, "--folder", tmp_path / "demo", names=("900000", "899999"))


def test_the_doctor_finds_all_well(lvqa):
    told = lvqa("doctor", "--device", "cpu").stdout
    words = {line.split()[1]: line.split()[0] for line in told.splitlines()}
    assert {*words} >= {"lvqa", "torch", "transformers", "av", "decord", "faiss", "ray", "CPU", "GPU", "store", "disk"}
    assert words["torch"] == words["store"] == words["model"] == "ok"
    assert "broken" not in words.values()


def test_the_doctor_names_what_is_broken(lvqa, tmp_path):
    (tmp_path / "taken").write_text("")
    told = lvqa("doctor", "--store", tmp_path / "taken" / "store", "--model", "no/such/model", code=1).stdout
    broken = [line for line in told.splitlines() if line.startswith("broken")]
    assert [line.split()[1] for line in broken] == ["store", "model"]
    assert "taken" in broken[0]
    assert "'no/such/model'" in broken[1]


# --- progress --------------------------------------------------------------------------------------------------------


def test_progress_off_a_terminal_is_a_line_a_tenth_at_most(capsys, monkeypatch):
    monkeypatch.setattr("lvqa.cli.terminal.SECONDS_BETWEEN_LINES", 0.0)
    with Progress(quiet=False) as progress:
        for done in range(1, 101):
            progress("index", done, 100)
        progress("index", 7, 7)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("lvqa: decode+index 10% (20 of 200 frames, ")
    assert lines[-1].startswith("lvqa: decode+index 100% (14 of 14 frames, ")


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(quiet=False) as progress:
        progress("rerank", 3, 10)
        progress("rerank", 10, 10)
    told = capsys.readouterr().err
    assert "rerank: 100%" in told
    assert "20/20" in told
    assert "frames/s" in told or "?" in told
