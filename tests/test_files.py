"""Files are written in one step, and what is no file of its own is never replaced by one."""

import os
import threading

from lvqa.files import write_atomically


def test_a_device_or_a_pipe_takes_the_content_and_stays(tmp_path):
    """It was once replaced, as `--csv /dev/null` did to the whole machine when root ran it."""
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, "rows")
    reader.join(timeout=30)
    assert received == [b"rows"] and pipe.is_fifo()
    assert [*tmp_path.iterdir()] == [pipe]


def test_what_a_link_leads_to_is_written_and_the_link_stays(tmp_path):
    target, link, dangling = tmp_path / "target", tmp_path / "link", tmp_path / "dangling"
    target.write_text("old")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "new")
    write_atomically(link, "new content")
    write_atomically(dangling, b"first")
    assert link.is_symlink() and target.read_text() == "new content"
    assert dangling.is_symlink() and (tmp_path / "new").read_bytes() == b"first"
    assert len([*tmp_path.iterdir()]) == 4
