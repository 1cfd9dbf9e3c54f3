# shellcheck shell=bash
# Makes the environments that ./run uses. Sourced, not executed; expects ROOT, the checkout's folder.
#
#   use_extras NAME          what follows is about .venv-NAME, which has the optional dependencies EXTRAS
#   ensure_environment       .venv holds requirements.lock and the project itself
#   ensure_docs_environment  .venv-docs holds requirements/docs.txt; VENV is that one from then on
#   ensure_rendering         MUJOCO_GL names a backend that draws without a display
#
# The last three are done once and leave a stamp, so that later calls cost milliseconds. A missing
# system package is installed where that is possible without asking (root on Debian or Ubuntu);
# elsewhere the run stops and prints the line that installs it.

VENV="$ROOT/.venv"
LOCKS=("$ROOT/requirements.lock")
SIZE="2.3 GB on disk, some 5 GB more with torch's CUDA build"
MIN_MINOR=11
MAX_MINOR=14

say() { printf 'run: %s\n' "$*" >&2; }

die() {
    printf 'run: error: %s\n' "$1" >&2
    shift
    if [ $# -gt 0 ]; then printf '     %s\n' "$@" >&2; fi
    exit 1
}

# system_packages REASON PACKAGE...   installs them, or stops with the line that would.
system_packages() {
    local reason=$1
    shift
    local line="apt-get update && apt-get install -y --no-install-recommends $*"
    if ! command -v apt-get >/dev/null 2>&1; then
        die "$reason" "Install what your system calls these Debian packages: $*" "Then run this again."
    fi
    if [ "$(id -u)" != 0 ]; then
        die "$reason" "Install it with: sudo sh -c '$line'" "Then run this again."
    fi
    say "$reason; installing $*"
    # One unreachable source makes "update" fail although ours were read: the install decides.
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 ||
        die "$reason" "This failed: $line"
}

# Environments of their own for the optional dependencies. EXTRAS are those of pyproject.toml.
use_extras() {
    VENV="$ROOT/.venv-$1"
    case "$1" in
        extras)
            EXTRAS=diffusers,evaluation,gcs,ray,repa
            SIZE="3.0 GB on disk, some 5 GB more with torch's CUDA build"
            ;;
        rlds)
            EXTRAS=rlds
            SIZE="3.7 GB on disk, some 5 GB more with torch's CUDA build"
            ;;
        # LeRobot 0.4.4 wants an older torch than requirements.lock has; its lock is for one Python.
        lerobot)
            EXTRAS=lerobot
            SIZE="9 GB on disk with torch's CUDA build"
            LOCKS=()
            PYTHON=${PYTHON:-python3.11}
            ;;
        *) die "test-extras: expected extras, rlds or lerobot; got: $1" ;;
    esac
    LOCKS+=("$ROOT/requirements/$1.lock")
}

# Sets PYTHON_BIN. A name on PATH is not enough: version managers leave shims that only print an
# error, so each candidate is asked for its version. 3.11 comes first because SIMPLER needs it.
find_python() {
    local candidate version seen=""
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
            continue
        if [ "${version%%.*}" = 3 ] && [ "${version#*.}" -ge $MIN_MINOR ] &&
            [ "${version#*.}" -le $MAX_MINOR ]; then
            PYTHON_BIN=$candidate
            PYTHON_VERSION=$version
            return
        fi
        seen="$seen $candidate=$version"
    done
    die "expected Python 3.$MIN_MINOR to 3.$MAX_MINOR, found:${seen:- none}." \
        "Install one (Debian 12, Ubuntu 24.04 or newer: apt-get install python3) or name yours:" \
        "PYTHON=/path/to/python3.11 ./run ..."
}

# Sets PYTHON_BIN to a Python that has torch, .venv's first; without one, to any that is new enough.
find_torch_python() {
    local candidate
    if is_in_place; then
        PYTHON_BIN="$VENV/bin/python"
        return
    fi
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import importlib.util as u; assert u.find_spec("torch")' >/dev/null 2>&1; then
            PYTHON_BIN=$candidate
            return
        fi
    done
    find_python
}

# What the contents of .venv depend on: the packages and the project's metadata.
environment_key() {
    cat "${LOCKS[@]}" "$ROOT/pyproject.toml" | { sha256sum 2>/dev/null || shasum -a 256; } | cut -d ' ' -f 1
}

# A .venv that was moved or copied with the checkout has its old path inside.
is_in_place() { [ "$(cat "$VENV/.place" 2>/dev/null)" = "$ROOT" ] && [ -x "$VENV/bin/python" ]; }

# is_installed KEY
is_installed() { is_in_place && [ "$(cat "$VENV/.installed" 2>/dev/null)" = "$1" ]; }

create_venv() {
    find_python
    # Debian and Ubuntu keep ensurepip out of the python3 package.
    if ! "$PYTHON_BIN" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        system_packages "Python $PYTHON_VERSION lacks the venv module" "python$PYTHON_VERSION-venv"
    fi
    say "creating ${VENV##*/} with Python $PYTHON_VERSION"
    "$PYTHON_BIN" -m venv --clear "$VENV"
    printf '%s\n' "$ROOT" >"$VENV/.place"
}

install_packages() {
    local pip=("$VENV/bin/python" -m pip --disable-pip-version-check)
    # A person sees pip's progress; a log gets only its errors.
    if [ ! -t 2 ]; then pip+=(-qq); fi
    say "installing ${LOCKS[*]#"$ROOT/"} (once; $SIZE)"
    # First the locked pip and setuptools, then the rest built with them (a few packages have no
    # wheel): nothing is fetched that the lock does not name, torch's CUDA packages excepted. The
    # project goes in as a path to the checkout ("compat"), so a new package needs no new install.
    "${pip[@]}" install --constraint "${LOCKS[0]}" pip setuptools &&
        "${pip[@]}" install --no-build-isolation "${LOCKS[@]/#/--requirement=}" &&
        "${pip[@]}" install --no-build-isolation --no-deps --editable "$ROOT" \
            --config-settings editable_mode=compat &&
        "${pip[@]}" check >&2
}

ensure_environment() {
    local key
    key=$(environment_key)
    if is_installed "$key"; then return; fi
    # Two first runs at once would install into the same folder: the second waits, then looks again.
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$VENV.lock"
        flock 9
        if is_installed "$key"; then
            exec 9>&-
            return
        fi
    fi
    rm -f "$VENV/.installed" "$VENV/.rendering"
    # A changed lock or an interrupted install goes on in the .venv that is there, if that still runs.
    if ! is_in_place || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        create_venv
    fi
    install_packages || die "the environment could not be installed, see above." \
        "What was installed is kept: run this again to go on, or remove ${VENV##*/} to start over."
    printf '%s\n' "$key" >"$VENV/.installed"
    exec 9>&-
}

# The site is built from the source files, so the project's own packages are not needed.
ensure_docs_environment() {
    VENV="$ROOT/.venv-docs"
    LOCK="$ROOT/requirements/docs.txt"
    local key pip=("$VENV/bin/python" -m pip --disable-pip-version-check)
    key=$({ sha256sum 2>/dev/null || shasum -a 256; } <"$LOCK" | cut -d ' ' -f 1)
    if is_installed "$key"; then return; fi
    if ! is_in_place; then create_venv; fi
    if [ ! -t 2 ]; then pip+=(-qq); fi
    say "installing requirements/docs.txt (once; 100 MB)"
    "${pip[@]}" install --requirement "$LOCK" || die "the documentation's tools could not be installed, see above."
    printf '%s\n' "$key" >"$VENV/.installed"
}

renders_with() { MUJOCO_GL=$1 "$VENV/bin/python" "$ROOT/scripts/render_probe.py" >/dev/null 2>&1; }

# Exports MUJOCO_GL unless the caller chose one: egl (a GPU, or Mesa's software renderer), osmesa
# where only that draws. macOS renders offscreen by default and needs none.
ensure_rendering() {
    if [ -n "${MUJOCO_GL:-}" ] || [ "$(uname -s)" != Linux ]; then
        return
    fi
    local backend
    backend=$(cat "$VENV/.rendering" 2>/dev/null || true)
    if [ -z "$backend" ]; then
        if renders_with egl; then
            backend=egl
        elif renders_with osmesa; then
            backend=osmesa
        else
            system_packages "MuJoCo cannot render: no working EGL or OSMesa library" \
                libegl1 libgl1-mesa-dri libopengl0
            renders_with egl || die "MuJoCo cannot render with EGL. The reason:" \
                "$(MUJOCO_GL=egl "$VENV/bin/python" "$ROOT/scripts/render_probe.py" 2>&1 | tail -n 1)"
            backend=egl
        fi
        printf '%s\n' "$backend" >"$VENV/.rendering"
    fi
    export MUJOCO_GL=$backend
}
