"""The keys of settings that earlier versions had."""

from __future__ import annotations

RENAMED_SETTINGS = {
    "video.grid": "video.sampling",
    "answer.read": "answer.mode",
    "benchmark.make.films": "benchmark.make.videos",
    "rerank.memory_mib": "model.memory_mib",
    "store.memory_mib": "model.memory_mib",
}
"""The keys that lvqa 0.1 had, and what they are called now."""


def renamed(tree: object, prefix: str = "") -> object:
    """Return the tree with today's names in place of those of lvqa 0.1.

    A key that is one of another section now is left out: two bounds on memory became one, which changes no result.
    """
    if isinstance(tree, list):
        return [renamed(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    tree_now = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if not RENAMED_SETTINGS.get(path, path).startswith(prefix):
            continue
        # The settings of an arm are a tree of their own.
        tree_now[RENAMED_SETTINGS.get(path, path).removeprefix(prefix)] = renamed(
            value, "" if key == "settings" else f"{path}."
        )
    return tree_now
