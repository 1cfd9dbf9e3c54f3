"""The words KEY=VALUE of a command line: overrides of `configs/eval.yaml`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from selfflow_wm.cli import Parser

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


class OptionParser(Parser):
    """A `Parser` that knows which unknown flags are keys: `--device cpu` is `policy.device=cpu`."""

    def _right_form(self, place: int) -> str | None:
        flag, equals, value = self._words[place].partition("=")
        if flag.startswith("--") and flag not in self._option_string_actions:
            name = flag.strip("-").replace("-", "_")
            for key in _keys(_defaults()):
                if key.rpartition(".")[2] == name:
                    return f"write {key}={value if equals else self._following(place)}"
        return super()._right_form(place)

    def _following(self, place: int) -> str:
        return next(iter(self._words[place + 1 :]), "VALUE")


def load_config(overrides: Sequence[str] = (), command: str = "") -> dict[str, Any]:
    """Compose `configs/eval.yaml` with hydra `overrides` (`key=value`).

    command: that they were given in, to which a sweep (`policy.steps=1,2`) is answered with a loop.

    Raises:
        ValueError: an argument that is not an override, an unknown key, or a value of another type.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    default = _defaults()
    _check(overrides, default, command)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            config = OmegaConf.to_container(compose("eval", list(overrides)), resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise _unreadable(" ".join(overrides), error) from None
    _same_kinds(default, config, "")
    return config  # type: ignore[return-value]


def check_read(overrides: Sequence[str], group: str | None, policy: str) -> None:
    """`ValueError` for overrides of a group that the policy does not read.

    Args:
        overrides: as given.
        group: of configs/eval.yaml that it reads; None: none.
        policy: as given by `--policy`.
    """
    idle = [w for w in overrides if w.partition(".")[0] in {"policy", "random", "remote"} - {group}]
    if not idle:
        return
    remedy = "leave them out"
    if group == "remote":
        remedy = "give them to the server (python -m eval.serve), and remote.execute=N here"
    elif group:
        remedy = f"write {group}.KEY=VALUE, or leave them out"
    wanted = f"{group}.KEY=VALUE" if group else "no options"
    raise ValueError(
        f"override: expected {wanted} with --policy {policy}, got {' '.join(idle)}, which it does "
        f"not read; {remedy}"
    )


def _defaults() -> dict[str, Any]:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.load(CONFIGS / "eval.yaml"))  # type: ignore[return-value]


def _keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all entries."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _check(overrides: Sequence[str], default: Mapping[str, Any], command: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, keys, swept = OverridesParser.create(), list(_keys(default)), []
    for word in overrides:
        try:
            one = parser.parse_override(word)
        except HydraException as error:
            raise _unreadable(word, error) from None
        if one.is_sweep_override():
            swept.append(word)
        key, value = one.key_or_group, word.lstrip("+~").partition("=")[2]
        if key not in (*keys, *default):
            same = [name for name in keys if name.rpartition(".")[2] == key.rpartition(".")[2]]
            near = get_close_matches(key, keys, 1) or same
            remedy = f"write {near[0]}={value}" if near else f"choose among {', '.join(keys)}"
            raise ValueError(
                f"override: expected a key of configs/eval.yaml, got {key!r}; {remedy}"
            )
    if swept:
        raise ValueError(
            f"override: expected one run, got a sweep, {' '.join(swept)}; "
            f"{_loop(swept, shlex.split(command))}"
        )


def _loop(swept: Sequence[str], words: Sequence[str]) -> str:
    """What to write instead of a sweep: a loop of the shell over the values."""
    if not words or any(re.search(r"=(range|interval|glob)\(", word) for word in swept):
        return "give one value"
    heads, names, rest, out = [], [], [], "runs/sweep"
    given = iter(words)
    for word in given:
        if word == "--out":
            out = next(given, out)
        elif word.startswith("--out="):
            out = word.removeprefix("--out=")
        elif word in swept:
            key, _, values = word.partition("=")
            name = key.lstrip("+").replace(".", "_")
            values = re.sub(r"^choice\(|\)$", "", values).split(",")
            heads.append(f"for {name} in {' '.join(value.strip() for value in values)}; do ")
            names.append(name)
            rest.append(f"{key}=${name}")
        else:
            rest.append(shlex.quote(word))
    place = shlex.quote(out) + "".join(f"-${name}" for name in names)
    return f"{''.join(heads)}{' '.join(rest)} --out {place}{'; done' * len(names)}"


def _unreadable(words: str, error: Exception) -> ValueError:
    return ValueError(
        f"override: expected key=value with a key of configs/eval.yaml, got {words} "
        f"({str(error).splitlines()[0]}); e.g. policy.steps=16"
    )


def _same_kinds(default: Any, value: Any, key: str) -> None:
    if isinstance(default, dict):
        if not isinstance(value, dict) or default.keys() != value.keys():
            raise ValueError(
                f"override: expected the keys {', '.join(default)} under {key or 'the top'}, "
                f"got {value!r}; change values only"
            )
        for name in default:
            _same_kinds(default[name], value[name], f"{key}.{name}".lstrip("."))
        return
    number = isinstance(default, float) and type(value) is int
    if type(value) is not type(default) and not number:
        raise ValueError(
            f"override: expected {key} as {type(default).__name__}, such as {default!r}, "
            f"got {value!r}; give a value of that type"
        )
