"""Directories appear whole or not at all."""

from __future__ import annotations

import sys

import pytest
import torch

from selfflow_wm.training import checkpoint
from selfflow_wm.training.log import MetricsLog


def test_a_failed_write_leaves_the_old_directory(tmp_path):
    path = tmp_path / "saved"
    with checkpoint.atomic_directory(path) as temporary:
        (temporary / "a").write_text("old")

    def fail():
        with checkpoint.atomic_directory(path) as temporary:
            (temporary / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


def test_a_replacement_holds_only_the_new_files(tmp_path):
    path = tmp_path / "saved"
    for name in ("a", "b"):
        with checkpoint.atomic_directory(path) as temporary:
            (temporary / name).write_text(name)
    assert [p.name for p in path.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


def test_a_crash_between_the_renames_is_undone(tmp_path):
    path, old = tmp_path / "saved", tmp_path / ".saved.old"
    old.mkdir()
    (old / "a").write_text("old")
    checkpoint.recover(path)
    assert (path / "a").read_text() == "old" and not old.exists()


def test_tensors_round_trip_and_damage_is_named(tmp_path):
    file = tmp_path / "x.safetensors"
    base = torch.arange(6.0).reshape(2, 3)
    checkpoint.save_tensors(file, {"t": base.T, "same": base})  # not contiguous, shared memory
    loaded = checkpoint.load_tensors(file)
    assert torch.equal(loaded["t"], base.T) and torch.equal(loaded["same"], base)
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ValueError, match="x.safetensors"):
        checkpoint.load_tensors(file)
    with pytest.raises(ValueError, match="no such file"):
        checkpoint.load_tensors(tmp_path / "missing.safetensors")


def test_loading_names_missing_unknown_and_misshapen_keys():
    module = torch.nn.Linear(2, 2)
    tensors = {"weight": torch.zeros(3, 2), "else": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"Missing: \['bias'\]; unknown: \['else'\].*\(3, 2\)"):
        checkpoint.load_strict(module, tensors, "somewhere")


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        checkpoint.write_json(tmp_path / "x.json", {"loss": float("nan")})


def test_wandb_is_not_imported_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it now raises ImportError
    for mode in ("disabled", "auto"):
        log = MetricsLog(tmp_path, wandb=mode)
        log.write(1, {"loss": float("nan")})
        log.close()
    assert '"loss": null' in (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(ValueError, match="pip install wandb"):
        MetricsLog(tmp_path, wandb="offline")
    with pytest.raises(ValueError, match="expected one of"):
        MetricsLog(tmp_path, wandb="sometimes")


def test_others_may_read_a_checkpoint(tmp_path):
    checkpoint.save_tensors(tmp_path / "model.safetensors", {"weight": torch.zeros(2)})
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
