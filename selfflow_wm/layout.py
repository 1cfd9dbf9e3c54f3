"""The parts of a sequence: the table of modalities, and batches of their latents.

A `Layout` is data. Image, video, action and proprioception differ by a row of it and
never by an `if` elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from selfflow_wm.devices import to_device

NULL_BYTE = 256
"""Text id of a dropped (or empty) caption of bytes; ids 0..255 are UTF-8 bytes."""

BYTE_VOCABULARY = 257


def null_caption(
    ids: Int[Tensor, "B L"],
    mask: Bool[Tensor, "B L"] | None,
    drop: Bool[Tensor, "B"],
    null_id: int = NULL_BYTE,
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"] | None]:
    """Replace the captions of the rows in `drop` by a single `null_id`. mask: None where all ids
    are text, as they still are afterwards if a caption is one id."""
    drop = drop[:, None]
    dropped = ids.masked_fill(drop, null_id)
    if mask is None and ids.shape[1] == 1:
        return dropped, None
    first = torch.arange(ids.shape[1], device=ids.device) == 0
    return dropped, first | ~drop if mask is None else torch.where(drop, first, mask)


def only_row(name: str, rows: Collection[str]) -> str:
    """`name`, or the only one of the layout's `rows` that is of this kind: of a world model, whose
    rows are named KIND/CAMERA or ROBOT:KIND/CAMERA, "image" for "image/front"."""
    alike = [row for row in rows if row.rpartition(":")[2].partition("/")[0] == name]
    return alike[0] if name not in rows and len(alike) == 1 else name


@dataclass(frozen=True)
class Modality:
    """One row of the layout: a (T, H, W) grid of tokens, row-major, of `channels` values each."""

    name: str
    grid: tuple[int, int, int]
    """(T, H, W) tokens. An action chunk of 6 steps is (6, 1, 1), a vector is (1, 1, 1)."""
    channels: int
    mask_ratio: float = 0.25
    """Dual-timestep mask ratio R_M in [0, 0.5]: the chance that a token takes `s` for `t`."""
    weight: float = 1.0
    """Weight of this modality in L_gen."""
    time_origin: float = 0.0
    """Time of the first token, in control steps (frames and actions share this clock)."""
    time_stride: float = 1.0
    """Control steps between consecutive tokens of the time axis."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(int(size) for size in self.grid))
        if not self.name or "." in self.name:
            raise ValueError(
                f"expected a modality name without dots, got {self.name!r}; rename it "
                "(it names a sub-module)"
            )
        if len(self.grid) != 3 or min(self.grid) < 1:
            raise ValueError(
                f"{self.name}: expected grid (T, H, W) of positive sizes, got {self.grid}; "
                "give 1 for the axes it lacks"
            )
        if self.channels < 1:
            raise ValueError(f"{self.name}: expected channels >= 1, got {self.channels}")
        if not 0.0 <= self.mask_ratio <= 0.5:
            raise ValueError(
                f"{self.name}: expected mask_ratio in [0, 0.5], got {self.mask_ratio}; "
                "above 0.5 swap the roles of t and s"
            )
        if self.weight < 0.0:
            raise ValueError(f"{self.name}: expected weight >= 0, got {self.weight}")

    @property
    def num_tokens(self) -> int:
        return prod(self.grid)

    def positions(self) -> Float[Tensor, "n 3"]:
        """(time in control steps, row, column) of each token, row-major."""
        frames, height, width = self.grid
        time = self.time_origin + self.time_stride * torch.arange(frames, dtype=torch.float32)
        rows = torch.arange(height, dtype=torch.float32)
        columns = torch.arange(width, dtype=torch.float32)
        axes = torch.meshgrid(time, rows, columns, indexing="ij")
        return torch.stack(axes, dim=-1).flatten(0, 2)


@dataclass(frozen=True)
class Layout:
    """The modalities in sequence order, and what a caption is: UTF-8 bytes, or a class label."""

    modalities: tuple[Modality, ...]
    text_length: int = 48
    """The longest caption in ids; 1 for class labels."""
    vocabulary: int = BYTE_VOCABULARY
    """Number of caption ids, the last of which is null: 257 for bytes, classes + 1 for labels."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        names = [modality.name for modality in self.modalities]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"expected at least one modality and distinct names, got {names}")
        if self.text_length < 1:
            raise ValueError(f"expected text_length >= 1, got {self.text_length}")
        if self.vocabulary < 2:
            raise ValueError(
                f"expected vocabulary >= 2, got {self.vocabulary}; count the null id, the last"
            )

    @property
    def null_id(self) -> int:
        """The id of a dropped caption: `NULL_BYTE` for bytes, the number of classes for labels."""
        return self.vocabulary - 1

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(modality.name for modality in self.modalities)

    def __getitem__(self, name: str) -> Modality:
        for modality in self.modalities:
            if modality.name == name:
                return modality
        raise ValueError(f"expected one of the modalities {self.names}, got {name!r}")

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def present(self, names: Iterable[str] | None = None) -> tuple[str, ...]:
        """`names` in layout order (all of them for None); ValueError on an unknown one."""
        if names is None:
            return self.names
        wanted = set(names)
        if unknown := wanted - set(self.names):
            raise ValueError(f"expected modalities among {self.names}, got {sorted(unknown)}")
        return tuple(name for name in self.names if name in wanted)

    def num_tokens(self, names: Iterable[str] | None = None) -> int:
        return sum(self[name].num_tokens for name in self.present(names))

    def slices(self, names: Iterable[str] | None = None) -> dict[str, slice]:
        """Where each of the present modalities lies in the main token axis."""
        slices, start = {}, 0
        for name in self.present(names):
            stop = start + self[name].num_tokens
            slices[name] = slice(start, stop)
            start = stop
        return slices

    def positions(self, names: Iterable[str] | None = None) -> Float[Tensor, "N 3"]:
        """(time, row, column) of every main token of the present modalities."""
        return torch.cat([self[name].positions() for name in self.present(names)])

    def to_dict(self) -> dict:
        """JSON-able form, the inverse of `from_dict`."""
        rows = [asdict(modality) | {"grid": list(modality.grid)} for modality in self.modalities]
        return {
            "modalities": rows,
            "text_length": self.text_length,
            "vocabulary": self.vocabulary,
        }

    @classmethod
    def from_dict(cls, data: Mapping) -> Layout:
        known = {item.name for item in fields(Modality)}
        for row in data["modalities"]:
            if unknown := set(row) - known:
                raise ValueError(
                    f"expected modality fields {sorted(known)}, got {sorted(unknown)} too; "
                    "the layout was written by another version"
                )
        modalities = tuple(Modality(**row) for row in data["modalities"])
        return cls(
            modalities,
            text_length=int(data.get("text_length", 48)),
            # Layouts written before class labels existed have captions of bytes.
            vocabulary=int(data.get("vocabulary", BYTE_VOCABULARY)),
        )

    def fake_batch(
        self,
        batch_size: int,
        names: Iterable[str] | None = None,
        generator: torch.Generator | None = None,
        given: Iterable[str] = (),
    ) -> Batch:
        """A random batch with this layout's shapes, for tests and benchmarks."""
        present = self.present(names)
        lengths = torch.randint(1, self.text_length + 1, (batch_size,), generator=generator)
        longest = int(lengths.max())
        text_mask = torch.arange(longest) < lengths[:, None]
        text_ids = torch.randint(0, self.null_id, (batch_size, longest), generator=generator)
        shapes = {name: (batch_size, self[name].num_tokens) for name in present}
        return Batch(
            latents={
                name: torch.randn(*shape, self[name].channels, generator=generator)
                for name, shape in shapes.items()
            },
            valid={name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()},
            text_ids=text_ids.where(text_mask, self.null_id),
            text_mask=text_mask,
            given=frozenset(given),
        )


@dataclass(frozen=True)
class Rows:
    """Which samples of a larger batch a process holds: every `step`-th, from `first` on.

    Processes that train together hold one batch between them. What is random is drawn for all of
    it in each of them, and means are over all of it, so that what they learn does not depend on
    how many they are. The default is the whole batch.
    """

    first: int = 0
    step: int = 1
    total: Callable[[Tensor], Tensor] = lambda tensor: tensor
    """The sum of a tensor over all holders."""

    def of(self, tensor: Tensor) -> Tensor:
        """This process's rows of a tensor for the whole batch."""
        return tensor if self.step == 1 else tensor[self.first :: self.step].contiguous()

    def mean(self, sums: Tensor, counts: Tensor, at_least: float = 0) -> Tensor:
        """`sums / counts`, both over this process's rows, scaled so that the mean of the results
        over all holders is the mean over the whole batch; the same holds for their gradients.

        at_least: the smallest count to divide by; by 0 gives NaN.
        """
        return sums * self.step / self.total(counts).clamp(min=at_least)


@dataclass
class Batch:
    """The input of an objective: clean latents of the modalities present in this batch's mode.

    A modality that is absent from the mode is left out of the sequence altogether. `given`
    ones sit at t = 0 (or at a small condition noise); the rest are generated and share
    their timesteps.
    """

    latents: dict[str, Float[Tensor, "B n C"]]
    valid: dict[str, Bool[Tensor, "B n"]]
    """False: padding (past the end of an episode), neither attended to nor in the loss. A modality
    without an entry has none, and attention may go without a mask."""
    text_ids: Int[Tensor, "B L"]
    """UTF-8 bytes or a class label; `Layout.null_id` for a dropped caption and for padding."""
    text_mask: Bool[Tensor, "B L"] | None
    """True on text; at least one True per row. None: all ids are text."""
    given: frozenset[str] = field(default_factory=frozenset)
    rows: Rows = field(default_factory=Rows)
    """Which samples these are, when several processes share a batch."""

    @property
    def batch_size(self) -> int:
        return self.text_ids.shape[0]

    @property
    def generated(self) -> tuple[str, ...]:
        return tuple(name for name in self.latents if name not in self.given)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on `device`; the host does not wait for a copy to a GPU."""
        mask = self.text_mask
        return Batch(
            latents={name: to_device(value, device) for name, value in self.latents.items()},
            valid={name: to_device(value, device) for name, value in self.valid.items()},
            text_ids=to_device(self.text_ids, device),
            text_mask=mask if mask is None else to_device(mask, device),
            given=self.given,
            rows=self.rows,
        )

    def check(self, layout: Layout) -> None:
        """ValueError unless every tensor has the shape that `layout` gives."""
        names = layout.present(self.latents)
        if unknown := set(self.given) - set(names):
            raise ValueError(f"expected given modalities among {names}, got {sorted(unknown)}")
        if not self.generated:
            raise ValueError(f"expected a modality to generate, got all of {names} given")
        for name in names:
            expected = (self.batch_size, layout[name].num_tokens, layout[name].channels)
            if tuple(self.latents[name].shape) != expected:
                got = tuple(self.latents[name].shape)
                raise ValueError(
                    f"{name}: expected latents of shape {expected}, got {got}; "
                    "was the layout built for another codec?"
                )
            if name in self.valid and tuple(self.valid[name].shape) != expected[:2]:
                got = tuple(self.valid[name].shape)
                raise ValueError(f"{name}: expected valid of shape {expected[:2]}, got {got}")
        mask = self.text_ids if self.text_mask is None else self.text_mask
        if mask.shape != self.text_ids.shape or mask.ndim != 2:
            raise ValueError(
                "expected text_ids and text_mask of one shape (B, L), got "
                f"{tuple(self.text_ids.shape)} and {tuple(mask.shape)}"
            )
        if self.text_ids.shape[1] > layout.text_length:
            raise ValueError(
                f"expected captions of at most {layout.text_length} ids, got "
                f"{self.text_ids.shape[1]}; raise Layout.text_length"
            )
