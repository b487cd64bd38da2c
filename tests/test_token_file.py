"""The file of visual tokens: a slot's bytes count in that slot alone."""

import resource
from pathlib import Path

import pytest

from lvqa.visual_tokens import TokenFile

DATA = {slot: bytes([10 + slot]) * 8 for slot in range(3)}
NUM_PAIRS = 4
"""The last slot is never written."""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "video.tokens"


@pytest.fixture
def file(path) -> TokenFile:
    """A file whose first slots are written."""
    file = TokenFile(path, num_pairs=NUM_PAIRS, width=2, max_bytes=1 << 10)
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
    file = TokenFile(path, num_pairs=NUM_PAIRS, width=2, max_bytes=1 << 10)
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
    file = TokenFile(path, num_pairs=NUM_PAIRS, width=2, max_bytes=1 << 10)
    file.write({0: DATA[0]})
    path.parent.mkdir()
    assert file.has_room(len(DATA[1]))
    file.write({1: DATA[1]})
    assert [file.read(slot) for slot in (0, 1)] == [None, DATA[1]]
