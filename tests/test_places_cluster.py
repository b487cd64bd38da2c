"""A run on a cluster whose nodes share nothing but an S3 server: the videos and the store lie there."""

import json
from collections.abc import Iterator

import pytest
from cluster import Cluster, running_cluster
from cluster_runs import Driver, benchmark, expected_results, results_of, rows_by_node
from object_storage import BUCKET, CREDENTIALS, put, s3_server, use_place
from processes import needs_proc

pytestmark = [pytest.mark.slow, needs_proc]


@pytest.fixture
def address(tmp_path, monkeypatch) -> Iterator[str]:
    with s3_server() as address:
        use_place(monkeypatch, tmp_path / "home", address)
        yield address


@pytest.fixture
def cluster(tmp_path, address) -> Iterator[Cluster]:
    """Two nodes of one worker each; homes and working folders are their own."""
    for cluster in running_cluster(tmp_path / "cluster"):
        for name in ("n1", "n2"):
            cluster.add(name, 1, environment={**CREDENTIALS, "AWS_ENDPOINT_URL": address})
        yield cluster


def test_rows_are_those_of_a_local_run(cluster, address, tmp_path):
    settings = benchmark(tmp_path, videos=4, minutes=1, questions=1)
    expected = expected_results(settings, tmp_path / "local")
    folder, there = tmp_path / "benchmark", f"s3://{BUCKET}/benchmark"
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        put(f"{there}/{path.relative_to(folder)}", path)
    text = settings.read_text().replace(str(folder), there).replace(str(tmp_path / "store"), f"s3://{BUCKET}/store")
    (elsewhere := tmp_path / "elsewhere.yaml").write_text(text)
    driver = Driver(elsewhere, tmp_path / "run", "--workers", "max", cluster=cluster)
    assert driver.wait() == 0, driver.output
    assert results_of(tmp_path / "run") == expected
    assert len(rows_by_node(tmp_path / "run")) == 2
    rows = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert all(row["video_path"].startswith(f"{there}/videos/") for row in rows)
    for node in cluster.nodes.values():
        assert any((node.home / ".cache" / "lvqa" / "copies").glob("*.mp4"))
        assert not list((node.home / "work").rglob("s3*")), "no folder of a node is named after the place"
    assert not (tmp_path / "home" / "copies").exists() or not list((tmp_path / "home" / "copies").glob("*.mp4")), (
        "the driver fetches no video"
    )
