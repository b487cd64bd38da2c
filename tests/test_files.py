"""Files are written in one step, and what is no file of its own is never replaced by one."""

import os
import threading

import pytest

from lvqa.files import write_atomically, write_output
from lvqa.records import LvqaError
from lvqa.report.page import write_file


def test_a_device_or_a_pipe_takes_the_content_and_stays(tmp_path):
    """It was once replaced, as `--csv /dev/null` did to the whole machine when root ran it."""
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_output(pipe, b"rows")
    reader.join(timeout=30)
    assert received == [b"rows"] and pipe.is_fifo()
    assert [*tmp_path.iterdir()] == [pipe]


def test_what_a_link_leads_to_is_written_and_the_link_stays(tmp_path):
    target, link, dangling = tmp_path / "target", tmp_path / "link", tmp_path / "dangling"
    target.write_text("old")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "new")
    write_output(link, b"new content")
    write_output(dangling, b"first")
    assert link.is_symlink() and target.read_text() == "new content"
    assert dangling.is_symlink() and (tmp_path / "new").read_bytes() == b"first"
    assert len([*tmp_path.iterdir()]) == 4


def test_a_pipe_or_a_link_in_a_store_is_replaced(tmp_path):
    """Nobody reads from a pipe there: writing to it would wait for ever."""
    target, link, pipe = (tmp_path / name for name in ("target", "link", "pipe"))
    target.write_text("old")
    link.symlink_to(target)
    os.mkfifo(pipe)
    for path in (link, pipe):
        write_atomically(path, "new")
        assert not path.is_symlink() and path.is_file() and path.read_text() == "new"
    assert target.read_text() == "old"


def test_a_link_to_itself_is_one_line(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(LvqaError, match="cannot write"):
        write_file(loop, b"page")
