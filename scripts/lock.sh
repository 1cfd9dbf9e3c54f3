#!/usr/bin/env bash
# Rewrites requirements.lock (core and dev) and requirements/rlds.lock from pyproject.toml.
# Usage: scripts/lock.sh [--upgrade]     without it, versions already locked are kept
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v uv >/dev/null 2>&1; then
    echo "lock: expected uv on PATH, found none. Install it with: python3 -m pip install uv" >&2
    exit 1
fi

# torch's CUDA packages: exact dependencies of the CUDA build only, see the header written below.
platform_packages=(
    cuda-bindings cuda-pathfinder cuda-toolkit
    nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13
    nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse
    nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton
)

compile() { # compile OUTPUT HEADER [uv arguments ...]
    local output=$1 header=$2
    shift 2
    # --universal with --fork-strategy fewest: one version per package for every Python >= 3.11, with
    # markers only where a package exists for some platforms. No index address is written.
    uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-header \
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

compile requirements.lock "\
# Every package of the default environment (pyproject.toml with the dev extra, and build.in), pinned.
# Written by scripts/lock.sh; installed by ./run. One file serves Python 3.11 to 3.14.
#
# torch stands here as a plain 2.13.0. pip takes the build that fits the machine: a local CPU build
# (2.13.0+cpu) where pip is configured to find one, the index's own (CUDA) build otherwise. Hence
#   - no hashes: the two builds have different ones, and pip wants hashes for all packages or none;
#   - no nvidia-*, cuda-* or triton pins: the CUDA build itself names those versions exactly, so pip
#     adds them with that build, and a CPU machine is spared several GB." \
    pyproject.toml requirements/build.in --extra dev \
    --annotation-style line --constraint <(echo "torch==2.13.0") "$@"

compile requirements/rlds.lock "\
# The rlds extra on top of requirements.lock: pip install -r requirements/rlds.lock
# Written by scripts/lock.sh." \
    pyproject.toml --extra rlds --no-annotate --constraint requirements.lock "$@"
