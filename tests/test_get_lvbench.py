"""The script that fetches LVBench's videos, with a fake yt-dlp and a local hub."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from annotation_files import lvbench_line, lvbench_row

from lvqa.datasets import load_dataset

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


YT_DLP = """#!{python}
# A yt-dlp that fetches nothing: what happens is in the video's id. Like the real one it writes NAME.part, goes on
# with it, and renames it at the end.
import os, signal, sys
from pathlib import Path
key = sys.argv[-1].partition("v=")[2]
path = Path(sys.argv[sys.argv.index("--output") + 1] % {{}})
part = Path(f"{{path}}.part")
with Path(r"{log}").open("a") as log:
    print(*sys.argv[1:], file=log)
if key.startswith("private"):
    print("WARNING: odd", f"ERROR: [youtube] {{key}}: Private video", sep="\\n", file=sys.stderr)
    sys.exit(1)
if key.startswith("nothing"):
    sys.exit(0)
if key.startswith("crash") and not part.exists():
    part.write_text("first half, ")
    os.kill(os.getpid(), signal.SIGKILL)
if key.startswith("stop"):
    part.write_text("first half, ")
    os.kill(os.getppid(), signal.SIGINT)
    signal.pause()
with part.open("a") as file:
    file.write("second half")
part.rename(path)
"""


def run_here(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)


class Fetching:
    """The script on a folder of its own, with the fake yt-dlp alone on its PATH."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, self.log = tmp_path / "100% lvbench", tmp_path / "calls.txt"
        self.annotations, self.programs = tmp_path / "given.jsonl", tmp_path / "programs"
        self.programs.mkdir()
        self.program = self.programs / "yt-dlp"
        self.program.write_text(YT_DLP.format(python=sys.executable, log=self.log))
        self.program.chmod(0o755)

    def annotate(self, *keys: str) -> None:
        self.annotations.write_text("".join(lvbench_line(key, lvbench_row(key)) for key in keys))

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "get_lvbench.py"), str(self.folder), *options]
        return run_here(command, **{"PATH": str(self.programs), **environment})

    def videos(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted((self.folder / "videos").glob("*.*")) if path.is_file()}

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def fetching(tmp_path):
    return Fetching(tmp_path)


def test_all_fetched_is_exit_code_0_and_a_second_run_fetches_nothing(fetching):
    fetching.annotate("Cm73ma6Ibcs", "-starts-odd")
    result = fetching.run("--annotations", str(fetching.annotations), "--height", "480", "--", "--proxy", "a b")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("\n\ndone      2\ngone      0\nfailed    0\n")
    assert fetching.videos() == {"-starts-odd.mp4": "second half", "Cm73ma6Ibcs.mp4": "second half"}
    assert fetching.calls()[1].endswith(" https://www.youtube.com/watch?v=-starts-odd")
    assert "bv*[height<=480][ext=mp4]" in fetching.calls()[0] and "--proxy a b --output" in fetching.calls()[0]
    again = fetching.run()
    assert (again.returncode, len(fetching.calls())) == (0, 2)
    assert [task.path.exists() for task in load_dataset("lvbench", fetching.folder).tasks] == [True, True]


def test_gone_and_failed_are_listed_and_the_rest_is_fetched(fetching):
    fetching.annotate("idZkam9zqAs", "private_123", "nothing_123", "00000000", "Cm73ma6Ibcs", "QgWRyDV9Ozs")
    (fetching.folder / "videos").mkdir(parents=True)
    (fetching.folder / "videos" / "QgWRyDV9Ozs.mkv").write_text("kept from before it was gone")
    result = fetching.run("--annotations", str(fetching.annotations))
    assert result.returncode == 3
    for line in (
        "1/6 idZkam9zqAs: reported as gone from YouTube",
        "2/6 private_123: ERROR: [youtube] private_123: Private video",
        "3/6 nothing_123: yt-dlp ended well, but wrote no video",
        "4/6 00000000: not a YouTube id, which has 11 letters, digits, - or _",
        "5/6 Cm73ma6Ibcs: fetched",
        "6/6 QgWRyDV9Ozs: is there",
        "done      2",
        "gone      1  idZkam9zqAs",
        "failed    3  private_123 nothing_123 00000000",
    ):
        assert line in result.stdout.splitlines()
    assert list(fetching.videos()) == ["Cm73ma6Ibcs.mp4", "QgWRyDV9Ozs.mkv"]
    assert not any("idZkam9zqAs" in call for call in fetching.calls())


def test_gone_videos_are_tried_on_request(fetching):
    fetching.annotate("idZkam9zqAs")
    result = fetching.run("--annotations", str(fetching.annotations), "--try-gone")
    assert (result.returncode, list(fetching.videos())) == (0, ["idZkam9zqAs.mp4"])


def test_a_broken_fetch_leaves_no_video_and_is_resumed_at_the_same_height_only(fetching):
    fetching.annotate("crashes_123")
    result = fetching.run("--annotations", str(fetching.annotations))
    assert (result.returncode, fetching.videos()) == (3, {})
    assert "1/1 crashes_123: yt-dlp ended with -9" in result.stdout
    assert (fetching.run("--height", "480").returncode, fetching.videos()) == (3, {})
    assert fetching.run().returncode == 0
    assert fetching.videos() == {"crashes_123.mp4": "first half, second half"}


def test_ctrl_c_leaves_no_video_and_reports_how_to_go_on(fetching):
    fetching.annotate("stop_me_now")
    result = fetching.run("--annotations", str(fetching.annotations))
    assert (result.returncode, fetching.videos()) == (130, {})
    assert result.stderr.strip() == "stopped; run the same command again to go on"


def test_yt_dlp_is_found_as_a_module_too(fetching, tmp_path):
    (tmp_path / "modules" / "yt_dlp").mkdir(parents=True)
    fetching.program.rename(tmp_path / "modules" / "yt_dlp" / "__main__.py")
    (tmp_path / "modules" / "yt_dlp" / "__init__.py").touch()
    fetching.annotate("Cm73ma6Ibcs")
    result = fetching.run(
        "--annotations", str(fetching.annotations), PYTHONPATH=os.pathsep.join([str(ROOT), str(tmp_path / "modules")])
    )
    assert (result.returncode, list(fetching.videos())) == (0, ["Cm73ma6Ibcs.mp4"])


@pytest.mark.skipif(find_spec("yt_dlp") is not None, reason="yt-dlp is installed here as a module")
def test_a_missing_yt_dlp_is_one_clear_line(fetching):
    fetching.program.unlink()
    result = fetching.run()
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: there is no yt-dlp, neither a command nor a module; install it: python -m pip install yt-dlp\n"
    )


def test_annotations_that_can_not_be_read_are_named_and_not_put_in_place(fetching):
    fetching.annotations.write_text(lvbench_line("../x", lvbench_row("0")))
    result = fetching.run("--annotations", str(fetching.annotations))
    assert result.returncode == 1
    assert result.stderr == (
        f"error: key must be the name of a file, without a folder, got '../x' ({fetching.annotations}, line 1)\n"
    )
    missing = fetching.run("--annotations", "nowhere.jsonl")
    assert (missing.returncode, missing.stderr) == (1, "error: nowhere.jsonl: No such file or directory\n")
    assert list(fetching.folder.iterdir()) == []


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as one file of a dataset needs."""

    content = lvbench_line("Cm73ma6Ibcs", lvbench_row("0")).encode()

    def do_HEAD(self) -> None:
        is_known = self.path == "/datasets/zai-org/LVBench/resolve/main/video_info.meta.jsonl"
        self.send_response(200 if is_known else 404)
        self.send_header("ETag", '"0123456789abcdef0123456789abcdef01234567"')
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Silent."""


class CopiesHub(BaseHTTPRequestHandler):
    """As much of the hub as reading ranges of a dataset's files needs."""

    files: ClassVar[dict[str, bytes]] = {}
    """Path, as datasets/OWNER/NAME/FILE -> its content."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        parts = path.removeprefix("/api").strip("/").split("/")
        repository = "/".join(parts[:3])
        known = {name.removeprefix(f"{repository}/"): file for name, file in self.files.items() if repository in name}
        if path.startswith("/api/datasets") and len(parts) == 3 and known:
            self.reply(json.dumps({"id": "/".join(parts[1:3]), "sha": "0" * 40, "siblings": []}).encode())
        elif path.startswith("/api/datasets") and parts[3:4] == ["tree"] and known:
            folder = "/".join(parts[5:])
            inside = {name: file for name, file in known.items() if "recursive=True" in query or folder in name}
            rows = [{"type": "file", "path": name, "size": len(file), "oid": "0" * 40} for name, file in inside.items()]
            folders = {name.rpartition("/")[0] for name in known if "/" in name} - {folder}
            rows += [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders]
            self.reply(json.dumps(rows).encode())
        elif parts[3:4] == ["resolve"] and (file := known.get("/".join(parts[5:]))) is not None:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups()
            content = file[int(first) : int(last) + 1]
            self.reply(content, 206)
        else:
            self.reply(b"", 404)

    def reply(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextlib.contextmanager
def served(handler: type[BaseHTTPRequestHandler], home: Path) -> Iterator[dict[str, str]]:
    """Serve a hub, and yield the environment in which it is the hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        yield {**hub, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def archive(**videos: bytes) -> bytes:
    """Return a ZIP archive of videos, stored as they are."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for key, video in videos.items():
            file.writestr(f"all_videos/{key}.mp4", video)
    return content.getvalue()


def test_copies_bring_what_is_gone_or_fails(fetching, tmp_path):
    """One is in an archive of the first copy, one only in the second copy, which is split; one is in neither."""
    rng = random.Random(3)
    videos = {key: rng.randbytes(300_000) for key in ("idZkam9zqAs", "aJI8XTa_DII", "private_123")}
    split = archive(other_video=rng.randbytes(100_000), aJI8XTa_DII=videos["aJI8XTa_DII"])
    CopiesHub.files = {
        "datasets/lmms-eval/LVBench/video_chunks/videos_chunk_001.zip": archive(unrelated12=b"x" * 50),
        "datasets/lmms-eval/LVBench/video_chunks/videos_chunk_002.zip": archive(
            idZkam9zqAs=videos["idZkam9zqAs"], private_123=videos["private_123"]
        ),
        **{
            f"datasets/AIWinter/LVBench/all_videos_split.zip.{i + 1:03}": split[i * 70_001 : (i + 1) * 70_001]
            for i in range(6)
        },
    }
    fetching.annotate("idZkam9zqAs", "aJI8XTa_DII", "private_123", "nothing_123", "Cm73ma6Ibcs")
    with served(CopiesHub, tmp_path / "hub") as hub:
        result = fetching.run("--annotations", str(fetching.annotations), "--copies", **hub)
    assert result.returncode == 3, result.stderr
    for line in (
        "1/5 idZkam9zqAs: taken from a copy on the hub",
        "2/5 aJI8XTa_DII: taken from a copy on the hub",
        "3/5 private_123: taken from a copy on the hub",
        "4/5 nothing_123: yt-dlp ended well, but wrote no video; not in a copy on the hub",
        "5/5 Cm73ma6Ibcs: fetched",
    ):
        assert line in result.stdout.splitlines(), result.stdout
    folder = fetching.folder / "videos"
    assert all((folder / f"{key}.mp4").read_bytes() == video for key, video in videos.items())
    assert not list((folder / ".parts" / "360p").glob("*.copy"))


def test_a_damaged_copy_is_passed_over_and_named(fetching, tmp_path):
    damaged = bytearray(archive(idZkam9zqAs=b"a video" * 1000))
    damaged[2000] ^= 1
    CopiesHub.files = {"datasets/lmms-eval/LVBench/video_chunks/videos_chunk_001.zip": bytes(damaged)}
    fetching.annotate("idZkam9zqAs")
    with served(CopiesHub, tmp_path / "hub") as hub:
        result = fetching.run("--annotations", str(fetching.annotations), "--copies", **hub)
    assert (result.returncode, fetching.videos()) == (3, {})
    assert "1/1 idZkam9zqAs: reported as gone from YouTube; not in a copy on the hub; " in result.stdout


def test_without_the_hub_copies_are_missed_in_one_line(fetching, tmp_path):
    fetching.annotate("idZkam9zqAs", "Cm73ma6Ibcs")
    result = fetching.run(
        "--annotations", str(fetching.annotations), "--copies", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub")
    )
    assert (result.returncode, list(fetching.videos())) == (3, ["Cm73ma6Ibcs.mp4"])
    assert (
        "1/2 idZkam9zqAs: reported as gone from YouTube; not in a copy on the hub; lmms-eval/LVBench: " in result.stdout
    )


def test_annotations_come_from_the_hub_and_once(fetching, tmp_path):
    with served(Hub, tmp_path / "hub") as hub:
        result = fetching.run(**hub)
    assert result.returncode == 0, result.stderr
    assert (fetching.folder / "video_info.meta.jsonl").read_bytes() == Hub.content
    assert fetching.run(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty")).returncode == 0


def test_without_the_hub_the_way_out_is_one_line(fetching, tmp_path):
    result = fetching.run(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"))
    assert result.returncode == 1
    assert result.stderr.startswith("error: zai-org/LVBench on the hub: ") and result.stderr.count("\n") == 1
    assert result.stderr.endswith("; or give the file: --annotations FILE\n")
