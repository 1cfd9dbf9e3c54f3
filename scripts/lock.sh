#!/usr/bin/env bash
# Rewrites requirements.lock (core and dev) and, in requirements/, extras.lock, rlds.lock, lerobot.lock,
# docs.txt and simpler.txt.
# Usage: scripts/lock.sh [--upgrade]     without it, versions already locked are kept
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v uv >/dev/null 2>&1; then
    echo "lock: expected uv on PATH, found none. Install it with: python3 -m pip install uv" >&2
    exit 1
fi

# torch's CUDA packages: exact dependencies of the CUDA build only, see the header written below.
# Those with cu12 belong to the older torch of lerobot.lock.
platform_packages=(
    cuda-bindings cuda-pathfinder cuda-toolkit
    nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13
    nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse
    nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton
    nvidia-cublas-cu12 nvidia-cuda-cupti-cu12 nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12
    nvidia-cudnn-cu12 nvidia-cufft-cu12 nvidia-cufile-cu12 nvidia-curand-cu12 nvidia-cusolver-cu12
    nvidia-cusparse-cu12 nvidia-cusparselt-cu12 nvidia-nccl-cu12 nvidia-nvjitlink-cu12
    nvidia-nvshmem-cu12 nvidia-nvtx-cu12
)

compile() { # compile OUTPUT HEADER [uv arguments ...]
    local output=$1 header=$2
    shift 2
    # No index address is written.
    uv pip compile --quiet --python-version 3.11 --no-header \
        "${platform_packages[@]/#/--no-emit-package=}" \
        --output-file "$output" "$@"
    if grep -nE '^(nvidia-|cuda-|triton)|\+cpu|https?://' "$output"; then
        echo "lock: the lines above must not be locked; add them to platform_packages" >&2
        exit 1
    fi
    # uv lists what it left out in a trailing comment; the header says it better.
    local body
    body=$(sed '/^# The following packages were excluded/,$d' "$output")
    printf '%s\n\n%s\n' "$header" "$body" >"$output"
}

# One version per package for every Python >= 3.11, with markers only where a package exists for some
# platforms.
every_python=(--universal --fork-strategy fewest)

compile requirements.lock "\
# Every package of the default environment (pyproject.toml with the dev extra, and build.in), pinned.
# Written by scripts/lock.sh; installed by ./run. One file serves Python 3.11 to 3.14.
#
# torch stands here as a plain 2.13.0. pip takes the build that fits the machine: a local CPU build
# (2.13.0+cpu) where pip is configured to find one, the index's own (CUDA) build otherwise. Hence
#   - no hashes: the two builds have different ones, and pip wants hashes for all packages or none;
#   - no nvidia-*, cuda-* or triton pins: the CUDA build itself names those versions exactly, so pip
#     adds them with that build, and a CPU machine is spared several GB." \
    pyproject.toml requirements/build.in --extra dev "${every_python[@]}" \
    --annotation-style line --constraint requirements/torch.in "$@"

compile requirements/extras.lock "\
# The optional dependencies on top of requirements.lock, but for rlds and lerobot:
#   pip install -r requirements/extras.lock
# ./run test-extras extras installs it into an environment of its own. Written by scripts/lock.sh." \
    pyproject.toml --extra array_record --extra diffusers --extra evaluation --extra gcs \
    --extra ray --extra repa \
    "${every_python[@]}" --no-annotate --constraint requirements.lock "$@"

compile requirements/rlds.lock "\
# The rlds extra on top of requirements.lock: pip install -r requirements/rlds.lock
# ./run test-extras rlds installs it into an environment of its own. Written by scripts/lock.sh." \
    pyproject.toml --extra rlds "${every_python[@]}" --no-annotate --constraint requirements.lock "$@"

# Not on top of requirements.lock: LeRobot wants an older torch.
compile requirements/lerobot.lock "\
# An environment of its own for the lerobot extra, with the tools that run the tests: Python 3.11,
# torch < 2.11. ./run test-extras lerobot makes it. Written by scripts/lock.sh." \
    pyproject.toml requirements/build.in --extra lerobot --extra dev --no-annotate \
    --python-platform x86_64-manylinux_2_31 "$@"


compile requirements/docs.txt "\
# The documentation site, in an environment of its own: ./run docs
# Written by scripts/lock.sh." \
    requirements/docs.in "${every_python[@]}" --no-annotate --constraint requirements.lock "$@"

# One Python and platform only: SAPIEN 2.2.2 has no wheels past 3.11.
compile requirements/simpler.txt "\
# An environment of its own for the real SIMPLER: Python 3.11, numpy < 2.
#   python3.11 -m venv .venv-simpler
#   .venv-simpler/bin/pip install -r requirements/simpler.txt
#   .venv-simpler/bin/pip install --no-deps -r requirements/simpler-git.txt
#   .venv-simpler/bin/pip install --no-deps -e .
# --no-deps for the second: SIMPLER asks for gymnasium < 1.0 and works with the 1.x pinned here. Its
# git lines stand apart from the locks because a lock that names a git host cannot be installed where
# only a package index is reachable.
# Rendering needs Vulkan: a GPU driver, or Mesa >= 24.3 (Debian 12: mesa-vulkan-drivers from
# bookworm-backports, with libvulkan1 and libegl1).
# Written by scripts/lock.sh." \
    pyproject.toml requirements/simpler.in --no-annotate --python-platform x86_64-manylinux_2_31 \
    --constraint requirements/torch.in "$@"
