"""The sources that `data=` names, by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from selfflow_wm.codec import Codec
from selfflow_wm.data import JOINT, KINDS, Source, check_source
from selfflow_wm.data.folders import open_folder


def open_sources(
    data: str | Mapping[str, Any],
    kinds: Sequence[str],
    codecs: Mapping[str, Codec],
    fps: float | None = None,
) -> dict[str, Source]:
    """A checked source for each of `kinds`.

    data: a directory with a sub-directory for each kind, or kind -> directory or
    {"_target_": a class or function that gives a source, and its arguments}.
    codecs: by modality; sources of files cut and check what they read for them.
    fps: frames a second that videos in files must have; None takes any.

    Raises:
        ValueError: an unknown kind, a kind without data, or an error of the source itself.
    """
    if isinstance(data, str):
        root = Path(data)
        if not root.is_dir():
            raise ValueError(
                f"data={data}: expected a directory with {', '.join(f'{kind}/' for kind in KINDS)}"
                f", got {'a file' if root.exists() else 'nothing there'}; check the path, or make "
                f"it: mkdir -p {root}/{next(iter(kinds))}"
            )
        data = {kind: str(root / kind) for kind in KINDS if (root / kind).is_dir()}
        remedy = f"put it into {root}/KIND"
    else:
        remedy = "add it to data"
    if unknown := sorted(set(data) - set(KINDS)):
        raise ValueError(f"data: expected kinds out of {sorted(KINDS)}, got {unknown[0]!r}")
    sources = {}
    for kind in kinds:
        if data.get(kind) is None:
            alone = JOINT not in kinds  # which has tokens of every kind
            raise ValueError(
                f"modes.{kind}: expected data of kind {kind!r}, got {sorted(data) or 'none'}; "
                f"{remedy.replace('KIND', kind)}, or leave the mode out with modes.{kind}=null"
                + (f" layout.rows.{kind}=null" if alone else "")
            )
        sources[kind] = check_source(_open(data[kind], kind, codecs, fps), kind)
    return sources


def _open(entry: Any, kind: str, codecs: Mapping[str, Codec], fps: float | None) -> Source:
    if isinstance(entry, Mapping) and "_target_" in entry:
        try:
            return instantiate(dict(entry), _convert_="all")
        except InstantiationException as error:
            raise ValueError(f"data.{kind}: {error.__cause__ or error}") from error
    if not isinstance(entry, str):
        raise ValueError(
            f"data.{kind}: expected a directory or {{_target_: a source, ...}}, got {entry!r}"
        )
    try:
        return open_folder(kind, Path(entry).expanduser(), codecs, fps)
    except ValueError as error:
        raise ValueError(f"data.{kind}: {error}") from None
