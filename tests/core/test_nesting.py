"""Flat keys and maps in maps are the same."""

from __future__ import annotations

from selfflow_wm.nesting import flattened, nested, put


def test_flat_and_nested_undo_each_other():
    flat = {"steps/action": 1, "steps/observation/image": 2, "info": 3}
    tree = nested(flat)
    assert tree == {"steps": {"action": 1, "observation": {"image": 2}}, "info": 3}
    assert flattened(tree) == flat
    assert flattened(nested({"a.b": 1}, "."), ".") == {"a.b": 1}


def test_an_entry_joins_the_maps_that_are_there():
    tree = {"a": {"b": 1}}
    put(tree, "a/c/d", 2)
    put(tree, "a/b", 3)
    assert tree == {"a": {"b": 3, "c": {"d": 2}}}
