"""One backbone as policy, world model and inverse dynamics model, with all it takes to act."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from robotics.embodiment.normalize import Normalizer
from robotics.embodiment.table import ACTION_DIM, Embodiment
from robotics.model.files import load_parts, robot_section
from robotics.model.modes import ACTION, HISTORY, IMAGE, KEYPOSE, MODES, PROPRIO, VIDEO, Mode, mode
from selfflow_wm.codec import ImageCodec, PairedCodec, ResidualCodec, encode_text, shortened
from selfflow_wm.defaults import IMAGINE_STEPS
from selfflow_wm.devices import to_device
from selfflow_wm.flow.sampler import sample
from selfflow_wm.layout import Batch, Layout
from selfflow_wm.model import Backbone
from selfflow_wm.sampling.captured import CapturedSampler
from selfflow_wm.training.model_files import SavedModel, save_model

Samples = Mapping[str, Any]
"""A collated batch of windows: image uint8 (B, H, W, 3), proprio float32 (B, 8), instruction
(B strings) and, where a mode needs them, video uint8 (B, F, H, W, 3), video_valid bool (B, F),
action float32 (B, 6, 8), action_valid bool (B, 6), keypose float32 (B, 8). A model with history
also takes history uint8 (B, P, H, W, 3), oldest first, and history_valid bool (B, P). All but
frames are in physical units. image_latents float (B, n, C), video_latents (B, F, n, C) and
history_latents (B, P, n, C), of the image codec (`robotics.data.cache.latents`), replace the
frames."""


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
        self.sampler: Callable[..., dict[str, Tensor]] = sample

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
        model = copy.copy(self)
        model.backbone, model.config, model.sampler = backbone, dict(self.config), sample
        return model

    # ---------------------------------------------------------------- samples to latents

    @torch.no_grad()
    def encode(self, samples: Samples, mode: Mode, names: Sequence[str] | None = None) -> Batch:
        """Clean latents of the modalities present in `mode`, or of `names` only."""
        wanted = set(self._in_layout(mode.present if names is None else names))
        latents: dict[str, Tensor] = {}
        valid: dict[str, Tensor] = {}
        latents[IMAGE] = image = self._frame_latents(samples, IMAGE)
        if HISTORY in wanted:
            latents[HISTORY] = self._history_latents(samples)
            shown = self._tensor(samples["history_valid"])
            _, height, width = self.layout[HISTORY].grid
            valid[HISTORY] = repeat(shown, "b f -> b (f n)", n=height * width)
        for name in wanted & {PROPRIO, KEYPOSE}:
            pose = self.proprio.normalise(np.asarray(samples[name], np.float32))
            latents[name] = self._tensor(pose)[:, None]
        if VIDEO in wanted:
            latents[VIDEO] = self._video_latents(samples, image)
            valid[VIDEO] = self.video_codec.token_valid(self._tensor(samples["video_valid"]))
        if ACTION in wanted:
            action = self.action.normalise(np.asarray(samples["action"], np.float32))
            latents[ACTION] = self._tensor(action[..., : self.layout[ACTION].channels])
            valid[ACTION] = self._tensor(samples["action_valid"])
        for name in latents.keys() - valid.keys():
            shape = (len(image), self.layout[name].num_tokens)
            valid[name] = torch.ones(shape, dtype=torch.bool, device=self.device)
        # Training says how many instructions are cut; one typed at the robot may be long, too.
        length = self.layout.text_length
        texts = [shortened(text, length) for text in samples["instruction"]]
        ids, mask = encode_text(texts, length)
        order = [name for name in self.layout.names if name in latents]
        return Batch(
            latents={name: latents[name] for name in order},
            valid={name: valid[name] for name in order},
            text_ids=to_device(ids, self.device),
            text_mask=to_device(mask, self.device),
            given=frozenset(self._in_layout(mode.given)),
        )

    def _in_layout(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of a mode's modalities that this model has."""
        return tuple(name for name in names if name in self.layout)

    def _tensor(self, array: Any) -> Tensor:
        return to_device(torch.as_tensor(array), self.device)

    def _frame_latents(self, samples: Samples, name: str) -> Tensor:
        """Of image or history, by the image codec or as they are given."""
        if f"{name}_latents" in samples:
            return self._tensor(np.asarray(samples[f"{name}_latents"], np.float32))
        return self.image_codec.encode(self._tensor(samples[name]))

    def _video_latents(self, samples: Samples, image: Tensor) -> Tensor:
        if "video_latents" in samples:
            if not isinstance(self.video_codec, ResidualCodec):
                raise ValueError(
                    "expected frames for a codec of clips, got latents of single frames; train "
                    "with latents=null"
                )
            latents = self._tensor(np.asarray(samples["video_latents"], np.float32))
            return self.video_codec.relative(latents, image)
        return self.video_codec.encode(self._tensor(samples["video"]), reference_latents=image)

    def _history_latents(self, samples: Samples) -> Tensor:
        expected = (len(self.history_offsets),)
        got = tuple(np.shape(samples.get("history_valid", ()))[1:])
        if got != expected:
            raise ValueError(
                f"expected history and history_valid of {expected[0]} past frames, got {got or 0}; "
                f"make the windows with past frames {self.history_offsets} control steps back"
            )
        return rearrange(self._frame_latents(samples, HISTORY), "b p n c -> b (p n) c")

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
        outputs = self.sampler(
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
        """float32 (B, 6, 8); a model without the last value never terminates."""
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
