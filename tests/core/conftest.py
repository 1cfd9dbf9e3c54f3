"""Makes `small_networks` importable by name."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """What is on this machine's disk is no part of a test that does not ask for it."""
    for name in ("SELFFLOW_WEIGHTS", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
