"""One backbone as policy, world model and inverse dynamics model, with all it takes to act."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from robotics.model.files import codec_rows, load_parts, robot_section
from robotics.model.modes import (
    ACTION,
    HISTORY,
    IMAGE,
    KEYPOSE,
    MODES,
    Mode,
    by_row,
    camera_of,
    kind_of,
    mode,
    robot_of,
    row,
    rows_of,
)
from robotics.model.robot_model import RobotModel as RobotModel
from selfflow_wm.codec import ResidualCodec, encode_text, shortened
from selfflow_wm.defaults import IMAGINE_STEPS
from selfflow_wm.devices import to_device
from selfflow_wm.flow.sampler import sample
from selfflow_wm.layout import Batch, Layout
from selfflow_wm.model import Backbone
from selfflow_wm.sampling.captured import CapturedSampler
from selfflow_wm.training.model_files import SavedModel, save_model

Samples = Mapping[str, Any]
"""A collated batch of windows of one robot, B samples:

robot                   its name; needed only in a model of several
image/CAMERA            uint8 (B, H, W, 3) of the size its codec takes
camera_valid/CAMERA     bool (B,): False where the camera is absent; missing: it is there
history/CAMERA          uint8 (B, P, H, W, 3), oldest first, with history_valid bool (B, P)
video/CAMERA            uint8 (B, F, H, W, 3), with video_valid bool (B, F)
state, keypose          float32 (B, S), model values in physical units
action                  float32 (B, horizon, A), likewise, with action_valid bool (B, horizon)
instruction             B strings, "" for none; missing: none

A mode needs only those that it is given or, in training, generates. image_latents/CAMERA (B, n, C),
video_latents/CAMERA (B, F, n, C) and history_latents/CAMERA (B, P, n, C), of the image codec
(`robotics.data.cache.latents`), replace the frames."""


class WorldModel:
    """Samples in physical units to latents, the backbone's answer back to physical units.

    backbone: its `.layout` is the model's. robots: by name, see `RobotModel`; their rows of the
    layout are named by `robotics.model.modes.row`. backbone_config: its keyword arguments, for
    saving. modes: those it was trained in; the others refuse. condition_level: noise level at which
    the current frames are shown when sampling.
    """

    def __init__(
        self,
        backbone: Backbone,
        robots: Mapping[str, RobotModel],
        *,
        backbone_config: Mapping[str, Any],
        modes: Sequence[str] = tuple(MODES),
        condition_level: float = 0.0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.backbone = backbone
        self.modes = tuple(mode(name).name for name in modes)
        self.robots = {
            name: robot if robot.modes else robot.trained_in(self.modes)
            for name, robot in robots.items()
        }
        self.backbone_config = dict(backbone_config)
        self.condition_level = condition_level
        self.config = dict(config or {})
        self.sampler: Callable[..., dict[str, Tensor]] = sample

    def robot(self, name: str | None = None) -> RobotModel:
        """The robot called `name`, which may be left out where there is one; ValueError with the
        known names otherwise."""
        if name is None and len(self.robots) == 1:
            return next(iter(self.robots.values()))
        if name not in self.robots:
            known, first = ", ".join(self.robots), next(iter(self.robots))
            got = "none" if name is None else repr(name)
            raise ValueError(
                f"expected one of the model's robots {known}, got {got}; name one: {first}"
            )
        return self.robots[name]

    def capture(self, *, compile: bool = False) -> None:
        """From now on `generate` from CUDA graphs, one for each mode, batch size and step count.
        compile: the blocks of the backbone, too. ValueError on another device than a GPU."""
        if self.device.type != "cuda":
            raise ValueError(
                f"capture: expected a model on a CUDA GPU, got one on {self.device}; load it with "
                'device="cuda"'
            )
        self.sampler = CapturedSampler(compile=compile)

    @property
    def layout(self) -> Layout:
        return self.backbone.layout

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def with_backbone(self, backbone: Backbone) -> WorldModel:
        """The same model with other weights (the EMA's, say); nothing is copied."""
        model = copy.copy(self)
        model.backbone, model.config, model.sampler = backbone, dict(self.config), sample
        return model

    def rows(self, robot: RobotModel, kinds: Sequence[str]) -> tuple[str, ...]:
        """The rows of a robot that are of `kinds`."""
        mine = robot.name if len(self.robots) > 1 else None
        return rows_of(kinds, (name for name in self.layout.names if robot_of(name) == mine))

    # ---------------------------------------------------------------- samples to latents

    @torch.no_grad()
    def encode(self, samples: Samples, mode: Mode, names: Sequence[str] | None = None) -> Batch:
        """Clean latents of the rows present in `mode`, or of the kinds `names` only."""
        robot = self.robot(samples.get("robot"))
        kinds = {IMAGE, *(mode.present if names is None else names)}
        wanted = self.layout.present(self.rows(robot, tuple(kinds)))
        latents: dict[str, Tensor] = {}
        valid: dict[str, Tensor] = {}
        for name in wanted:
            latents[name], valid[name] = self._encode_row(robot, samples, name, latents)
        size = len(next(iter(latents.values())))
        # Training says how many instructions are cut; one typed at the robot may be long, too.
        length = self.layout.text_length
        given = samples.get("instruction", [""] * size)
        ids, mask = encode_text([shortened(text, length) for text in given], length)
        return Batch(
            latents=latents,
            valid=valid,
            text_ids=to_device(ids, self.device),
            text_mask=to_device(mask, self.device),
            given=frozenset(self.rows(robot, mode.given)),
        )

    def _encode_row(
        self, robot: RobotModel, samples: Samples, name: str, before: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Latents (B, n, C) and validity (B, n) of one row. before: of the rows before it."""
        kind, camera = kind_of(name), camera_of(name)
        if camera is not None:
            return self._encode_frames(robot, samples, name, before)
        group = "action" if kind == ACTION else "state"
        normalizer = robot.normalizers[group]
        values = np.asarray(samples[kind], np.float32)[..., : normalizer.dim]
        latents = self._tensor(normalizer.normalise(values))
        if kind == ACTION:
            return latents, self._tensor(samples["action_valid"])
        return latents[:, None], self._everywhere(latents, name)

    def _encode_frames(
        self, robot: RobotModel, samples: Samples, name: str, before: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        kind, camera = kind_of(name), camera_of(name) or ""
        if kind == IMAGE:
            latents = self._frame_latents(robot, samples, kind, camera)
            valid = self._everywhere(latents, name)
        elif kind == HISTORY:
            latents, valid = self._history_latents(robot, samples, name)
        else:
            image = before[self._image_row(name)]
            latents = self._video_latents(robot, samples, camera, image)
            valid = robot.codecs[camera].token_valid(self._tensor(samples["video_valid"]))
        there = samples.get(f"camera_valid/{camera}")
        if there is not None:
            valid = valid & self._tensor(there)[:, None]
        return latents, valid

    def _everywhere(self, latents: Tensor, name: str) -> Tensor:
        shape = (len(latents), self.layout[name].num_tokens)
        return torch.ones(shape, dtype=torch.bool, device=self.device)

    @staticmethod
    def _image_row(name: str) -> str:
        """The current frame's row of the same camera."""
        return row(IMAGE, camera_of(name), robot_of(name))

    def _tensor(self, array: Any) -> Tensor:
        return to_device(torch.as_tensor(array), self.device)

    def _frame_latents(self, robot: RobotModel, samples: Samples, kind: str, camera: str) -> Tensor:
        """Of image or history, by the image codec or as they are given."""
        if (found := samples.get(f"{kind}_latents/{camera}")) is not None:
            return self._tensor(np.asarray(found, np.float32))
        return robot.image_codec(camera).encode(self._tensor(samples[f"{kind}/{camera}"]))

    def _video_latents(
        self, robot: RobotModel, samples: Samples, camera: str, image: Tensor
    ) -> Tensor:
        codec = robot.codecs[camera]
        if (found := samples.get(f"video_latents/{camera}")) is not None:
            if not isinstance(codec, ResidualCodec):
                raise ValueError(
                    "expected frames for a codec of clips, got latents of single frames; train "
                    "with latents=null"
                )
            return codec.relative(self._tensor(np.asarray(found, np.float32)), image)
        return codec.encode(self._tensor(samples[f"video/{camera}"]), reference_latents=image)

    def _history_latents(
        self, robot: RobotModel, samples: Samples, name: str
    ) -> tuple[Tensor, Tensor]:
        offsets = robot.history_offsets
        got = tuple(np.shape(samples.get("history_valid", ()))[1:])
        if got != (len(offsets),):
            raise ValueError(
                f"expected history and history_valid of {len(offsets)} past frames, got "
                f"{got or 0}; make the windows with past frames {offsets} control steps back"
            )
        count, height, width = self.layout[name].grid  # of a camera that looks back less far
        latents = self._frame_latents(robot, samples, HISTORY, camera_of(name) or "")[:, -count:]
        shown = self._tensor(samples["history_valid"])[:, -count:]
        valid = repeat(shown, "b f -> b (f n)", n=height * width)
        return rearrange(latents, "b p n c -> b (p n) c"), valid

    @torch.no_grad()
    def pixels(self, batch: Batch, name: str) -> Tensor | None:
        """The frames uint8 (B, T, H, W, 3) that a clean batch's latents stand for, as the codec
        restores them; None for what is not visual."""
        camera = camera_of(name)
        if camera is None or kind_of(name) == HISTORY:
            return None
        robot = self.robot(robot_of(name))
        image = batch.latents[self._image_row(name)]
        if kind_of(name) == IMAGE:
            return robot.image_codec(camera).decode(image)[:, None]
        return robot.codecs[camera].decode(batch.latents[name], reference_latents=image)

    # ---------------------------------------------------------------- verbs

    @torch.no_grad()
    def generate(
        self,
        samples: Samples,
        mode_name: str,
        *,
        steps: int = IMAGINE_STEPS,
        shift: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        noise: Mapping[str, Tensor] | None = None,
    ) -> dict[str, np.ndarray]:
        """What `mode_name` generates: "action" (B, horizon, A) and "keypose" (B, S), float32 model
        values in physical units, "video/CAMERA" uint8 (B, F, H, W, 3). steps: Euler steps.
        generator: one, or one per sample."""
        table, robot = mode(mode_name), self.robot(samples.get("robot"))
        if table.name not in robot.modes:
            raise ValueError(
                f"expected a mode that robot {robot.name} was trained in {robot.modes}, got "
                f"{table.name!r}; use one of them, or train with that mode"
            )
        batch = self.encode(samples, table, names=table.given)
        level = by_row({IMAGE: self.condition_level}, tuple(batch.latents))
        outputs = self.sampler(
            self.backbone,
            self.layout,
            batch.latents,
            self.rows(robot, table.generated),
            batch.text_ids,
            batch.text_mask,
            steps=steps,
            shift=shift,
            generator=generator,
            noise=noise,
            condition_level=level if self.condition_level else 0.0,
            valid=batch.valid,
        )
        return {
            name.rpartition(":")[2]: self._physical(robot, batch, name, latents)
            for name, latents in outputs.items()
        }

    def _physical(self, robot: RobotModel, batch: Batch, name: str, latents: Tensor) -> np.ndarray:
        """What the latents of a generated row stand for."""
        kind, camera = kind_of(name), camera_of(name)
        if kind == ACTION:
            return robot.normalizers["action"].denormalise(latents.float().cpu().numpy())
        if kind == KEYPOSE:
            return robot.normalizers["state"].denormalise(latents[:, 0].float().cpu().numpy())
        frames = robot.codecs[camera or ""].decode(
            latents.float(), reference_latents=batch.latents[self._image_row(name)]
        )
        return frames.cpu().numpy()

    def act(self, samples: Samples, **sampling: Any) -> np.ndarray:
        """Action chunks (B, horizon, A), model values in physical units, from frames, state,
        instruction."""
        return self.generate(samples, "policy", **sampling)[ACTION]

    def imagine(self, samples: Samples, **sampling: Any) -> dict[str, np.ndarray]:
        """Future frames uint8 (B, F, H, W, 3) of each camera under the given actions (forward
        dynamics)."""
        found = self.generate(samples, "forward", **sampling)
        return {camera_of(name) or "": frames for name, frames in found.items()}

    def inverse(self, samples: Samples, **sampling: Any) -> np.ndarray:
        """Actions (B, horizon, A) that lead through the given future frames (inverse dynamics)."""
        return self.generate(samples, "inverse", **sampling)[ACTION]

    # ---------------------------------------------------------------- files

    def save(self, path: Path | str, *, dtype: torch.dtype = torch.float32) -> None:
        """Write the checkpoint directory `path` in one piece, replacing what was there. dtype:
        float32 or float16 weights."""
        saved = SavedModel(
            self.backbone,
            self.backbone_config,
            training=self.config,
            codecs=codec_rows(self.robots),
            robot=robot_section(self.robots, self.modes, self.condition_level),
        )
        save_model(path, saved, dtype)

    @classmethod
    def load(
        cls, path: Path | str, *, embodiment: str | None = None, device: str = "cpu"
    ) -> WorldModel:
        """The model at `path`, in evaluation mode; ValueError when anything is missing, differs or
        belongs to other embodiments than the one asked for.

        path: a checkpoint's directory, a run's (its newest), or a name in `checkpoints/`.
        """
        return cls(**load_parts(path, embodiment, device))
