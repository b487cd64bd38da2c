"""Videos and stores that lie elsewhere: on a local S3 server and a local web server, both real."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from object_storage import BUCKET, WebServer, copies, forget_copies, put, s3_server, use_place
from pipelines import make_pipeline
from processes import wait_until

from lvqa.cli.main import lvqa_command
from lvqa.datasets import load_dataset
from lvqa.index import ClipIndex, Store
from lvqa.library import Library
from lvqa.library.indexed import indexed_states
from lvqa.library.table import ClipTable
from lvqa.places import RemotePath, as_path, fetch_seconds, files_by_folder, hosts, in_use, keep_copies, remote_path
from lvqa.places.copies import DEFAULT_MIB
from lvqa.records import Clip, LvqaError
from lvqa.server.registry import VideoRegistry
from lvqa.server.settings import ServerSettings
from lvqa.video import VideoError, inspect_video, store_metadata

pytestmark = pytest.mark.slow

QUESTION = "Which object is shown?"
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The folder of lvqa on this machine; hosts are those of the tests alone."""
    use_place(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(remote_path, "STATE_SECONDS", 0)
    remote_path.forget_states()
    return tmp_path / "home"


@pytest.fixture
def bucket(home, address, monkeypatch, request) -> RemotePath:
    """A folder of its own for each test."""
    use_place(monkeypatch, home, address)
    return as_path(f"s3://{BUCKET}/{request.node.name.replace('[', '-').strip(']')}")


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer(os.urandom(MEBIBYTE))
    yield server
    server.close()


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    yield
    keep_copies(DEFAULT_MIB)


def run(*words: object) -> tuple[int, list[str], str]:
    """Run a command in this process; return its exit code, the lines of stdout, and stderr."""
    result = CliRunner().invoke(lvqa_command, [*map(str, words)], catch_exceptions=False)
    return result.exit_code, result.stdout.splitlines(), result.stderr


# --- names -----------------------------------------------------------------------------------------------------------


NAMES = st.text(st.characters(exclude_characters="/\0?#", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name.strip(".") != ""
)


@given(st.sampled_from(sorted(hosts.HOSTS)), st.lists(NAMES, min_size=1, max_size=4))
def test_a_location_survives_all_that_is_done_to_paths(scheme, names):
    url = f"{scheme}://{'/'.join(['host', *names])}"
    path = as_path(url)
    assert str(path) == url and path.name == names[-1] and path == as_path(path)
    for other in (as_path(Path(url)), pickle.loads(pickle.dumps(path)), copy.deepcopy(path), path.absolute()):
        assert isinstance(other, RemotePath) and str(other) == url and hash(other) == hash(path)
    assert str(path.parent / path.name) == str(path.with_name(path.name)) == url
    assert path.is_relative_to(as_path(f"{scheme}://host")) and path.is_absolute()


@pytest.mark.parametrize("name", ["a.mp4", "/tmp/s3/a.mp4", "s3", "c:/a", "file:///a", "S3:", "s3:///"])
def test_a_path_of_this_machine_is_none_elsewhere(name):
    assert type(as_path(name)) is type(Path()) and as_path(name) == Path(name)


def test_the_name_of_a_web_address_is_without_its_query():
    path = as_path("https://example.org/talks/one.mp4?token=a/b.c")
    assert path.name == "one.mp4" and path.suffix == ".mp4" and str(path).endswith("?token=a/b.c")


# --- a video elsewhere -----------------------------------------------------------------------------------------------


def test_an_answer_is_that_from_the_local_file(tiny, synthetic_video, bucket, home, tmp_path):
    """The video and the store lie on the server; another machine, without copies, finds the index there."""
    video = synthetic_video()
    local = make_pipeline(tiny, tmp_path / "store").ask(video, QUESTION, frames=8)
    there, store = put(f"{bucket}/a.mp4", video), bucket / "store"
    answer = make_pipeline(tiny, store).ask(str(there), QUESTION, frames=8)
    assert (answer.text, answer.frames, answer.evidence) == (local.text, local.frames, local.evidence)
    assert answer.index.path.parent == store / "index" and not answer.index.reused
    assert list((home / "tokens").glob("*.tokens")), "visual tokens are kept on this machine"
    (copy_of_video,) = (path for path in copies(home) if path.suffix == ".mp4")
    copy_of_video.unlink()
    assert make_pipeline(tiny, store).search(there, QUESTION) == make_pipeline(tiny, tmp_path / "store").search(
        video, QUESTION
    )
    assert not copy_of_video.exists(), "a search that finds visual tokens fetches nothing"
    forget_copies(home)
    again = make_pipeline(tiny, store).ask(there, QUESTION, frames=8)
    assert again.index.reused and again.evidence == local.evidence and again.text == local.text
    other = home / "tokens" / "0123456789abcdef-0123456789abcdef.tokens"
    other.write_bytes(b"another store's")
    Library(Store(store)).forget(there)
    assert list((home / "tokens").iterdir()) == [other]


def test_what_the_store_knows_of_a_video_needs_no_copy(synthetic_video, bucket, home):
    there, store = put(f"{bucket}/a.mp4", synthetic_video()), bucket / "store"
    time.sleep(2.1)  # what is hashed sooner is hashed again: times may have steps of two seconds
    video = inspect_video(there, metadata_folder=store)
    store_metadata(there, store)
    forget_copies(home)
    script = (
        "import sys; from lvqa.video import inspect_video; from lvqa.places import as_path\n"
        "print(inspect_video(sys.argv[1], metadata_folder=as_path(sys.argv[2])).id)"
    )
    result = subprocess.run([sys.executable, "-c", script, str(there), str(store)], capture_output=True, text=True)
    assert result.stdout.strip() == video.id, result.stderr
    assert copies(home) == []


def test_an_object_that_was_changed_is_fetched_anew(synthetic_video, bucket, home):
    there = put(f"{bucket}/a.mp4", synthetic_video())
    first, late = inspect_video(there).id, inspect_video(there)
    put(str(there), synthetic_video(seed=12))
    assert inspect_video(there).id == inspect_video(synthetic_video(seed=12)).id != first
    with pytest.raises(VideoError, match="changed after it was inspected"):
        _ = late.id


def test_a_prefix_is_indexed_listed_and_searched_by_commands(synthetic_video, bucket, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("talks/one.mp4", "talks/more/two.mp4", "talks/notes.txt"):
        put(f"{bucket}/{name}", synthetic_video(seed=11 if "one" in name else 12))
    options = ["--model", "tiny", "--store", f"{bucket}/store"]
    code, lines, err = run("index", f"{bucket}/talks/", "--json", *options)
    assert code == 0 and json.loads(lines[0])["path"] == f"{bucket}/talks/one.mp4" and "--recursive" in err
    code, lines, _ = run("index", f"{bucket}/talks", "--recursive", "--json", *options)
    results = [json.loads(line) for line in lines]
    names = [f"{bucket}/talks/{name}" for name in ("one.mp4", "more/two.mp4")]
    assert code == 0 and sorted(row["path"] for row in results) == sorted(names)
    assert {row["path"]: row["reused"] for row in results} == {names[0]: True, names[1]: False}
    _, lines, _ = run("library", "list", "--json", "--store", f"{bucket}/store")
    listed = json.loads("\n".join(lines))["videos"]
    assert sorted(video["path"] for video in listed) == sorted(names)
    code, lines, _ = run("search", names[1], "a red ball", "--json", *options)
    assert code == 0 and json.loads("\n".join(lines))["results"][0]["path"] == names[1]
    assert list(tmp_path.glob("s3*")) == [], "no folder of this machine is named after the place"


def test_questions_of_a_file_name_videos_elsewhere(synthetic_video, bucket, home, tmp_path):
    there = put(f"{bucket}/a.mp4", synthetic_video())
    line = {"video": str(there), "question": "What?", "options": ["a", "b"], "answer": "A"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(line))
    (task,) = load_dataset("own", tmp_path).tasks
    assert str(task.path) == str(there) and task.path.is_file()


def test_a_benchmark_is_read_where_it_lies(synthetic_video, bucket, home):
    put(f"{bucket}/videos/a.mp4", synthetic_video())
    line = {"video": "a", "question": "What?", "options": ["a", "b"], "answer": "A"}
    put(f"{bucket}/questions.jsonl", json.dumps(line).encode())
    (task,) = load_dataset("own", bucket).tasks
    assert str(task.path) == f"{bucket}/videos/a.mp4"


def test_a_server_has_the_videos_of_a_prefix_and_no_others(synthetic_video, bucket, home, tmp_path):
    there = put(f"{bucket}/talks/a.mp4", synthetic_video())
    other = put(f"{bucket}/b.mp4", synthetic_video(seed=12))
    config = make_config(tmp_path / "store")
    registry = VideoRegistry(ServerSettings(config=config, paths=(there.parent,)))
    registry.scan()
    assert [video["path"] for video in registry.list({})] == [str(there)]
    assert registry.find(str(there)).path == there
    with pytest.raises(Exception, match="there is no video"):
        registry.find(str(other))


def make_config(store: Path):
    from lvqa.config import load_config

    return load_config(None, ["model.name=tiny", f"store.folder={store}"])


# --- the store -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_here", [True, False], ids=["here", "elsewhere"])
def test_a_store_is_the_same_wherever_it_lies(is_here, synthetic_video, bucket, home, tmp_path):
    """Save, load, list, forget: the contract of Store and Library, on a folder and on a bucket."""
    video = inspect_video(synthetic_video())
    store = Store(tmp_path / "store" if is_here else bucket / "store")
    store.prepare()
    store_metadata(video.path, store.folder)
    clips = [Clip(video.id, float(i), float(i + 1)) for i in range(3)]
    specs = [{"a": 1}, {"a": 2}]
    saved = [store.save(ClipIndex.of(clips, [[1, 2], [2, 1], [1, 1]], video_id=video.id, spec=s), video) for s in specs]
    assert store.load(video.id, specs[0]).halves.tobytes() == saved[0].halves.tobytes()
    assert store.load(video.id, {"a": 3}) is None
    assert store.paths() == sorted(index.path for index in saved)
    assert {str(store.read(path).spec) for path in store.paths()} == {str(spec) for spec in specs}
    assert [*indexed_states(store, specs[1])] == [video.id] and indexed_states(store, {"a": 3}) == {}
    table = ClipTable(store, specs[1])
    table.update(indexed_states(store, specs[1]))
    assert table.read(indexed_states(store, specs[1])).lacking == []
    assert is_here == (store.folder.parent in table.folder.parents), "the table is a cache on this machine"
    (known,) = Library(store).videos()
    assert (known.id, known.location.path, len(known.indexes)) == (video.id, video.path, 2)
    assert known.num_bytes >= sum(path.stat().st_size for path in store.paths())
    Library(store).forget(video.id)
    assert Library(store).videos() == [] and store.paths() == []


def test_lvqa_home_may_lie_elsewhere(bucket, home, monkeypatch):
    monkeypatch.setenv("LVQA_HOME", f"{bucket}/home")
    assert str(Store().folder) == f"{bucket}/home/index"
    assert Store().tokens_path("abc", {}).is_relative_to(home / "cache")
    Store().prepare()


# --- copies ----------------------------------------------------------------------------------------------------------


def fetch(url: str) -> Path:
    return Path(os.fspath(as_path(url)))


def test_the_copy_whose_last_use_is_longest_ago_goes_first(bucket, home):
    paths = [put(f"{bucket}/{i}", os.urandom(MEBIBYTE)) for i in range(3)]
    keep_copies(2)
    first, second = fetch(str(paths[0])), fetch(str(paths[1]))
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert fetch(str(paths[0])) == first  # a use
    third = fetch(str(paths[2]))
    assert copies(home) == sorted([first, third])


def test_a_copy_in_use_stays_whoever_uses_it(bucket, home):
    paths = [put(f"{bucket}/{i}", os.urandom(MEBIBYTE)) for i in range(3)]
    keep_copies(1)
    script = (
        "import os, sys; from lvqa.places import as_path, in_use\n"
        "path = as_path(sys.argv[1])\n"
        "with in_use(path):\n    print(os.fspath(path), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(paths[0])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        theirs = Path(other.stdout.readline().strip())
        with in_use(paths[1]):
            ours = fetch(str(paths[1]))
            last = fetch(str(paths[2]))
            assert set(copies(home)) == {theirs, ours, last}, "the bound holds for what nobody uses"
        other.communicate("")
    newest = fetch(str(put(f"{bucket}/3", os.urandom(MEBIBYTE))))
    assert copies(home) == [newest]


def test_inside_a_use_the_copy_stays_the_same(bucket, home):
    there = put(f"{bucket}/a", b"before")
    with in_use(there):
        copy_before = fetch(str(there))
        put(str(there), b"after")
        assert fetch(str(there)) == copy_before and fetch(str(there)).read_bytes() == b"before"
    with there.open("rb") as file:
        assert file.read() == b"after"


def test_processes_that_want_the_same_file_fetch_it_once(web, home):
    web.pause_seconds = 0.5
    script = "import os, sys; from lvqa.places import as_path\nprint(os.fspath(as_path(sys.argv[1])))"
    command = [sys.executable, "-c", script, f"{web.url}/a.mp4"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    names = {process.communicate()[0].strip() for process in processes}
    (name,) = names
    assert Path(name).read_bytes() == web.content and web.requests["GET /a.mp4"] == 1


def test_a_process_that_is_killed_leaves_no_copy_and_holds_nobody_up(web, home):
    web.pause_seconds = 30
    script = "import os, sys; from lvqa.places import as_path\nos.fspath(as_path(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", script, f"{web.url}/a.mp4"])
    wait_until(lambda: any(path.suffix == ".tmp" for path in copies(home)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    (leftover,) = copies(home)
    os.utime(leftover, (1, 1))
    web.pause_seconds = 0
    assert fetch(f"{web.url}/a.mp4").read_bytes() == web.content
    assert leftover not in copies(home) and len(copies(home)) == 1


def test_a_connection_that_breaks_off_once_is_tried_again(web, home):
    assert fetch(f"{web.url}/once.mp4").read_bytes() == web.content
    assert web.requests["GET /once.mp4"] == 2


def test_a_disk_without_room_is_one_line(bucket, home):
    there = put(f"{bucket}/a", b"content")
    home.mkdir()
    (home / "copies").write_bytes(b"a file where the folder should be")
    with pytest.raises(VideoError, match=r"cannot keep a local copy in .*LVQA_HOME names another folder$"):
        inspect_video(there)


# --- what can go wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("404.mp4", "there is no such file"),
        ("403.mp4", "access is denied"),
        ("500.mp4", "the host can't be reached, or fails .*500"),
        ("cut.mp4", "the host can't be reached, or fails .*Not enough data"),
        ("page", "is the address of a page; download its video first: yt-dlp -o video.mp4 http"),
        ("silent.mp4", "the host can't be reached, or fails .*[Tt]imeout"),
    ],
)
def test_a_web_address_that_gives_no_file_is_one_line(name, reason, web, home, monkeypatch):
    monkeypatch.setattr(hosts, "SILENCE_SECONDS", 1.0)
    hosts.forget_hosts()
    with pytest.raises(VideoError, match=reason) as caught:
        inspect_video(f"{web.url}/{name}")
    assert str(caught.value).startswith(f"{web.url}/{name}") and "\n" not in str(caught.value)
    assert [path for path in copies(home) if path.suffix != ".tmp"] == []


@pytest.mark.parametrize(
    "url", ["https://www.youtube.com/watch?v=abc", "https://youtu.be/abc", "https://player.vimeo.com/video/1"]
)
def test_an_address_of_a_player_is_refused_without_the_network(url, home):
    with pytest.raises(VideoError, match=r"is the address of a page; download its video first: yt-dlp -o video\.mp4 "):
        inspect_video(url)


@pytest.mark.parametrize("url", [f"s3://{BUCKET}/none.mp4", "s3://no-such-bucket/a.mp4"])
def test_an_object_or_bucket_that_is_not_there_is_one_line(url, bucket):
    with pytest.raises(VideoError, match=f"^{url}: there is no such object or bucket$"):
        inspect_video(url)
    assert not as_path(url).exists() and list(as_path(url).parent.glob("*.none")) == []


def test_a_store_in_a_bucket_that_is_not_there_is_one_line(bucket):
    with pytest.raises(LvqaError, match=r"^cannot write the index into s3://no-such-bucket/index: .*no such"):
        Store(as_path("s3://no-such-bucket")).prepare()


@pytest.mark.parametrize(("name", "reason"), [("403", "access is denied; set AWS_ACCESS_KEY_ID and"), ("500", "fails")])
def test_a_server_that_refuses_is_one_line(name, reason, web, home, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    with pytest.raises(VideoError, match=rf"^s3://bucket/{name}\.mp4: .*{reason}"):
        inspect_video(f"s3://bucket/{name}.mp4")


def test_a_place_that_nobody_answers_at_is_one_line(home, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(VideoError, match=r"^s3://bucket/a\.mp4: the host can't be reached, or fails .*connect"):
        inspect_video("s3://bucket/a.mp4")
    assert fetch_seconds(as_path("s3://bucket/a.mp4")) == 0


def test_nothing_is_written_to_the_web_or_listed_there(web, home):
    path = as_path(f"{web.url}/a.mp4")
    for act in (lambda: path.write_bytes(b"1"), lambda: list(path.iterdir()), lambda: path.open("wb"), path.unlink):
        with pytest.raises(LvqaError, match=f"^{path}: "):
            act()
    assert not path.is_dir()


def test_files_by_folder_is_the_same_here_and_elsewhere(bucket, tmp_path, home):
    names = ["b.txt", "a.txt", "x/c.txt", "x/y/d.txt", "w/e.txt"]
    for name in names:
        put(f"{bucket}/{name}", b"1")
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(b"1")
    here = [
        [str(path.relative_to(tmp_path / "files")) for path in group] for group in files_by_folder(tmp_path / "files")
    ]
    there = [[str(path).removeprefix(f"{bucket}/") for path in group] for group in files_by_folder(bucket)]
    assert there == here
