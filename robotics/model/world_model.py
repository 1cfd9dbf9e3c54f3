"""One backbone as policy, world model and inverse dynamics model, with all it takes to act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from robotics.embodiment.normalize import Normalizer
from robotics.embodiment.table import ACTION_DIM, PROPRIO_DIM, TERMINATE, Embodiment
from robotics.model.files import load_parts, robot_section
from robotics.model.modes import ACTION, HISTORY, IMAGE, KEYPOSE, MODES, PROPRIO, VIDEO, Mode, mode
from selfflow_wm.codec import ImageCodec, PairedCodec, ResidualCodec, encode_text
from selfflow_wm.defaults import IMAGINE_STEPS
from selfflow_wm.flow.sampler import sample
from selfflow_wm.layout import Batch, Layout, Modality
from selfflow_wm.model import Backbone
from selfflow_wm.training.model_files import SavedModel, save_model

Samples = Mapping[str, Any]
"""A collated batch of windows: image uint8 (B, H, W, 3), proprio float32 (B, 8), instruction
(B strings) and, where a mode needs them, video uint8 (B, F, H, W, 3), video_valid bool (B, F),
action float32 (B, 6, 8), action_valid bool (B, 6), keypose float32 (B, 8). A model with history
also takes history uint8 (B, P, H, W, 3), oldest first, and history_valid bool (B, P). All but
frames are in physical units. image_latents float (B, n, C), video_latents (B, F, n, C) and
history_latents (B, P, n, C), of the image codec (`robotics.data.cache.latents`), replace the
frames."""


def robot_layout(
    image_codec: Any,
    video_codec: Any,
    *,
    horizon: int,
    video_offsets: Sequence[int],
    text_length: int = 64,
    proprio: bool = True,
    keypose: bool = False,
    terminate: bool = True,
    history_offsets: Sequence[int] = (),
    mask_ratio: Mapping[str, float] | None = None,
    weight: Mapping[str, float] | None = None,
    rows: Mapping[str, Mapping[str, Any]] | None = None,
) -> Layout:
    """The table of modalities: current frame, proprioception, future frames, action chunk.

    image_codec, video_codec: of which only grid, channels and, of video, frames and
    frames_per_latent are read. A latent frame of video stands at the time of its last frame.
    horizon: actions in a chunk, one a control step. video_offsets: future frames, in control
    steps after the current one, equally spaced. history_offsets: past frames, in control steps
    before the current one, equally spaced, oldest first; their tokens have negative times and there
    are none without them. mask_ratio, weight: per generated modality.
    keypose: with the next keyframe's proprioception (`robotics.data.episodes.keypose_steps`), which
    a policy generates beside its actions: where the hand is going says where the object is, without
    the noise of single actions. proprio: False leaves proprioception out. terminate: False leaves
    the last value of an action out, and the model never ends a sub-task by itself.
    rows: grid and channels of image and video where they are stated; the codecs must agree.
    """
    for name, codec in ((IMAGE, image_codec), (VIDEO, video_codec)):
        _check_row(name, (rows or {}).get(name) or {}, codec)
    offsets = [int(offset) for offset in video_offsets]
    past = [-int(offset) for offset in history_offsets]
    strides = {b - a for a, b in zip(offsets, offsets[1:], strict=False)} or {1}
    if len(strides) > 1 or len(offsets) != video_codec.frames:
        raise ValueError(
            f"expected {video_codec.frames} equally spaced video offsets, got {offsets}"
        )
    pauses = {b - a for a, b in zip(past, [*past[1:], 0], strict=False)}
    if len(pauses) > 1 or min(pauses, default=1) < 1:
        raise ValueError(
            "expected history offsets that go down to 0 in equal steps such as (6, 3), got "
            f"{tuple(history_offsets)}"
        )
    ratio, weight = mask_ratio or {}, weight or {}

    def row(name: str, grid: tuple[int, int, int], channels: int, **time: float) -> Modality:
        return Modality(name, grid, channels, ratio.get(name, 0.25), weight.get(name, 1.0), **time)

    return Layout(
        (
            row(IMAGE, image_codec.grid, image_codec.channels),
            *(
                row(
                    HISTORY,
                    (len(past), *image_codec.grid[1:]),
                    image_codec.channels,
                    time_origin=past[0],
                    time_stride=pause,
                )
                for pause in pauses
            ),
            *([row(PROPRIO, (1, 1, 1), PROPRIO_DIM)] if proprio else []),
            *([row(KEYPOSE, (1, 1, 1), PROPRIO_DIM, time_origin=horizon)] if keypose else []),
            row(
                VIDEO,
                video_codec.grid,
                video_codec.channels,
                time_origin=offsets[0],
                time_stride=strides.pop() * video_codec.frames_per_latent,
            ),
            # The value that says so stands last.
            row(ACTION, (horizon, 1, 1), ACTION_DIM if terminate else TERMINATE),
        ),
        text_length=text_length,
    )


def _check_row(name: str, stated: Mapping[str, Any], codec: Any) -> None:
    """ValueError when a row of the configuration is not that of the codec."""
    found = {"grid": tuple(codec.grid), "channels": codec.channels}
    asked = {key: value for key, value in stated.items() if value is not None}
    if "grid" in asked:
        asked["grid"] = tuple(asked["grid"])
    if any(found.get(key) != value for key, value in asked.items()):
        raise ValueError(
            f"layout.rows.{name}: expected tokens of the codec, {found}, got {asked}; change the "
            "row or the codec's sizes"
        )


class WorldModel:
    """Samples in physical units to latents, the backbone's answer back to physical units.

    backbone: its `.layout` is the model's. backbone_config: its keyword arguments, for saving.
    video_codec: of the future frames, relative to the current frame or on its own, with the codec
    of the current frame as `base`. action, proprio: normalisers.
    modes: those it was trained in; the others refuse. condition_level: noise level at which the
    current frame is shown when sampling.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        video_codec: ResidualCodec | PairedCodec,
        action: Normalizer,
        proprio: Normalizer,
        embodiment: Embodiment,
        backbone_config: Mapping[str, Any],
        video_offsets: Sequence[int],
        modes: Sequence[str] = tuple(MODES),
        condition_level: float = 0.0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.backbone, self.video_codec = backbone, video_codec
        self.image_codec = cast(ImageCodec, video_codec.base)
        self.action, self.proprio = action, proprio
        self.embodiment = embodiment
        self.backbone_config = dict(backbone_config)
        self.video_offsets = tuple(int(offset) for offset in video_offsets)
        self.modes = tuple(mode(name).name for name in modes)
        self.condition_level = condition_level
        self.config = dict(config or {})

    @property
    def layout(self) -> Layout:
        return self.backbone.layout

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the frames that the codecs take."""
        return self.image_codec.image_size

    @property
    def horizon(self) -> int:
        """Actions in a chunk."""
        return self.layout[ACTION].num_tokens

    @property
    def history_offsets(self) -> tuple[int, ...]:
        """Past frames it is shown, in control steps before the current one, oldest first."""
        if HISTORY not in self.layout:
            return ()
        row = self.layout[HISTORY]
        return tuple(-int(row.time_origin + row.time_stride * i) for i in range(row.grid[0]))

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def with_backbone(self, backbone: Backbone) -> WorldModel:
        """The same model with other weights (the EMA's, say); nothing is copied."""
        return WorldModel(
            backbone,
            video_codec=self.video_codec,
            action=self.action,
            proprio=self.proprio,
            embodiment=self.embodiment,
            backbone_config=self.backbone_config,
            video_offsets=self.video_offsets,
            modes=self.modes,
            condition_level=self.condition_level,
            config=self.config,
        )

    # ---------------------------------------------------------------- samples to latents

    @torch.no_grad()
    def encode(self, samples: Samples, mode: Mode, names: Sequence[str] | None = None) -> Batch:
        """Clean latents of the modalities present in `mode`, or of `names` only."""
        wanted = set(self._in_layout(mode.present if names is None else names))
        latents: dict[str, Tensor] = {}
        valid: dict[str, Tensor] = {}
        image = self._image_latents(samples)
        count = len(image)
        latents[IMAGE] = image
        if HISTORY in wanted:
            latents[HISTORY] = self._history_latents(samples)
            valid[HISTORY] = self._frames_valid(HISTORY, samples["history_valid"])
        if PROPRIO in wanted:
            proprio = self.proprio.normalise(np.asarray(samples["proprio"], np.float32))
            latents[PROPRIO] = self._tensor(proprio)[:, None]
        if KEYPOSE in wanted:
            keypose = self.proprio.normalise(np.asarray(samples["keypose"], np.float32))
            latents[KEYPOSE] = self._tensor(keypose)[:, None]
        if VIDEO in wanted:
            latents[VIDEO] = self._video_latents(samples, image)
            shown = torch.as_tensor(samples["video_valid"]).to(self.device)
            valid[VIDEO] = self.video_codec.token_valid(shown)
        if ACTION in wanted:
            action = self.action.normalise(np.asarray(samples["action"], np.float32))
            latents[ACTION] = self._tensor(action[..., : self.layout[ACTION].channels])
            valid[ACTION] = torch.as_tensor(samples["action_valid"]).to(self.device)
        for name in latents.keys() - valid.keys():
            shape = (count, self.layout[name].num_tokens)
            valid[name] = torch.ones(shape, dtype=torch.bool, device=self.device)
        ids, mask = encode_text(list(samples["instruction"]), self.layout.text_length)
        order = [name for name in self.layout.names if name in latents]
        return Batch(
            latents={name: latents[name] for name in order},
            valid={name: valid[name] for name in order},
            text_ids=ids.to(self.device),
            text_mask=mask.to(self.device),
            given=frozenset(self._in_layout(mode.given)),
        )

    def _in_layout(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of a mode's modalities that this model has."""
        return tuple(name for name in names if name in self.layout)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(array, np.float32)).to(self.device)

    def _image_latents(self, samples: Samples) -> Tensor:
        if "image_latents" in samples:
            return self._tensor(samples["image_latents"])
        return self.image_codec.encode(torch.as_tensor(samples["image"]).to(self.device))

    def _video_latents(self, samples: Samples, image: Tensor) -> Tensor:
        if "video_latents" in samples:
            if not isinstance(self.video_codec, ResidualCodec):
                raise ValueError(
                    "expected frames for a codec of clips, got latents of single frames; train "
                    "with latents=null"
                )
            return self.video_codec.relative(self._tensor(samples["video_latents"]), image)
        frames = torch.as_tensor(samples["video"]).to(self.device)
        return self.video_codec.encode(frames, reference_latents=image)

    def _history_latents(self, samples: Samples) -> Tensor:
        expected = (len(self.history_offsets),)
        got = tuple(np.shape(samples.get("history_valid", ()))[1:])
        if got != expected:
            raise ValueError(
                f"expected history and history_valid of {expected[0]} past frames, got {got or 0}; "
                f"make the windows with past frames {self.history_offsets} control steps back"
            )
        if "history_latents" in samples:
            latents = self._tensor(samples["history_latents"])
        else:
            latents = self.image_codec.encode(torch.as_tensor(samples["history"]).to(self.device))
        return rearrange(latents, "b p n c -> b (p n) c")

    def _frames_valid(self, name: str, valid: Any) -> Tensor:
        _, height, width = self.layout[name].grid
        frames = torch.as_tensor(valid).to(self.device)
        return repeat(frames, "b f -> b (f n)", n=height * width)

    @torch.no_grad()
    def pixels(self, batch: Batch, name: str) -> Tensor | None:
        """The frames uint8 (B, T, H, W, 3) that a clean batch's latents stand for, as the codec
        restores them; None for what is not visual."""
        image = batch.latents[IMAGE]
        if name == IMAGE:
            return self.image_codec.decode(image)[:, None]
        if name == VIDEO:
            return self.video_codec.decode(batch.latents[VIDEO], reference_latents=image)
        return None

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
        """What `mode_name` generates: "action" (B, 6, 8) and "keypose" (B, 8), float32 in physical
        units, "video" uint8 (B, F, H, W, 3). steps: Euler steps. generator: one, or one per
        sample."""
        row = mode(mode_name)
        if row.name not in self.modes:
            raise ValueError(
                f"expected a mode this model was trained in {self.modes}, got {row.name!r}; "
                "use one of them, or train with that mode"
            )
        batch = self.encode(samples, row, names=row.given)
        outputs = sample(
            self.backbone,
            self.layout,
            batch.latents,
            self._in_layout(row.generated),
            batch.text_ids,
            batch.text_mask,
            steps=steps,
            shift=shift,
            generator=generator,
            noise=noise,
            condition_level={IMAGE: self.condition_level} if self.condition_level else 0.0,
            valid=batch.valid,
        )
        results: dict[str, np.ndarray] = {}
        if ACTION in outputs:
            results[ACTION] = self._physical_actions(outputs[ACTION])
        if KEYPOSE in outputs:
            keypose = outputs[KEYPOSE][:, 0].float().cpu().numpy()
            results[KEYPOSE] = self.proprio.denormalise(keypose)
        if VIDEO in outputs:
            frames = self.video_codec.decode(
                outputs[VIDEO].float(), reference_latents=batch.latents[IMAGE]
            )
            results[VIDEO] = frames.cpu().numpy()
        return results

    def _physical_actions(self, latents: Tensor) -> np.ndarray:
        """float32 (B, 6, 8); a model without the last value goes on."""
        rows = latents.float().cpu().numpy()
        missing = ACTION_DIM - rows.shape[-1]
        return self.action.denormalise(
            np.pad(rows, [(0, 0), (0, 0), (0, missing)], constant_values=-1.0)
        )

    def act(self, samples: Samples, **sampling: Any) -> np.ndarray:
        """Action chunks (B, 6, 8) in physical units, from frame, proprioception, instruction."""
        return self.generate(samples, "policy", **sampling)[ACTION]

    def imagine(self, samples: Samples, **sampling: Any) -> np.ndarray:
        """Future frames uint8 (B, F, H, W, 3) under the given actions (forward dynamics)."""
        return self.generate(samples, "forward", **sampling)[VIDEO]

    def inverse(self, samples: Samples, **sampling: Any) -> np.ndarray:
        """Actions (B, 6, 8) that lead through the given future frames (inverse dynamics)."""
        return self.generate(samples, "inverse", **sampling)[ACTION]

    # ---------------------------------------------------------------- files

    def save(self, path: Path | str, *, dtype: torch.dtype = torch.float32) -> None:
        """Write the checkpoint directory `path` in one piece, replacing what was there. dtype:
        float32 or float16 weights."""
        robot = robot_section(
            self.embodiment.name,
            {"action": self.action, "proprio": self.proprio},
            video_offsets=list(self.video_offsets),
            modes=list(self.modes),
            condition_level=self.condition_level,
        )
        saved = SavedModel(
            self.backbone,
            self.backbone_config,
            training=self.config,
            codecs={"video": self.video_codec},
            robot=robot,
        )
        save_model(path, saved, dtype)

    @classmethod
    def load(
        cls, path: Path | str, *, embodiment: str | None = None, device: str = "cpu"
    ) -> WorldModel:
        """The model at `path`, in evaluation mode; ValueError when anything is missing, differs or
        belongs to another embodiment than the one asked for.

        path: a checkpoint's directory, a run's (its newest), or a name in `checkpoints/`.
        """
        return cls(**load_parts(path, embodiment, device))
