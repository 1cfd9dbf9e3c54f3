"""Download the wheels of requirements/gpu-wheels.txt and say what travels to a GPU machine.

    python scripts/gpu_wheels.py --out wheels
    python scripts/gpu_wheels.py --out wheels --with scipy --limit 64 --copy travels

Wheels are for CPython 3.12 on Linux x86-64 whatever this machine is; packages without a wheel on
the index are built, which works for pure Python. The size of the copy of this repository (what git
tracks) is added, and where both are over --limit MiB, checkpoints stay behind: the simulator's
first pair is kept longest. --copy writes that copy, wheels included.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "requirements" / "gpu-wheels.txt"
LOCK = ROOT / "requirements.lock"
GLIBC = (35, 34, 31, 28, 27, 24, 17, 12, 5)
"""pip matches manylinux_2_N exactly, so each is named."""
LEAVE = ("simpler_flow_matching", "simpler_self_flow", "flow_matching", "self_flow")
"""Checkpoints in the order in which they stay behind; the stages do without them."""
MIB = 1 << 20


def pinned(file: Path) -> dict[str, str]:
    """Name to version, of the lines NAME==VERSION."""
    words = [line.split("#")[0].split(";")[0].strip() for line in file.read_text().splitlines()]
    return dict(word.split("==") for word in words if "==" in word)


def download(wheels: dict[str, str], out: Path) -> None:
    """Exactly these wheels in `out`; others that lay there are removed."""
    out.mkdir(parents=True, exist_ok=True)
    platforms = [f"manylinux_2_{n}_x86_64" for n in GLIBC] + ["manylinux2014_x86_64"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    keep = set()
    for name, version in sorted(wheels.items()):
        if not (found := _find(out, name, version)):
            words = [*pip, "download", "--no-deps", "--dest", str(out), f"{name}=={version}"]
            binary = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
            for platform in platforms:
                binary += ["--platform", platform]
            if subprocess.run([*words, *binary], stderr=subprocess.DEVNULL).returncode:
                _build(pip, name, version, out)
            found = _find(out, name, version)
        if not found:
            raise SystemExit(
                f"error: expected a wheel of {name}=={version}, got none from pip; remedy: choose "
                f"a version that has one in {LIST}"
            )
        keep.add(found)
    for wheel in set(out.glob("*.whl")) - keep:
        wheel.unlink()


def _build(pip: list[str], name: str, version: str, out: Path) -> None:
    words = [*pip, "wheel", "--no-deps", "--wheel-dir", str(out), f"{name}=={version}"]
    done = subprocess.run(words, capture_output=True, text=True)
    found = _find(out, name, version)
    if done.returncode or not found or not found.name.endswith("-none-any.whl"):
        raise SystemExit(
            f"error: expected {name}=={version} as a wheel or as pure Python, got neither: "
            f"{done.stderr.strip()[-300:]}"
        )


def _find(out: Path, name: str, version: str) -> Path | None:
    wanted = name.lower().replace("-", "_")
    for wheel in out.glob("*.whl"):
        found, number = wheel.name.split("-")[:2]
        if found.lower().replace(".", "_") == wanted and number == version:
            return wheel
    return None


def tracked() -> dict[str, int]:
    """What git tracks, with sizes."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        raise SystemExit(
            f"error: {ROOT}: expected a git checkout, whose tracked files travel, got "
            f"{listed.stderr.strip()}; run this in a clone. The wheels are complete"
        )
    names = listed.stdout.split("\0")
    return {name: (ROOT / name).stat().st_size for name in names if (ROOT / name).is_file()}


def fit(files: dict[str, int], wheels: int, limit: float) -> list[str]:
    """Names of the checkpoints that stay behind for all to be within `limit` bytes."""
    left: list[str] = []
    total = sum(files.values()) + wheels
    for name in LEAVE:
        if total <= limit:
            break
        inside = [size for file, size in files.items() if file.startswith(f"checkpoints/{name}/")]
        if inside:
            left.append(name)
            total -= sum(inside)
    return left


def check_places(out: Path, copy_to: Path | None) -> None:
    """SystemExit where the wheels or the copy cannot go, before anything is downloaded."""
    for flag, place in (("--out", out), ("--copy", copy_to)):
        above = place and next(p for p in (place, *place.absolute().parents) if p.exists())
        if above and not above.is_dir():
            raise SystemExit(
                f"error: {flag} {place}: expected a directory, got a path through the file "
                f"{above}; choose another"
            )
    if copy_to and copy_to.exists() and any(copy_to.iterdir()):
        raise SystemExit(
            f"error: --copy {copy_to}: expected a new directory, got one with files; choose another"
        )


def copy(files: dict[str, int], left: list[str], wheels: Path, out: Path) -> None:
    """The tracked files without the checkpoints in `left`, and the wheels in `out`/wheels."""
    behind = tuple(f"checkpoints/{name}/" for name in left)
    for name in files:
        if not name.startswith(behind):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, out / name)
    shutil.copytree(wheels, out / "wheels")


def main() -> None:
    """Entry."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where the wheels go")
    add("--with", dest="more", default="", metavar="NAME,...",
        help="packages of requirements.lock to carry too, such as scipy")  # fmt: skip
    add("--limit", type=float, default=64.0, metavar="MIB", help="of all that travels (64)")
    add("--copy", type=Path, metavar="DIR", help="write the copy that travels there")
    given = parser.parse_args()
    wheels, lock = pinned(LIST), pinned(LOCK)
    for name in filter(None, given.more.split(",")):
        if name not in lock:
            parser.error(
                f"--with: expected a package of requirements.lock, got {name!r}; correct it"
            )
        wheels[name] = lock[name]
    check_places(given.out, given.copy)
    download(wheels, given.out)
    sizes = {path.name: path.stat().st_size for path in given.out.glob("*.whl")}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{size / MIB:8.2f}  {name}")
    files, total = tracked(), sum(sizes.values())
    left = fit(files, total, given.limit * MIB)
    behind = tuple(f"checkpoints/{name}/" for name in left)
    kept = sum(size for name, size in files.items() if not name.startswith(behind))
    checkpoints = sum(size for name, size in files.items() if name.startswith("checkpoints/"))
    print(
        f"{total / MIB:8.2f}  MiB: {len(sizes)} wheels\n"
        f"{sum(files.values()) / MIB:8.2f}  MiB: the repository, {checkpoints / MIB:.2f} of it "
        f"checkpoints\n{(total + kept) / MIB:8.2f}  MiB travel, of at most {given.limit:g}; "
        f"checkpoints that stay behind: {', '.join(left) or 'none'}"
    )
    if total + kept > given.limit * MIB:
        raise SystemExit("error: more than --limit even without checkpoints; carry fewer wheels")
    if given.copy:
        copy(files, left, given.out, given.copy)
        print(f"copied to {given.copy}; there: python -m benchmarks.gpu --wheels wheels --out OUT")


if __name__ == "__main__":
    main()
