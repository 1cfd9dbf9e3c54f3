"""Maps in maps, and the same flat: keys of several words, joined by a separator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def put(tree: dict[str, Any], key: str, value: Any, separator: str = "/") -> None:
    """Set the entry of `tree` that `key` ("a/b/c") leads to, making the maps on the way."""
    *groups, last = key.split(separator)
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[last] = value


def nested(flat: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """{"a/b": 1} as {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        put(tree, key, value, separator)
    return tree


def flattened(tree: Mapping[str, Any], separator: str = "/", prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a/b": 1}; an empty map leaves nothing."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, separator, f"{prefix}{key}{separator}")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
