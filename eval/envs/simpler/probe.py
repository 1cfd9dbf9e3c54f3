"""Checks an interpreter for what SIMPLER needs; prints JSON. `python -m ...probe` or as a file.

Standard library only and no relative imports at the top, so that it runs and reports what is wrong
in an interpreter without any packages.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = {
    # import name -> (distribution, requirement for pip)
    "numpy": ("numpy", "'numpy<2'"),
    "sapien": ("sapien", "sapien==2.2.2"),
    "gymnasium": ("gymnasium", "'gymnasium>=0.29'"),
    "pkg_resources": ("setuptools", "'setuptools<81'"),
    "transforms3d": ("transforms3d", "transforms3d"),
    "scipy": ("scipy", "scipy"),
    "cv2": ("opencv-python-headless", "opencv-python-headless"),
    "trimesh": ("trimesh", "trimesh"),
    "yaml": ("pyyaml", "pyyaml"),
    "h5py": ("h5py", "h5py"),
    "tqdm": ("tqdm", "tqdm"),
    "git": ("gitpython", "gitpython"),
    "tabulate": ("tabulate", "tabulate"),
}
LIMITS = {"numpy": (None, (2,)), "setuptools": (None, (81,)), "sapien": ((2, 2, 2), (2, 2, 3)),
          "gymnasium": ((0, 29), None)}  # fmt: skip
PYTHONS = ((3, 8), (3, 12))
"""SAPIEN 2.2.2 has wheels from the first up to, not including, the second."""
ASSETS = (
    "custom/mk_station_recolor.urdf",
    "custom/info_pick_custom_baked_tex_v1.json",
    "real_inpainting/open_drawer_a0.png",
    "custom/models/baked_apple_v2/collision.obj",
)
STAGES = ("google_pick_coke_can_1_v4", "bridge_table_1_v1", "bridge_table_1_v2")
MESA = (24, 3, 0)
"""Older software drivers render nothing for SAPIEN even without the extension."""
_APT = (
    "apt-get install -t bookworm-backports libvulkan1 libegl1 mesa-vulkan-drivers  "
    "# Debian 12, once bookworm-backports is among apt's sources"
)


def row(name: str, ok: bool, found: str, remedy: str = "", note: bool = False) -> dict:
    """One line of the report; a `note` is not a failure."""
    return {"name": name, "ok": ok, "found": found, "remedy": "" if ok else remedy, "note": note}


def probe() -> list[dict]:
    """All checks, in the order in which to fix what they report."""
    return [*_python(), *_packages(), *_simpler(), *_vulkan()]


def _python() -> Iterator[dict]:
    low, high = PYTHONS
    found = ".".join(map(str, sys.version_info[:3]))
    remedy = "make an environment with Python 3.11: python3.11 -m venv .venv-simpler"
    yield row("Python", low <= sys.version_info[:2] < high, f"{found} ({sys.executable})", remedy)


def _packages() -> Iterator[dict]:
    for module, (distribution, wanted) in PACKAGES.items():
        remedy = f"{sys.executable} -m pip install {wanted}"
        if importlib.util.find_spec(module) is None:
            yield row(distribution, False, "absent", remedy)
            continue
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            yield row(distribution, True, "version unknown")
            continue
        low, high = LIMITS.get(distribution, (None, None))
        numbers = _numbers(version)
        fits = (low is None or numbers >= low) and (high is None or numbers < high)
        yield row(distribution, fits, version, remedy)


def _numbers(version: str) -> tuple:
    parts = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def _simpler() -> Iterator[dict]:
    spec = importlib.util.find_spec("mani_skill2_real2sim")
    install = f"{sys.executable} -m pip install --no-deps -r requirements/simpler-git.txt"
    if spec is None or spec.origin is None:
        yield row("ManiSkill2_real2sim", False, "absent", install)
        return
    package = Path(spec.origin).parent
    yield row("ManiSkill2_real2sim", True, str(package))
    beside = importlib.util.find_spec("simpler_env") is not None
    found = "present" if beside else "absent; python -m benchmarks.simpler alone needs it"
    yield row("SimplerEnv", beside, found, install, note=True)
    # The package's search order: the variable, then data/ next to the package.
    assets = Path(os.environ.get("MS2_REAL2SIM_ASSET_DIR") or package.parent / "data")
    missing = [name for name in ASSETS if not (assets / name).is_file()]
    yield row(
        "SIMPLER's assets",
        not missing,
        f"missing in {assets}: {', '.join(missing)}" if missing else str(assets),
        "export MS2_REAL2SIM_ASSET_DIR=<data/ of a checkout of ManiSkill2_real2sim>, or install "
        "that checkout with pip install -e",
    )
    folder = assets / "hab2_bench_assets" / "stages"
    absent = [name for name in STAGES if not (folder / f"{name}.glb").is_file()]
    yield row(
        "stage meshes",
        not absent,
        f"absent: {', '.join(absent)}" if absent else str(folder),
        "copy them from a full checkout; until then a box table stands in, and results say so "
        "(pick_coke_can, move_near, the WidowX tasks, all of va; drawers of vm need none)",
        note=True,
    )


def _neighbour() -> Any:
    """`vulkan` beside this file. Run as a file, without the package around it, which needs numpy,
    and without its folder on the path, where another Python's packages may lie."""
    if __package__:
        from eval.envs.simpler import vulkan

        return vulkan
    name = "vulkan_beside_the_probe"
    if name not in sys.modules:
        place = Path(__file__).resolve().with_name("vulkan.py")
        spec = importlib.util.spec_from_file_location(name, place)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _vulkan() -> Iterator[dict]:
    vulkan = _neighbour()
    try:
        vulkan.load()
    except vulkan.VulkanError as error:
        yield row("Vulkan loader", False, str(error), _APT)
        return
    yield row("Vulkan loader", True, "libvulkan.so.1")
    files = vulkan.driver_files()
    drivers = ", ".join(f"{path} ({vulkan.driver_library(path)})" for path in files)
    yield row("Vulkan driver files", bool(files), drivers or "none", f"{_APT}; with a GPU, its "
              "vendor's driver; VK_ICD_FILENAMES names a file elsewhere")  # fmt: skip
    try:
        devices = vulkan.devices()
    except vulkan.VulkanError as error:
        yield row("Vulkan device", False, str(error), _APT)
        return
    names = ", ".join(device.name for device in devices)
    yield row("Vulkan device", bool(devices), names or "none", _APT)
    if devices:
        yield _semaphore(devices)
    if any(device.software for device in devices):
        found = "software driver: rasterised pictures only"
        remedy = "a GPU that traces rays, for the published rendering of drawers"
        yield row("ray tracing", False, found, remedy, note=True)
    elif devices:
        traced = [device.name for device in devices if vulkan.RAY_TRACING in device.extensions]
        found = ", ".join(traced) or f"no device has {vulkan.RAY_TRACING}"
        remedy = "a GPU that traces rays and its vendor's driver; rasterised pictures need none"
        yield row("ray tracing", bool(traced), found, remedy, note=True)


def _semaphore(devices: list) -> dict:
    vulkan = _neighbour()
    name, remedy = vulkan.SEMAPHORE, f"Mesa >= 24.3: {_APT}"
    if any(name in device.extensions for device in devices):
        return row(name, True, "offered")
    words = "not offered by " + ", ".join(device.driver for device in devices)
    if not any((device.mesa or ()) >= MESA for device in devices):
        return row(name, False, words, remedy)
    words += "; SAPIEN's request for it is dropped when the simulator starts, which works here"
    return row(name, False, words, "none needed", note=True)


if __name__ == "__main__":
    print(json.dumps(probe()))
