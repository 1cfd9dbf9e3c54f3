"""Files that appear whole or not at all, and which checkpoint is meant."""

from __future__ import annotations

import hashlib
import os

import pytest

from selfflow_wm import files
from selfflow_wm.checkpoints import SHIPPED, find_checkpoint, fingerprint


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.write_file(path, "first ä\n")
    assert path.read_text(encoding="utf-8") == "first ä\n" and path.stat().st_mode & 0o077 == 0o044
    with pytest.raises(TypeError), files.atomic_open(path) as file:
        file.writelines([b"half", None])  # pyright: ignore[reportArgumentType]
    assert path.read_text(encoding="utf-8") == "first ä\n"
    assert os.listdir(path.parent) == ["a.txt"]
    files.write_file(path, b"second")
    assert path.read_bytes() == b"second"


def test_a_checkpoint_is_named_by_its_directory_its_run_or_its_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "a"
    (run / "checkpoint").mkdir(parents=True)
    (run / "checkpoint" / "config.json").write_text("{}")
    assert find_checkpoint(run) == run / "checkpoint"
    assert find_checkpoint(run / "checkpoint") == run / "checkpoint"
    assert find_checkpoint("self_flow") == SHIPPED / "self_flow"
    (tmp_path / "self_flow").mkdir()
    (tmp_path / "self_flow" / "config.json").write_text("{}")
    assert str(find_checkpoint("self_flow")) == "self_flow"  # what lies here comes first
    with pytest.raises(ValueError, match="nowhere"):
        find_checkpoint("nowhere")


def test_a_checkpoint_is_known_by_what_is_in_it(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    known = fingerprint(tmp_path)
    (tmp_path / "notes.txt").write_text("no part of it")
    assert fingerprint(tmp_path) == known and len(known) == 64
    (tmp_path / "config.json").write_bytes(b"{}")
    assert fingerprint(tmp_path) != known
    one = tmp_path / "model.safetensors"
    assert fingerprint(one) == files.file_digest(one)


def test_digests_are_those_that_older_evaluations_recorded(tmp_path):
    (tmp_path / "b.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_bytes(b"{}")
    expected = hashlib.sha256()
    for name, content in (("b.safetensors", b"weights"), ("config.json", b"{}")):
        expected.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    assert fingerprint(tmp_path) == expected.hexdigest()
