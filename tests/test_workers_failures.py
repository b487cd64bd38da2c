"""Whose failure it is, when an item is tried again, and what a node must be like."""

import errno
from pathlib import Path

import pytest
import video_files

from lvqa.node_check import node_check
from lvqa.records import LvqaError
from lvqa.workers import is_of_the_place
from lvqa.workers.failures import Attempts, Blame, Failure, failure_of
from lvqa.workers.nodes import NodeFacts, Nodes

TWO, ONE = {"a", "b"}, {"a"}


def verdict(*failures: tuple[str, Blame], nodes: set[str]) -> Failure | None:
    attempts = Attempts("item")
    for node, blame in failures:
        attempts.failures.append((node, Failure("it failed", blame)))
    return attempts.verdict(nodes)


@pytest.mark.parametrize(
    ("failures", "nodes", "blame"),
    [
        ([("a", Blame.ITEM)], ONE, Blame.ITEM),
        ([("a", Blame.ITEM)], TWO, None),
        ([("a", Blame.ITEM), ("b", Blame.ITEM)], TWO, Blame.ITEM),
        ([("a", Blame.ITEM), ("b", Blame.LOST)], TWO, None),
        ([("a", Blame.CRASH)], ONE, None),
        ([("a", Blame.CRASH)] * 2, ONE, Blame.CRASH),
        ([("a", Blame.CRASH), ("b", Blame.ITEM)], TWO, Blame.ITEM),
        ([("a", Blame.LOST)] * 2, ONE, None),
        ([("a", Blame.LOST)] * 3, ONE, Blame.PLACE),
        ([("a", Blame.PLACE)], ONE, Blame.PLACE),
        ([("a", Blame.PLACE)], TWO, None),
        ([("a", Blame.PLACE), ("b", Blame.PLACE)], TWO, Blame.PLACE),
    ],
)
def test_only_what_fails_by_itself_is_the_items_failure(failures, nodes, blame):
    final = verdict(*failures, nodes=nodes)
    assert (final and final.blame) == blame


def test_an_item_goes_to_a_node_where_it_has_not_failed_if_there_is_one():
    attempts = Attempts("item", [("a", Failure("", Blame.PLACE))])
    assert not attempts.suits("a", TWO) and attempts.suits("b", TWO) and attempts.suits("a", ONE)
    attempts.failures.append(("b", Failure("", Blame.ITEM)))
    assert attempts.suits("a", TWO) and not attempts.suits("b", TWO)


def chained(cause: Exception) -> LvqaError:
    try:
        raise LvqaError("cannot read it") from cause
    except LvqaError as error:
        return error


def test_errors_of_the_system_are_the_places():
    places = [OSError(code, "") for code in (errno.ENOSPC, errno.ENOENT, errno.EACCES, errno.ESTALE)]
    places += [MemoryError(), ModuleNotFoundError("decord")]
    assert all(is_of_the_place(error) and is_of_the_place(chained(error)) for error in places)
    items = [OSError(errno.EIO, ""), ValueError(""), LvqaError("")]
    assert not any(is_of_the_place(error) or is_of_the_place(chained(error)) for error in items)
    assert failure_of(chained(places[0])).blame is Blame.PLACE and "OSError" in failure_of(chained(places[0])).details


def entry(name: str, *, cores: int, gpus: float = 0, alive: bool = True) -> dict[str, object]:
    address = {"NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "host"}
    resources = {"CPU": float(cores), "GPU": gpus}
    return {"NodeID": f"id-{name}", "NodeName": name, "Alive": alive, "Resources": resources, **address}


def test_rooms_are_summed_by_node_and_workers_spread():
    """Neither the cores of one node nor the GPUs of another help a worker."""
    nodes = Nodes(0.5)
    nodes.update([entry("a", cores=8, gpus=1), entry("b", cores=1, gpus=4), entry("c", cores=64)])
    assert nodes.num_rooms == 2 + 1 and nodes.describe_rooms() == "a 2, b 1, c 0"
    assert nodes.plan(2) == {"id-a": 1, "id-b": 1, "id-c": 0} and nodes.plan(None) == {"id-a": 2, "id-b": 1, "id-c": 0}
    nodes.update([entry("a", cores=8, gpus=1, alive=False)])
    assert nodes.plan(3) == {"id-b": 1, "id-c": 0}


def test_workers_of_a_server_have_the_smallest_share_of_a_nodes_cores():
    nodes = Nodes(0.5)
    nodes.update([entry("a", cores=16, gpus=2), entry("b", cores=6, gpus=1), entry("c", cores=2)])
    assert [nodes.num_threads(num) for num in (1, 2, 3, 4, 5, 6)] == [16, 6, 6, 3, 3, 3]


def test_nodes_without_names_have_those_of_their_hosts():
    nodes = Nodes(0)
    nodes.update([{**entry("a", cores=1), "NodeName": "10.0.0.1"}, {**entry("b", cores=1), "NodeName": "10.0.0.1"}])
    assert [node.name for node in nodes.usable] == ["host", "host-id-b"]


def test_a_node_that_differs_is_described_in_a_line():
    expected = NodeFacts({"torch": "2", "lvqa": "1"})
    assert expected.difference(expected) is None
    assert NodeFacts({"torch": "1"}).difference(expected) == "torch is 1, expected 2; lvqa is missing, expected 1"


def test_a_node_is_tried_by_its_code_its_paths_and_its_store(tmp_path):
    video = video_files.write_video(tmp_path / "video.mp4", 5)
    own = tmp_path / "own.py"
    own.write_text("x = 1")
    with node_check(tmp_path / "store", [video], [own]) as probe:
        here = probe()
        assert {"lvqa", "python", "torch", "lvqa's code", f"the content of {own}"} < here.equal.keys()
        assert here.difference(probe()) is None and here.warnings == ()
        own.write_text("x = 2")
        assert f"the content of {own} is" in (probe().difference(here) or "")
        (marker,) = (tmp_path / "store").iterdir()
        marker.unlink()
        assert "is not that of the machine where the run was started" in probe().warnings[0]
        video.unlink()
        with pytest.raises(LvqaError, match=rf"{video}: No such file .*; files must lie at the same path on all nodes"):
            probe()
    assert list((tmp_path / "store").iterdir()) == []


def test_a_store_that_a_node_cannot_write_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with node_check(Path(tmp_path / "file" / "store"), []) as probe, pytest.raises(LvqaError, match="can't be written"):
        probe()
