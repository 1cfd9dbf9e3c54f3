"""`configs/eval.yaml` with the user's overrides, as plain dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def load_config(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compose `configs/eval.yaml` with hydra `overrides` (`key=value`).

    Raises:
        ValueError: a word that is no override, an unknown key, or a value of another type.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        default = OmegaConf.to_container(compose("eval"))
        try:
            config = OmegaConf.to_container(compose("eval", list(overrides)), resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"override: expected key=value with a key of configs/eval.yaml; got "
                f"{' '.join(overrides)} ({reason}); remedy: e.g. policy.steps=16"
            ) from None
    _same_kinds(default, config, "")
    return config  # type: ignore[return-value]


def _same_kinds(default: Any, value: Any, key: str) -> None:
    if isinstance(default, dict):
        if not isinstance(value, dict) or default.keys() != value.keys():
            raise ValueError(
                f"override: expected the keys {', '.join(default)} under {key or 'the top'}; "
                f"got {value!r}; remedy: change values only"
            )
        for name in default:
            _same_kinds(default[name], value[name], f"{key}.{name}".lstrip("."))
        return
    number = isinstance(default, float) and type(value) is int
    if type(value) is not type(default) and not number:
        raise ValueError(
            f"override: expected {key} as {type(default).__name__}, such as {default!r}; "
            f"got {value!r}; remedy: give a value of that type"
        )
