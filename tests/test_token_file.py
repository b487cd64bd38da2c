"""The files of visual tokens: a slot's bytes count in that slot alone, and all files of a store fit into a bound."""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lvqa.token_file import TokenBound, TokenFile

DATA = {slot: bytes([10 + slot]) * 8 for slot in range(3)}
NUM_PAIRS = 4
"""The last slot is never written."""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "video.tokens"


@pytest.fixture
def file(path) -> TokenFile:
    """A file whose first slots are written."""
    file = TokenFile(path, num_pairs=NUM_PAIRS, width=2, bound=TokenBound(1 << 20))
    file.write(DATA)
    return file


def slot_range(content: bytes, slot: int) -> slice:
    """Return where a slot lies in the file: its data come last in it, and the slots follow each other."""
    first, second = content.index(DATA[0]), content.index(DATA[1])
    size = second - first
    start = first + len(DATA[0]) - size
    return slice(start + slot * size, start + (slot + 1) * size)


def test_the_slots_of_these_tests_are_those_of_the_file(file, path):
    """Written back where it was, a slot's content is whole."""
    content = bytearray(path.read_bytes())
    for slot, data in DATA.items():
        where = slot_range(bytes(content), slot)
        assert content[where].endswith(data) and len(content[where]) > len(data)
        content[where] = bytes(content[where])
    path.write_bytes(content)
    assert [file.read(slot) for slot in range(NUM_PAIRS)] == [*DATA.values(), None]


@pytest.mark.parametrize("target", range(NUM_PAIRS))
@pytest.mark.parametrize("source", DATA)
def test_a_slot_that_was_copied_to_another_counts_as_empty(file, path, source, target):
    """As after a repair of the disk, or by a program that moves pairs: the tokens would be those of other frames."""
    content = bytearray(path.read_bytes())
    content[slot_range(bytes(content), target)] = content[slot_range(bytes(content), source)]
    path.write_bytes(content)
    expected = {**DATA, 3: None, target: DATA[source] if source == target else None}
    assert {slot: file.read(slot) for slot in range(NUM_PAIRS)} == expected


def test_a_slot_that_counts_as_empty_can_be_written_again(file, path):
    content = bytearray(path.read_bytes())
    content[slot_range(bytes(content), 2)] = content[slot_range(bytes(content), 1)]
    path.write_bytes(content)
    file.write({2: DATA[2]})
    assert [file.read(slot) for slot in range(NUM_PAIRS)] == [*DATA.values(), None]


def test_nothing_is_kept_where_not_all_can_be_written(path):
    """Neither a part, nor what comes later: the room that is left by the part would be filled with another part."""
    file = TokenFile(path, num_pairs=NUM_PAIRS, width=2, bound=TokenBound(1 << 20))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))
    try:
        for slot, data in DATA.items():
            if file.has_room(len(data)):
                file.write({slot: data})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists() and not file.has_room(1)
    assert file.read(0) is None


def test_a_folder_that_is_made_later_gets_the_tokens_of_then(tmp_path):
    path = tmp_path / "later" / "video.tokens"
    file = TokenFile(path, num_pairs=NUM_PAIRS, width=2, bound=TokenBound(1 << 20))
    file.write({0: DATA[0]})
    path.parent.mkdir()
    assert file.has_room(len(DATA[1]))
    file.write({1: DATA[1]})
    assert [file.read(slot) for slot in (0, 1)] == [None, DATA[1]]


# --- what a store keeps -----------------------------------------------------------------------------------------------


BLOCK = 1 << 16


def write_file(path: Path, bound: TokenBound, *, num_bytes: int = BLOCK, last_use: float | None = None) -> None:
    """Write a file of one pair and let go of it; it was used last so many seconds ago."""
    file = TokenFile(path, num_pairs=1, width=2, bound=bound)
    file.write({0: bytes(range(256)) * (num_bytes // 256)})
    file.close()
    if last_use is not None:
        os.utime(path, (time.time() - last_use,) * 2)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.tokens"))


def test_the_least_recently_used_file_goes_first(tmp_path):
    bound = TokenBound(3 * BLOCK + (BLOCK >> 1))
    for name, age in (("a", 30), ("b", 20), ("c", 10)):
        write_file(tmp_path / f"{name}.tokens", bound, last_use=age)
    assert TokenFile(tmp_path / "a.tokens", num_pairs=1, width=2, bound=bound).read(0) is not None  # a use
    write_file(tmp_path / "d.tokens", bound)
    assert names(tmp_path) == ["a.tokens", "c.tokens", "d.tokens"]


def test_a_file_that_no_index_needs_goes_before_all_others(tmp_path):
    bound = TokenBound(3 * BLOCK + (BLOCK >> 1), needed=lambda names: {name for name in names if name[0] != "c"})
    for name, age in (("a", 30), ("b", 20), ("c", 10)):
        write_file(tmp_path / f"{name}.tokens", bound, last_use=age)
    write_file(tmp_path / "d.tokens", bound)
    assert names(tmp_path) == ["a.tokens", "b.tokens", "d.tokens"]


def test_a_file_in_use_is_not_removed_and_gone_files_make_room(tmp_path):
    """In another process: it holds the file from the first reading to `close`, and dies with it."""
    bound = TokenBound(2 * BLOCK + (BLOCK >> 1))
    for name, age in (("a", 30), ("b", 20)):
        write_file(tmp_path / f"{name}.tokens", bound, last_use=age)
    program = (
        "import sys; from pathlib import Path; from lvqa.token_file import TokenBound, TokenFile\n"
        "file = TokenFile(Path(sys.argv[1]), num_pairs=1, width=2, bound=TokenBound(1 << 20))\n"
        "print(file.read(0) is not None, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.tokens")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        os.utime(tmp_path / "a.tokens", (time.time() - 30,) * 2)
        write_file(tmp_path / "c.tokens", bound)
        assert names(tmp_path) == ["a.tokens", "c.tokens"]
        process.kill()
    write_file(tmp_path / "d.tokens", bound, last_use=10)
    assert names(tmp_path) == ["c.tokens", "d.tokens"]


def test_nothing_is_kept_where_all_room_is_in_use(tmp_path, caplog):
    bound = TokenBound(2 * BLOCK)
    write_file(tmp_path / "a.tokens", bound)
    in_use = TokenFile(tmp_path / "a.tokens", num_pairs=1, width=2, bound=bound)
    content = in_use.read(0)
    other = TokenFile(tmp_path / "b.tokens", num_pairs=1, width=2, bound=bound)
    assert other.has_room(BLOCK)
    other.write({0: bytes(2 * BLOCK)})
    assert names(tmp_path) == ["a.tokens"] and not other.has_room(1) and other.read(0) is None
    assert "store.disk_mib" in caplog.text
    assert in_use.read(0) == content


def test_a_file_larger_than_the_bound_removes_no_other(tmp_path):
    bound = TokenBound(2 * BLOCK)
    write_file(tmp_path / "a.tokens", bound)
    assert not TokenFile(tmp_path / "b.tokens", num_pairs=3, width=2, bound=bound).has_room(BLOCK)
    assert names(tmp_path) == ["a.tokens"]


def test_without_a_number_a_quarter_of_what_is_free_bounds_all_files(tmp_path, monkeypatch):
    """What token files take counts as free, or the bound would shrink as they grow."""
    write_file(tmp_path / "a.tokens", TokenBound(1 << 20))
    taken = (tmp_path / "a.tokens").stat().st_blocks * 512
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000 * BLOCK - taken))
    assert TokenBound().limit(tmp_path) == 250 * BLOCK
    assert TokenFile(tmp_path / "b.tokens", num_pairs=250, width=2, bound=TokenBound()).has_room(BLOCK)
    assert not TokenFile(tmp_path / "b.tokens", num_pairs=251, width=2, bound=TokenBound()).has_room(BLOCK)


def test_a_file_that_somebody_removes_is_read_on_and_written_anew(file, path):
    """No part of the old one comes back: what was written before counts as empty from the next writing on."""
    assert file.read(0) == DATA[0]
    path.unlink()
    assert file.read(1) == DATA[1]
    file.write({2: DATA[2]})
    assert [file.read(slot) for slot in range(NUM_PAIRS)] == [None, None, DATA[2], None]


def test_a_file_that_cannot_be_written_is_read_and_stays(file, path, monkeypatch):
    """The user of these tests may write every file, so the system's refusal is played."""
    file.close()
    system_open = os.open

    def refuse(name, flags, *mode, **options):
        if flags & os.O_RDWR:
            raise PermissionError
        return system_open(name, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert file.read(0) == DATA[0]
    file.write({3: DATA[0]})
    assert path.exists() and not file.has_room(1)


# --- other pairs than the grid's --------------------------------------------------------------------------------------


def test_pairs_that_meet_in_a_slot_are_not_mistaken_for_each_other(file):
    others = {number: bytes([number]) * 8 for number in range(NUM_PAIRS, NUM_PAIRS + 30)}
    for number, data in others.items():
        file.write({number: data})
        assert file.read(number) == data
    kept = {number for number in others if file.read(number) is not None}
    assert 1 < len(kept) <= NUM_PAIRS
    assert all(file.read(number) == others[number] for number in kept)
    assert [file.read(slot) for slot in range(NUM_PAIRS)] == [*DATA.values(), None]


# --- numbers of two bytes ---------------------------------------------------------------------------------------------


def bfloat16(num_values: int, seed: int) -> bytes:
    """Return normal numbers as bfloat16: the upper half of float32."""
    values = np.random.default_rng(seed).normal(size=num_values).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes() + b"\x02"


def test_numbers_of_two_bytes_are_the_same_bits_in_less_room(tmp_path):
    path, data = tmp_path / "video.tokens", {slot: bfloat16(1 << 16, slot) for slot in (1, 0, 3)}
    file = TokenFile(path, num_pairs=4, width=2, bound=TokenBound(1 << 20), element_bytes=2)
    for slot, content in data.items():
        file.write({slot: content})
        assert file.read(slot) == content
    fresh = TokenFile(path, num_pairs=4, width=2, bound=TokenBound(1 << 20), element_bytes=2)
    assert {slot: fresh.read(slot) for slot in range(4)} == {**data, 2: None}
    assert path.stat().st_blocks * 512 < 0.75 * sum(map(len, data.values()))


def test_numbers_that_cannot_be_compressed_are_kept_as_they_are(tmp_path):
    path, data = tmp_path / "video.tokens", np.random.default_rng(1).bytes(1001)
    file = TokenFile(path, num_pairs=2, width=2, bound=TokenBound(1 << 20), element_bytes=2)
    file.write({0: data})
    assert file.read(0) == data and file.read(1) is None


def test_a_flipped_bit_of_a_compressed_slot_makes_it_empty(tmp_path):
    path, data = tmp_path / "video.tokens", bfloat16(64, 1)
    file = TokenFile(path, num_pairs=1, width=2, bound=TokenBound(1 << 20), element_bytes=2)
    file.write({0: data})
    content = path.read_bytes()
    for i in range(16, len(content)):  # behind the header
        path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        assert file.read(0) is None
    path.write_bytes(content)
    assert file.read(0) == data


def test_a_file_without_compression_counts_as_empty_with_it(tmp_path):
    """Files of lvqa before it compressed them have the same name."""
    path, data = tmp_path / "video.tokens", {slot: bfloat16(64, slot) for slot in range(3)}
    TokenFile(path, num_pairs=3, width=2, bound=TokenBound(1 << 20)).write(data)
    file = TokenFile(path, num_pairs=3, width=2, bound=TokenBound(1 << 20), element_bytes=2)
    assert [file.read(slot) for slot in range(3)] == [None] * 3
    file.write({1: data[1]})
    assert [file.read(slot) for slot in range(3)] == [None, data[1], None]
