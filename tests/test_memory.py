"""How much is kept in memory: one number, by what is free, that changes no result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from control_groups import write_group

from lvqa.config import load_config
from lvqa.models import memory
from lvqa.models.cache import ByteLRUCache
from lvqa.models.memory import MIN_BYTES, MemoryShares, batch_bytes, default_bytes, fitting_tokens
from lvqa.records import LvqaError

GIB = 1 << 30
SEVEN_B = SimpleNamespace(hidden_size=3584, intermediate_size=18944)


@pytest.mark.parametrize(
    ("free", "batch", "is_host", "expected"),
    [
        (60 * GIB, 3 * GIB, False, 51 * GIB),
        (20 * GIB, 3 * GIB, True, 5 * GIB),
        (2 * GIB, 3 * GIB, False, MIN_BYTES),
        (0, 0, True, MIN_BYTES),
        (-GIB, 0, False, MIN_BYTES),
    ],
)
def test_the_bound_is_what_is_free_less_a_batch(free, batch, is_host, expected):
    assert default_bytes(free, batch=batch, is_host=is_host) == expected


def test_a_batch_of_7b_takes_three_gigabytes():
    assert 2.5e9 < batch_bytes(SEVEN_B, 16384, itemsize=2) < 3e9


@pytest.mark.parametrize("total", [0, 1, 5, 7 << 20, 51 * GIB])
def test_the_shares_are_together_the_bound(total):
    shares = MemoryShares(total)
    assert shares.tokens + shares.clips + shares.answers == total
    assert min(shares.tokens, shares.clips, shares.answers) >= 0


def test_a_card_of_80_gb_keeps_the_clips_of_an_hour():
    free = 80 * 10**9 - 17 * 10**9
    bound = default_bytes(free, batch=batch_bytes(SEVEN_B, 16384, itemsize=2), is_host=False)
    assert MemoryShares(bound).clips > 255 * 56 * 10**6


@pytest.mark.parametrize(
    ("membership", "files", "left"),
    [
        ("0::/", {}, 1 << 62),
        ("0::/", {"memory.max": "max\n", "memory.current": "5\n"}, 1 << 62),
        ("0::/", {"memory.max": "4096\n", "memory.current": "96\n"}, 4000),
        ("0::/a/b", {"a/b/memory.max": "4096", "a/b/memory.current": "96"}, 4000),
        ("0::/a/b", {"a/memory.max": "400", "a/memory.current": "96", "a/b/memory.max": "max"}, 304),
        ("0::/of/the/host", {"memory.max": "4096", "memory.current": "96"}, 4000),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "300", "memory/memory.usage_in_bytes": "100"}, 200),
        (
            "4:cpu:/\n5:hugetlb,memory:/x",
            {"memory/x/memory.limit_in_bytes": "300", "memory/x/memory.usage_in_bytes": "1"},
            299,
        ),
    ],
)
def test_a_container_has_what_its_limits_leave(tmp_path, monkeypatch, membership, files, left):
    write_group(tmp_path, monkeypatch, membership, files)
    free = memory.free_bytes(torch.device("cpu"), None)
    assert free == left if left < 1 << 20 else 1 << 20 < free < 1 << 62


@pytest.mark.parametrize(
    ("free", "tokens"),
    [
        (60 << 30, 16384),
        (6 << 30, 16384),
        (5 << 30, 8192),
        (2 << 30, 4096),
        (1 << 30, 2048),
        (1 << 20, 1024),
        (0, 1024),
    ],
)
def test_a_batch_is_smaller_where_memory_is_short(free, tokens):
    assert fitting_tokens(16384, free, SEVEN_B, itemsize=2) == tokens
    assert tokens == 1024 or 2 * batch_bytes(SEVEN_B, tokens, itemsize=2) <= free


def test_the_model_measures_when_it_is_loaded_and_the_setting_goes_before(tiny):
    assert tiny.memory_bytes >= MIN_BYTES
    assert MemoryShares.of(tiny, None).total == tiny.memory_bytes
    assert MemoryShares.of(tiny, 6) == MemoryShares(6 << 20)


class Numbers:
    """A value that takes so many bytes."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def test_a_cache_frees_what_others_leave_no_room_for():
    others = 0
    cache = ByteLRUCache[str, Numbers](100, on_growth=lambda: others + cache.nbytes - 100)
    for name in "abc":
        cache[name] = Numbers(30)
    assert [*cache] == ["a", "b", "c"]
    others = 40
    cache["d"] = Numbers(10)
    assert [*cache] == ["c", "d"] and cache.nbytes + others <= 100
    others = 200
    cache["e"] = Numbers(10)
    assert not cache


@pytest.fixture(scope="module")
def videos(synthetic_video) -> list[Path]:
    return [synthetic_video(minutes=1, seed=seed) for seed in (11, 12)]


@pytest.mark.slow
@pytest.mark.parametrize("memory_mib", [0, 3, None])
def test_all_that_is_kept_of_videos_in_use_is_within_the_bound_and_changes_no_answer(make, videos, memory_mib):
    plain = [make().search(video, "a red ball") for video in videos]
    qa = make("model.memory_mib=" + ("null" if memory_mib is None else str(memory_mib)))
    with qa.open(videos[0]) as first, qa.open(videos[1]) as second:
        for _ in range(2):
            for video, expected in zip(videos, plain, strict=False):
                assert qa.search(video, "a red ball") == expected
        kept = first.nbytes + second.nbytes
    assert kept <= (qa.model.memory_bytes if memory_mib is None else memory_mib << 20)
    assert memory_mib == 0 or kept > 2 << 20


@pytest.mark.parametrize("key", ["store.memory_mib", "rerank.memory_mib"])
def test_the_old_keys_name_the_new_one_and_are_left_out_of_old_runs(tmp_path: Path, key: str):
    section, _, name = key.partition(".")
    path = tmp_path / "config.yaml"
    path.write_text(f"{section}: {{{name}: 77}}\nseed: 3\n")
    with pytest.raises(LvqaError, match=f"{key} is called model.memory_mib since 0.2"):
        load_config(path)
    assert load_config(path, accept_old=True) == load_config(None, ["seed=3"])
