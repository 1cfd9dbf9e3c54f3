"""Decides how MuJoCo gets an OpenGL context without a screen."""

from __future__ import annotations

import ctypes.util
import os

INSTALL_LINE = "apt-get install -y libegl1 libgl1-mesa-dri libopengl0"


class NoOpenGLError(RuntimeError):
    """No headless OpenGL implementation could be found."""


def ensure_gl() -> str:
    """Choose the headless OpenGL backend; call before the first `import mujoco`.

    Respects `MUJOCO_GL` when it is set, else takes EGL, else OSMesa.

    Returns:
        the backend's name ("egl", "osmesa" or "glfw").
    Raises:
        NoOpenGLError: neither library is installed; names the line that installs it.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if not chosen:
        if ctypes.util.find_library("EGL"):
            chosen = "egl"
        elif ctypes.util.find_library("OSMesa"):
            chosen = "osmesa"
        else:
            raise NoOpenGLError(
                "expected an EGL or OSMesa library for headless rendering, got neither; "
                f"install one with: {INSTALL_LINE}"
            )
        os.environ["MUJOCO_GL"] = chosen
    if chosen in ("egl", "osmesa"):
        os.environ.setdefault("PYOPENGL_PLATFORM", chosen)
    return chosen
