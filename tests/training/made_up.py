"""Made-up sources of every kind, each sample a function of its number."""

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
