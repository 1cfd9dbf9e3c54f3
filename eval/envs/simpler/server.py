"""The simulator's side of the pipe: `python -m eval.envs.simpler.server IN OUT SHADER`.

Runs in the interpreter that SIMPLER is installed in. IN and OUT are inherited pipe descriptors;
standard output is turned into standard error, because the simulator prints. Each message has an
`"op"`; each answer is `{"ok": true, ...}` or `{"ok": false, "error": ..., "kind": ...}`.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from eval.envs.simpler import wire

SCENE_VARIABLE = "SELFFLOW_WM_SIMPLER_SCENE"
"""`module:class` to serve instead of the real scene; for tests of the pipe."""

Arrays = dict[str, np.ndarray]


class Server:
    """Answers one message at a time; the scene is built by the first `open`."""

    def __init__(self, make_scene: Callable[[], Any]) -> None:
        self._make_scene = make_scene
        self._scene: Any = None
        self._expert: Any = None

    def answer(self, header: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """The answer to one message."""
        operation = header["op"]
        if operation == "open":
            self._scene = self._make_scene()
            return {}, {}
        if operation == "reset":
            self._expert = None
            info = self._scene.reset(header["cell"])
            return {"info": info}, self._scene.observation()
        if operation == "step":
            info = self._scene.step(arrays["control"])
            return {"info": info}, self._scene.observation()
        if operation == "advance":
            return {"info": self._scene.advance()}, {}
        if operation == "image":
            return {}, {"image": self._scene.image()}
        if operation == "label":
            return {"label": self._scene.label()}, {}
        if operation == "expert":
            return self._act()
        raise ValueError(f"message: expected a known op, got {operation!r}; one version")

    def close(self) -> None:
        """Release the scene."""
        if self._scene is not None:
            self._scene.close()

    def _act(self) -> tuple[dict[str, Any], Arrays]:
        if self._expert is None:
            self._expert = self._scene.expert()
        action = self._expert.act()
        return {"terminate": bool(action.terminate)}, {"control": action.control}


def serve(source: int, sink: int, make_scene: Callable[[], Any]) -> None:
    """Answer messages from `source` on `sink` until the other side closes its end."""
    server = Server(make_scene)
    while True:
        try:
            header, arrays = wire.receive(source)
        except wire.Closed:
            server.close()
            return
        try:
            answer, sent = server.answer(header, arrays)
            wire.send(sink, {"ok": True, **answer}, sent)
        except wire.Closed:
            return
        except Exception as error:
            traceback.print_exc()
            kind = "value" if isinstance(error, ValueError) else "crash"
            text = f"{type(error).__name__}: {error}" if kind == "crash" else str(error)
            wire.send(sink, {"ok": False, "kind": kind, "error": text})


def _real_scene(shader: str) -> Any:
    from eval.envs.simpler.scene import Scene

    return Scene(shader)


def main() -> None:
    """Serve the scene named by the environment, or the real one."""
    source, sink, shader = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    os.dup2(2, 1)  # output of the simulator must not be mistaken for answers
    make_scene: Callable[[], Any] = lambda: _real_scene(shader)  # noqa: E731
    if named := os.environ.get(SCENE_VARIABLE):
        module, _, attribute = named.partition(":")
        make_scene = lambda: getattr(importlib.import_module(module), attribute)(shader)  # noqa: E731
    serve(source, sink, make_scene)


if __name__ == "__main__":
    main()
