"""The configuration of a training run: configs/ with hydra overrides, and answers to typos."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from selfflow_wm.model import Backbone
from selfflow_wm.objective import FlowMatching
from selfflow_wm.plugins import CONFIG_DIR, OBJECTIVES
from selfflow_wm.training.command import missing_words

_FROM_CONFIG = {
    "time_laws": "${noise.time_laws}",
    "condition_noise": "${noise.condition_noise}",
    "caption_dropout": "${noise.caption_dropout}",
    "width": "${model.width}",
}
"""Arguments of objectives that the rest of the configuration decides, for every arm alike."""
PROGRAMS = {"finetune": "robotics.finetune", "pretrain": "selfflow_wm.pretrain"}
"""Commands by their file in configs/ and what `python -m` runs. A file of a group may say
`command: finetune`, when the other command has no use for it."""
RENAMED = {
    "codecs=published": "codec=published_multimodal",
    "codecs": "codec",
    "weights": "loss_weights",
    "optim=adamw": "trainer=default",
}
"""Words of earlier versions -> today's: whole words, or the first part of a key. All of them still
work on the command line and in the records of runs."""

RENAMED_KEYS = {"layout.proprio": "layout.state"}
"""Keys of sections that earlier versions had -> today's; they work as `RENAMED` do."""
_RENAMED_ROWS = ("model.vector_in", {"proprio": "state"})
"""A key whose value names rows of the layout, and their earlier names -> today's."""

_OPEN = {
    "finetune": ("data", "modes", "objective"),
    "pretrain": ("data", "modes", "objective", "codec"),
}
"""Sections whose readers refuse keys that they do not know, or take any."""


def compose_config(program: str, overrides: Sequence[str], *, paths: Sequence[str]) -> DictConfig:
    """The configuration of a command with hydra overrides; ValueError says what was wrong with
    them.

    program: one of `PROGRAMS`. overrides: may be those of `RENAMED`. paths: keys that hold paths,
    which need no hydra quotes.
    """
    _offer_objectives()
    overrides = [current_word(word) for word in overrides]
    words = [quoted(word, paths) for given in overrides for word in _whole_codecs(given)]
    parsed = _parsed(words)
    if any(one.is_sweep_override() for one in parsed):
        raise ValueError(one_run_each(program, overrides))
    name = program.rpartition(".")[2]
    for one in parsed:
        if (one.is_add() or one.is_force_add()) and one.key_or_group in _groups(name):
            word = str(one.input_line).lstrip("+")
            raise ValueError(
                f"configuration: expected {word} for a group that is there already, got "
                f"{one.input_line}; write {word}"
            )
    grouped = [one for one in parsed if _is_group(one) and not one.is_add()]
    _check_options(name, grouped)
    groups = [str(one.input_line) for one in grouped]
    try:
        config = _compose(name, words)
    except (HydraException, OmegaConfBaseException) as error:
        try:
            known = _compose(name, groups)
        except (HydraException, OmegaConfBaseException):
            raise ValueError(f"configuration: {error}") from None
        _check_keys(name, [one for one in parsed if not _is_group(one)], known)
        raise ValueError(f"configuration: {error}") from None
    added = [one for one in parsed if one.is_add() or one.is_force_add()]
    if added:
        _check_keys(name, added, _compose(name, groups))
    _check_numbers(config)
    if config.log.name is None:
        config.log.name = _run_name(grouped, config)
    return config


def _run_name(groups: Sequence[Override], config: DictConfig) -> str | None:
    """What a run is called: after its experiment, else after its directory."""
    chosen = [one.value() for one in groups if one.key_or_group == "experiment"]
    if chosen and chosen[-1]:
        return str(chosen[-1])
    if OmegaConf.is_missing(config, "out") or not config.out:
        return None
    return Path(config.out).resolve().name


def current_word(word: str) -> str:
    """An override as today's configuration has it; see `RENAMED`."""
    bare = word.lstrip("+~")
    signs = word.removesuffix(bare)
    if bare in RENAMED:
        return signs + RENAMED[bare]
    first = re.match(r"\w*", bare)[0]  # pyright: ignore[reportOptionalSubscript]
    bare = RENAMED.get(first, first) + bare[len(first) :]
    key, equals, value = bare.partition("=")
    bare = RENAMED_KEYS.get(key, key) + equals + value
    if key == _RENAMED_ROWS[0]:
        for before, now in _RENAMED_ROWS[1].items():
            bare = re.sub(rf"\b{before}\b", now, bare)
    return signs + re.sub(
        r"(?<=\$\{)\w+(?=[.}])", lambda found: RENAMED.get(found[0], found[0]), bare
    )


def current_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's recorded configuration with today's names of its sections; see `RENAMED`."""
    found = {RENAMED.get(key, key): value for key, value in record.items()}
    for before, now in RENAMED_KEYS.items():
        section, _, key = before.partition(".")
        if key in (found.get(section) or {}):
            row = dict(found[section])
            row[now.partition(".")[2]] = row.pop(key)
            found[section] = row
    section, _, key = _RENAMED_ROWS[0].partition(".")
    if names := (found.get(section) or {}).get(key):
        today = [_RENAMED_ROWS[1].get(name, name) for name in names]
        found[section] = dict(found[section]) | {key: today}
    return found


def _offer_objectives() -> None:
    """Put other packages' objectives into hydra's group `objective`, by their entry points' names.

    The configuration of one is its constructor's arguments at their defaults, and those of
    `_FROM_CONFIG` where it takes them. An argument with neither has to be given
    (`objective.NAME=VALUE`). A default that yaml does not know is left to the constructor.
    """
    for name, objective in OBJECTIVES.load_all().items():
        node = {"_target_": f"{objective.__module__}.{objective.__qualname__}"}
        for argument in inspect.signature(objective).parameters.values():
            if argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
                default = "???" if argument.default is argument.empty else argument.default
                if argument.name in _FROM_CONFIG or _is_plain(default):
                    node[argument.name] = _FROM_CONFIG.get(argument.name, default)
        ConfigStore.instance().store(group="objective", name=name, node=node)


def _is_plain(value: Any) -> bool:
    try:
        OmegaConf.create({"value": value})
    except OmegaConfBaseException:
        return False
    return True


def _compose(name: str, words: Sequence[str]) -> DictConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose(name, overrides=list(words))
    with open_dict(config):
        _take_commands(name, config)
    OmegaConf.resolve(config)
    return config


def _take_commands(name: str, config: DictConfig) -> None:
    """Remove what files say on the command that they are for; ValueError when it is another one, or
    when a file has a section of an earlier version."""
    for key in RENAMED.keys() & config.keys():
        raise ValueError(
            f"configuration: expected a section {RENAMED[str(key)]}, got {key}; rename it in your "
            "file of configs/"
        )
    for before, now in RENAMED_KEYS.items():
        if OmegaConf.select(config, before) is not None:
            raise ValueError(
                f"configuration: expected {now}, got {before}; rename it in your file of configs/"
            )
    sections: dict[Any, Any] = dict(config.items_ex(resolve=False))
    for key in _groups(name):
        section: Any = config if key == "experiment" else sections.get(key)
        command = section.pop("command", name) if isinstance(section, DictConfig) else name
        if command != name:
            raise ValueError(
                f"configuration: expected {key} for python -m {PROGRAMS[name]}, got a file that "
                f"says command: {command}; choose another"
            )


def _parsed(words: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except OverrideParseException as error:
        raise ValueError(
            f"configuration: cannot read {error.override!r}; expected KEY=VALUE, with quotes "
            f"around special characters: 'KEY=\"a[:2]\"'. {str(error).splitlines()[0]}"
        ) from None


def _is_group(one: Override) -> bool:
    return (CONFIG_DIR / one.key_or_group).is_dir()


def _groups(name: str) -> dict[str, str | None]:
    """Folders of configs/ that a command chooses from by their names, and what it has without."""
    file: Any = OmegaConf.load(CONFIG_DIR / f"{name}.yaml")
    return {
        str(key): value
        for entry in file.defaults
        if isinstance(entry, DictConfig)
        for key, value in entry.items()
    }


def options(group: str) -> dict[str, str]:
    """Names to choose from in a folder of configs/, each with the command that it is for ("": any).
    Templates, which are to be copied, are left out."""
    files = {path.stem: path for path in (CONFIG_DIR / group).glob("*.yaml")}
    others = dict.fromkeys(OBJECTIVES.usable() if group == "objective" else (), "")
    loaded: dict[str, Any] = {
        stem: OmegaConf.load(path)
        for stem, path in sorted(files.items())
        if not stem.endswith("template")
    }
    return {stem: file.get("command", "") for stem, file in loaded.items()} | others


def _check_options(name: str, overrides: Sequence[Override]) -> None:
    """ValueError with the nearest option for a file of a group that is not there, or is of another
    command."""
    own = _groups(name)
    for one in overrides:
        group, value = one.key_or_group, one.value()
        if group.partition("/")[0] not in own:
            remedy = "leave it out"
            if group == "robot" and name == "finetune":
                remedy = f"write spec={value}"
            raise ValueError(
                f"configuration: expected a group out of {', '.join(own)}, got {group}; {remedy}"
            )
        commands = options(group)
        names = [stem for stem, command in commands.items() if command in ("", name)]
        if isinstance(value, str) and value not in names:
            if group == "objective" and value in OBJECTIVES.names():
                OBJECTIVES.load(value)  # raises what is wrong with it
            remedy = f"write {group}={_nearest_option(name, group, value)}"
            aside = ""
            if other := commands.get(value):
                aside = f" of python -m {PROGRAMS[other]}"
                if group == "experiment":  # the whole recipe: the command is the mistake
                    remedy = f"write python -m {PROGRAMS[other]} {group}={value}"
            raise ValueError(
                f"configuration: expected {group} out of {', '.join(names)}, got {value!r}{aside}; "
                f"{remedy}"
            )


def _nearest_option(name: str, group: str, value: str) -> str:
    """The word for `group` that is nearest to `value`, or what the command has without one."""
    names = [stem for stem, command in options(group).items() if command in ("", name)]
    if value in names:
        return value
    near = get_close_matches(value, names, 1)
    return near[0] if near else _groups(name).get(group) or names[0]


def _check_keys(name: str, overrides: Sequence[Override], config: DictConfig) -> None:
    """ValueError with the nearest key for an override that nobody would read. config: without any
    of them."""
    keys = list(_keys(config))
    for one in overrides:
        key = one.key_or_group
        adding = one.is_add() or one.is_force_add()
        if _is_read(key, config, keys, adding, _OPEN[name]):
            continue
        value = (one.input_line or key).lstrip("+~")[len(key) :]
        words = [*keys, *_groups(name)]
        same = [full for full in keys if full.rpartition(".")[2] == key.rpartition(".")[2]]
        near = get_close_matches(key, words, 1) or same
        tilde = "~" if one.is_delete() else ""
        chosen = value
        if near and near[0] in _groups(name) and value.startswith("="):
            chosen = f"={_nearest_option(name, near[0], value[1:])}"
        remedy = f"write {tilde}{near[0]}{chosen}" if near else "--config prints all keys"
        parts = key.split(".")
        for count in range(1, len(parts)):
            above = ".".join(parts[:count])
            if above in keys and OmegaConf.select(config, above) is None:  # nothing to go into
                inner = "".join(f"{{{part}: " for part in parts[count:])
                whole = f"{above}={inner}{value.lstrip('=')}{'}' * (len(parts) - count)}"
                remedy = f"write '{whole}'"
        raise ValueError(
            f"configuration: expected a key of configs/{name}.yaml, got {key!r}; {remedy}"
        )


def _is_read(
    key: str, config: DictConfig, keys: Sequence[str], adding: bool, free: Sequence[str]
) -> bool:
    if not adding:
        return key in keys
    first, _, rest = key.partition(".")
    if first not in config or not rest or first in free:
        return first in config
    second = rest.partition(".")[0]
    if first == "model":
        return second in inspect.signature(Backbone).parameters
    return not OmegaConf.is_config(config[first]) or second in config[first]


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all entries and sections."""
    for key in config:
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(config, key) and OmegaConf.is_dict(config[key]):
            yield from _keys(config[key], f"{prefix}{key}.")


def one_run_each(program: str, words: Sequence[str]) -> str:
    """What to write instead of a sweep: a loop of the shell over the values."""
    swept, rest = [], []
    for word in words:
        key, _, value = word.partition("=")
        one = _parsed([word])[0] if re.match(r"[\w.]+=[^{\['\"]*,", word) else None
        if one is not None and one.is_sweep_override() and one.is_choice_sweep():
            swept.append((key, re.sub(r"^choice\(|\)$", "", value).split(",")))
        else:
            rest.append(word)
    loops = swept or [("seed", ["0", "1", "2"])]
    names = [key.replace(".", "_") for key, _ in loops]
    heads = "; do ".join(
        f"for {name} in {' '.join(value.strip() for value in values)}"
        for name, (_, values) in zip(names, loops, strict=True)
    )
    words = [f"{key}=${name}" for name, (key, _) in zip(names, loops, strict=True)]
    place = next((word for word in rest if word.startswith("out=")), "out=runs/sweep")
    rest = [word for word in rest if not word.startswith("out=")]
    place = shlex.quote(place) + "".join(f"-${name}" for name in names)
    line = " ".join([f"python -m {program}", *map(shlex.quote, rest), *words, place])
    return (
        "expected one run, got a sweep; every run has a directory and a state of its own: "
        f"{heads}; do {line}{'; done' * len(loops)}"
    )


def _check_numbers(config: DictConfig) -> None:
    """ValueError for a word where configs/ has a number; a flag is left to its reader."""
    stated: Any = OmegaConf.load(CONFIG_DIR / "trainer" / "default.yaml")
    for group, defaults in stated.items():
        for key, default in defaults.items():
            value = config[group].get(key) if group in config else None
            number = default is None or isinstance(default, int | float)
            if number and not isinstance(default, bool) and isinstance(value, str):
                example = 60 if default is None else default
                raise ValueError(
                    f"{group}.{key}: expected a number, such as {example}, got {value!r}; change it"
                )


def _whole_codecs(word: str) -> tuple[str, ...]:
    """A codec of another kind takes the place of the one there, instead of mixing with its
    arguments: codec.image={kind: tae_flux2, weights: DIR, ...}."""
    key, _, value = word.partition("=")
    group, _, name = key.partition(".")
    if group != "codec" or not name or not re.match(r"\{.*\bkind\s*:", value):
        return (word,)
    return f"{key}=null", f"++{word}"


def quoted(word: str, paths: Sequence[str]) -> str:
    """Paths as a shell user writes them: ~, blanks and brackets need no hydra quotes."""
    key, equals, value = word.partition("=")
    if key not in paths or not equals or value in ("", "null", "???") or value[0] in "'\"":
        return word
    if key == "data" and value.startswith(("{", "[{")):  # several sets
        return word
    place = value if "://" in value else str(Path(value).expanduser())
    return f"{key}='" + place.replace("'", "\\'") + "'"


def require(config: DictConfig, *keys: str) -> None:
    """ValueError when the command line left out one of the directories `keys`, or left it empty."""
    missing = [
        key for key in keys if OmegaConf.is_missing(config, key) or config[key] in ("", None)
    ]
    if missing:
        raise ValueError(missing_words(missing))


def make_objective(config: Mapping[str, Any] | DictConfig) -> FlowMatching:
    """The arm; what its constructor refuses is misuse of the configuration."""
    return make_part(config, "objective")


def make_part(config: Mapping[str, Any] | DictConfig, name: str) -> Any:
    """What the section `name` of a configuration describes, by its `_target_` if it has one;
    ValueError for what the constructor refuses."""
    try:
        return instantiate(config[name], _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, ValueError | TypeError):
            raise
        text = str(cause)
        raise ValueError(text if text.startswith(f"{name}.") else f"{name}: {text}") from error
