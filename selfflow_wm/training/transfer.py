"""Weights of one backbone into another of the same blocks and other modalities.

What does not depend on the modalities is shared: blocks, modulation, the embeddings of noise levels
and text. A modality's projections go by its name. What is new starts such that the network computes
what it did before for the modalities that it knew: velocities of new modalities are 0, and parts
added to known ones (a stem, a vector into the modulation) start at 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import Backbone
from selfflow_wm.model.embed import grid_sinusoids

SHAPE = ("width", "heads", "double", "single", "mlp_ratio", "rope_theta", "text_patch")
"""Arguments of a `Backbone` that have to agree; the others add or leave out parts."""

OUTCOMES = ("loaded", "resized", "added", "dropped")
"""What happens to a tensor. resized: a table of positions for another number of tokens, whose
entries for places that both have are kept. Replaced ones are dropped and added."""

_PER_MODALITY = ("embed", "head", "gate")


@dataclass
class Transfer:
    """What was done, by part of the network: blocks, modulation, level, text, vector_in.NAME, and
    each modality by its name."""

    parts: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """Part -> outcome -> [tensors, parameters]."""

    def count(self, part: str, outcome: str, tensor: Tensor) -> None:
        row = self.parts.setdefault(part, {name: [0, 0] for name in OUTCOMES})[outcome]
        row[0] += 1
        row[1] += tensor.numel()

    def total(self, outcome: str) -> list[int]:
        """[tensors, parameters] of all parts."""
        rows = [part[outcome] for part in self.parts.values()]
        return [sum(row[i] for row in rows) for i in range(2)]


def full_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a `Backbone` with its defaults for those left out."""
    known = inspect.signature(Backbone).parameters.values()
    defaults = {p.name: p.default for p in known if p.default is not p.empty}
    return defaults | dict(arguments)


def differing_shape(asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Those of `SHAPE` in which two sets of a `Backbone`'s arguments differ."""
    asked, found = full_arguments(asked), full_arguments(found)
    return [name for name in SHAPE if asked[name] != found[name]]


def part_of(name: str) -> tuple[str, str | None]:
    """The part that a tensor of a `Backbone` belongs to, and the modality if it belongs to one."""
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    if first in _PER_MODALITY:
        return second, second
    if first == "vector_in":
        return f"vector_in.{second}", None if second == "text" else second
    return ("blocks" if first.endswith("_blocks") else first), None


@torch.no_grad()
def transfer(
    target: Backbone, weights: Mapping[str, Tensor], layout: Layout, kept: Collection[str]
) -> Transfer:
    """Load into `target`, an untrained network, what it shares with `weights` of another.

    layout: of the weights. kept: modalities of both whose tokens hold the same values in both.
    The arguments in `SHAPE` must agree (`differing_shape`).

    Raises:
        ValueError: tensors of shared parts are missing or of another shape.
    """
    done, taken = Transfer(), set()
    rows = {name: (layout[name], target.layout[name]) for name in kept}
    known = _whole_vectors(target, weights, rows)
    for name, value in target.state_dict().items():
        part, modality = part_of(name)
        wanted = modality is None or modality in rows
        found = weights.get(name) if wanted and known.get(part, True) else None
        if found is None:
            _check_optional(name)
            if _perturbs(name, rows):
                value.zero_()
            done.count(part, "added", value)
            continue
        taken.add(name)
        if found.shape == value.shape:
            value.copy_(found)
            done.count(part, "loaded", value)
        elif found.shape[1:] != value.shape[1:] or not name.endswith(".position"):
            raise ValueError(
                f"{name}: expected a tensor of shape {tuple(value.shape)}, got "
                f"{tuple(found.shape)}; the weights are of another network than their "
                "configuration says"
            )
        elif modality is None:  # of the text
            value[: len(found)] = found[: len(value)]
            done.count(part, "resized", value)
        else:
            value.copy_(_resized(found.float(), *rows[modality]))
            done.count(part, "resized", value)
    for name in weights.keys() - taken:
        done.count(part_of(name)[0], "dropped", weights[name])
    return done


def _whole_vectors(
    target: Backbone, weights: Mapping[str, Tensor], kept: Iterable[str]
) -> dict[str, bool]:
    """By part of `vector_in`: whether all its tensors are there, of the same shape."""
    fits: dict[str, bool] = {}
    for name, value in target.state_dict().items():
        part, modality = part_of(name)
        if name.startswith("vector_in."):
            same = name in weights and weights[name].shape == value.shape
            fits[part] = fits.get(part, True) and same and (modality is None or modality in kept)
    return fits


def _check_optional(name: str) -> None:
    if name.partition(".")[0] not in (*_PER_MODALITY, "vector_in"):
        raise ValueError(
            f"{name}: expected this tensor among the weights, got none; they are of another "
            "network than their configuration says"
        )


def _perturbs(name: str, kept: Iterable[str]) -> bool:
    """Last layers of new parts that would change what the network does for known modalities."""
    return (
        name.startswith("vector_in.")
        and ".linear2." in name
        or any(name.startswith(f"embed.{one}.stem.2.") for one in kept)
    )


def _resized(table: Tensor, old: Modality, new: Modality) -> Tensor:
    """Learned positions (n, D) for another grid: a place that the old grid has keeps its vector;
    a further one takes its own sinusoids and what was learned at the nearest edge."""
    width = table.shape[1]
    learned = (table - grid_sinusoids(old, width).to(table)).unflatten(0, old.grid)
    places = [torch.arange(size) for size in new.grid]
    inside = [place < size for place, size in zip(places, old.grid, strict=True)]
    index = torch.meshgrid(
        *(place.clamp(max=size - 1) for place, size in zip(places, old.grid, strict=True)),
        indexing="ij",
    )
    extended = grid_sinusoids(new, width).to(table).unflatten(0, new.grid) + learned[index]
    both = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None]
    same = table.unflatten(0, old.grid)[index]
    return torch.where(both[..., None], same, extended).flatten(0, 2)
