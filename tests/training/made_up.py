"""Made-up sources of every kind, each sample a function of its number, and small runs on them."""

import os

import numpy as np

SIZE, FRAMES, RATE, SAMPLES = 8, 5, 800, 800
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230)}


class MadeUp:
    """Coloured squares that move, and tones that are the higher the bluer."""

    def __init__(self, kind, length=40, rate=RATE, size=SIZE):
        self.kind, self.length, self.rate, self.size = kind, length, rate, size

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = np.random.default_rng(index)
        name = sorted(COLOURS)[index % 3]
        frames = generator.integers(0, 40, (FRAMES, self.size, self.size, 3)).astype(np.uint8)
        for number, frame in enumerate(frames):
            frame[2:5, number % 4 : number % 4 + 3] = COLOURS[name]
        time = np.arange(SAMPLES) / self.rate
        tone = np.sin(2 * np.pi * 50 * (1 + index % 3) * time + index)
        noise = 0.1 * generator.standard_normal(SAMPLES)
        sound = {"audio": (tone + noise)[None].astype(np.float32), "sample_rate": self.rate}
        return {
            "caption": name,
            **({"image": frames[0]} if self.kind == "image" else {}),
            **({"video": frames} if self.kind.startswith("video") else {}),
            **(sound if self.kind.endswith("audio") else {}),
        }


class Breaking(MadeUp):
    """Its sample 3 cannot be read by the second process."""

    def __getitem__(self, index):
        if index == 3 and os.environ.get("RANK") == "1":
            raise RuntimeError("sample 3 is broken")
        return super().__getitem__(index)


class NotANumber(MadeUp):
    """The second process hears nothing but NaN."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        if os.environ.get("RANK") == "1":
            sample["audio"] = np.full_like(sample["audio"], np.nan)
        return sample


KINDS = ("image", "video", "audio", "video_audio")
DATA = "{" + ",".join(f"{k}: {{_target_: made_up.MadeUp, kind: {k}}}" for k in KINDS) + "}"
TINY = (
    "experiment=toy_multimodal",
    "modes=multimodal_joint",
    f"data={DATA}",
    "model.width=24",
    "model.heads=2",
    "model.single=2",
    f"codec.image={{kind: patch_pca, image_size: [{SIZE},{SIZE}], patch: 4, channels: 6}}",
    f"codec.video={{kind: patch_video, image_size: [{SIZE},{SIZE}], frames: {FRAMES}, patch: 4, "
    "channels: 8}",
    f"codec.audio={{kind: mdct, sample_rate: {RATE}, samples: {SAMPLES}, hop: 80, channels: 8}}",
    *(f"modes.{kind}.batch_size=4" for kind in KINDS),
    "trainer.total_steps=6",
    "trainer.log_every=1",
    "trainer.validate_every=6",
    "trainer.validation_batches=1",
    "held_out=0.1",
    "device=cpu",
    "log.wandb=disabled",
)
