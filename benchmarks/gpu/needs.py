"""Requirements of the stages: Python, torch and packages, carried or installed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.stages import Stage

PACKAGES = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "google.protobuf": "protobuf",
    "hydra": "hydra-core",
    "tensorflow_datasets": "tensorflow-datasets",
    "OpenGL": "pyopengl",
    "attr": "attrs",
    "tree": "dm-tree",
}
"""Packages whose names differ from their modules'."""
LARGE = ("torch", "numpy", "einops", "safetensors", "pillow", "scipy", "opencv-python-headless")
"""Not among the carried wheels: expected on the machine."""
OLDEST_TORCH = (2, 6)


def wheels_in(wheels: Path) -> list[Path]:
    """The wheels of a directory; ValueError where there are none."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise ValueError(
            f"wheels: expected a directory of wheels, got none in {wheels}; download them with "
            f"python scripts/gpu_wheels.py --out {wheels}"
        )
    return files


def installed(wheels: Path) -> Path:
    """The directory with the wheels of `wheels` that this Python lacks, installed when new.

    A package that the machine has is left as it is: nothing carried shadows it.
    Raises ValueError for a directory without wheels, and where pip refuses them.
    """
    files = wheels_in(wheels)
    lacking = [file for file in files if not _has(file.name.split("-")[0])]
    key = "\n".join([sys.version, *(f"{f.name} {f.stat().st_size}" for f in lacking)])
    target = Path(
        tempfile.gettempdir(),
        f"selfflow-gpu-{os.getuid()}-{hashlib.sha256(key.encode()).hexdigest()[:12]}",
    )
    if lacking and not (target / ".complete").is_file():
        words = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        words += ["--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(target)]
        done = subprocess.run([*words, *map(str, lacking)], capture_output=True, text=True)
        if done.returncode:
            raise ValueError(
                f"wheels: expected wheels for this Python {sys.version.split()[0]}, got "
                f"{done.stderr.strip()[-500:]}; those of requirements/gpu-wheels.txt are "
                "for CPython 3.12 on Linux x86-64"
            )
        (target / ".complete").touch()
    return target


def _has(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def missing(stages: Sequence[Stage]) -> dict[str, list[str]]:
    """Stage -> the packages that cannot be imported; stages that lack none are left out."""
    found = {
        stage.name: [PACKAGES.get(name, name) for name in stage.needs if not importable(name)]
        for stage in stages
    }
    return {name: packages for name, packages in found.items() if packages}


def importable(name: str) -> bool:
    """Whether there is such a module; it is not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package around a sub-module
        return False


def remedy(lacking: dict[str, list[str]]) -> str:
    """How to get what is `missing`: each package once, with the commands that install it."""
    packages = sorted({name for names in lacking.values() for name in names})
    lines = [f"missing packages: {', '.join(packages)}"]
    lines += [f"  without them: no stage {name}" for name in lacking]
    if carried := [name for name in packages if name not in LARGE]:
        lines += [
            f"  carried wheels bring {', '.join(carried)}: where there is a package index,",
            "    python scripts/gpu_wheels.py --out wheels",
            "  then here: add --wheels wheels",
        ]
    if large := [name for name in packages if name in LARGE]:
        lines += [f"  on the machine itself: python -m pip install {' '.join(large)}"]
    return "\n".join(lines)


def check_versions() -> None:
    """ValueError for a Python or torch that is too old; neither is imported for it."""
    if sys.version_info < (3, 11):  # noqa: UP036  there is no installation that would check it
        raise ValueError(
            f"python: expected 3.11 or newer, got {sys.version.split()[0]}; run it with a newer one"
        )
    if not importable("torch"):
        return  # `missing` reports it
    version = importlib.metadata.version("torch")
    number = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    if number < OLDEST_TORCH:
        raise ValueError(
            f"torch: expected 2.6 or newer, got {version}; python -m pip install -U torch"
        )
