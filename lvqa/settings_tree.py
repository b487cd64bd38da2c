"""Settings as trees of plain values: what YAML files and `key=value` say, and dotted keys.

What a key means is no matter here; `lvqa.config` knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvqa.records import LvqaError
from lvqa.validation import in_yaml


class ConfigError(LvqaError):
    """A setting that is not known or not allowed; names the key, the value, what is allowed and where it stood."""


def read_tree(path: Path) -> object:
    """Return what a YAML file holds, an empty mapping if it is empty. Raises ConfigError if it can't be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read the configuration {path}: it is not UTF-8 text") from error
    tree = _parse_yaml(text, origin=str(path))
    return {} if tree is None else tree


def load_yaml(path: Path) -> dict[str, Any]:
    """Return what a YAML file of another program holds. Raises ConfigError if it is no mapping."""
    tree = read_tree(path)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping, keys with values")
    return tree


def parse_override(override: str) -> object:
    """Return "a.b=1" as {"a": {"b": 1}}. Raises ConfigError if it is written otherwise."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"an override is written key=value (say selection.frames=32), got {in_yaml(override)}")
    return tree_of(key.strip(), _parse_yaml(text, origin=origin_of(override)))


def tree_of(key: str, value: object) -> object:
    """Return a dotted key as nested mappings: "a.b", 1 -> {"a": {"b": 1}}."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def origin_of(override: str) -> str:
    """Return how a message names an override."""
    text = " ".join(override.split())
    return f"-s {text if len(text) <= 80 else text[:77] + '...'}"


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones: {"a": {"b": 1}} -> {"a.b": 1}. A list is one value."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def plain(value: Any) -> Any:
    """Return paths as text and tuples as lists, however deep."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def merged(tree: object, changes: object) -> object:
    """Return the changes, which add to the tree where both are mappings."""
    if not (isinstance(tree, dict) and isinstance(changes, dict)):
        return changes
    return tree | {key: merged(tree.get(key), value) for key, value in changes.items()}


def _parse_yaml(text: str, *, origin: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        # The last five: pyyaml lets them through for values like 2026-99-99 or "!!int ''", and for deep nesting.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{origin} is not valid YAML: {reason}") from error
