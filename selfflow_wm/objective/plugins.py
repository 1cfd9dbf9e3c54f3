"""Objectives from other packages, as words that `objective=` takes like those of configs/."""

from __future__ import annotations

import inspect
from typing import Any

from selfflow_wm.plugins import Plugins

OBJECTIVES = Plugins("selfflow_wm.objectives", {}, "objective")
"""Classes with the methods of `FlowMatching`, as a rule derived from it."""
_FROM_CONFIG = {
    "time_laws": "${noise.time_laws}",
    "condition_noise": "${noise.condition_noise}",
    "caption_dropout": "${noise.caption_dropout}",
    "width": "${model.width}",
}
"""Arguments whose value the rest of the configuration decides, for every arm alike."""


def offer() -> None:
    """Put every installed objective into hydra's group `objective`, under its entry point's name.

    Its configuration is the constructor's arguments at their defaults, and those of `_FROM_CONFIG`
    where it takes them. An argument with neither has to be given (`objective.NAME=VALUE`).
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for name, objective in OBJECTIVES.load_all().items():
        store.store(group="objective", name=name, node=_node(objective))


def _node(objective: type) -> dict[str, Any]:
    node: dict[str, Any] = {"_target_": f"{objective.__module__}.{objective.__qualname__}"}
    for parameter in inspect.signature(objective).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = "???" if parameter.default is parameter.empty else parameter.default
        node[parameter.name] = _FROM_CONFIG.get(parameter.name, default)
    return node
