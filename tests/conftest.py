"""What all tests share: the extras that some of them need, and the same chance in every run."""

from __future__ import annotations

import importlib.util
import sys
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # stand_in is imported by name

EXTRAS = {
    "diffusers": ("diffusers",),
    "evaluation": ("transformers",),
    "gcs": ("fsspec", "gcsfs"),
    "lerobot": ("lerobot",),
    "ray": ("ray",),
    "repa": ("transformers",),
    "rlds": ("rlds", "tensorflow"),
}
"""Extras of pyproject.toml and the modules that they install; `pytest.mark.extra` takes one."""

# The same examples in every run, however busy the machine; --hypothesis-profile=random looks for
# new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile("fixed")


def pytest_addoption(parser):
    parser.addoption(
        "--extras",
        metavar="NAME[,NAME]",
        help="run the tests that need one of these extras, no others; a missing one is a failure",
    )


def extras_of(item):
    return {mark.args[0] for mark in item.iter_markers("extra")}


def pytest_configure(config):
    wanted_extras(config)  # before anything is collected


def wanted_extras(config):
    wanted = set(filter(None, (config.getoption("--extras") or "").split(",")))
    if not wanted <= set(EXTRAS):
        raise pytest.UsageError(f"--extras: expected some of {list(EXTRAS)}, got {sorted(wanted)}")
    return wanted


def pytest_ignore_collect(collection_path, config):
    """Files that name none of the extras asked for are not even imported: most are not."""
    wanted = wanted_extras(config)
    if not wanted or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text(encoding="utf-8")
    return None if any(f'mark.extra("{name}")' in text for name in wanted) else True


def pytest_collection_modifyitems(config, items):
    for item in items:
        if unknown := extras_of(item) - set(EXTRAS):
            raise pytest.UsageError(f"{item.nodeid}: expected extras of {list(EXTRAS)}, {unknown=}")
    if wanted := wanted_extras(config):
        left_out = [item for item in items if not wanted & extras_of(item)]
        items[:] = [item for item in items if wanted & extras_of(item)]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    for extra in extras_of(item):
        # Looked up, not imported: rlds needs the stand-in that our own import puts in place.
        if not all(importlib.util.find_spec(module) for module in EXTRAS[extra]):
            stop = pytest.fail if item.config.getoption("--extras") else pytest.skip
            stop(f"needs the extra {extra}: pip install 'selfflow-wm[{extra}]'")


# torch's random numbers depend on the test or fixture alone, not on what ran before it in this
# process.


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    torch.manual_seed(zlib.crc32(f"{request.node.name} {fixturedef.argname}".encode()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    torch.manual_seed(zlib.crc32(item.name.encode()))
