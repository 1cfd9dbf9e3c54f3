"""Reading the word on a sign: a small network, and the share of words it reads right.

The network looks at columns of the picture and names the letter in each; repeats are merged and
blanks dropped, as in connectionist temporal classification (Graves et al. 2006). It is trained on
random letters as much as on words: one that knew the words would correct misspelt signs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file, save
from torch import Tensor, nn

from selfflow_wm.data.toy import SPLITS, SignTruth, ToyConfig, ToyWorld
from selfflow_wm.data.toy.config import PALETTE, Draw
from selfflow_wm.data.toy.signs import paint_sign
from selfflow_wm.files import atomic_directory
from selfflow_wm.intervals import wilson

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
BLANK = 0
"""Class of no letter; letter n of the alphabet is class n + 1."""


class Recogniser(nn.Module):
    """Pictures of signs to letters by column; its inner features serve Fréchet distances.

    Args:
        height: of the pictures in pixels, a multiple of 16; any width that is even.
        width: channels of the widest layer.
    """

    def __init__(self, height: int = 64, width: int = 96) -> None:
        super().__init__()
        if height % 16:
            raise ValueError(f"expected a height divisible by 16, got {height}; resize the images")
        self.height, self.width = height, width
        sizes = [3, width // 4, width // 3, width // 2, 2 * width // 3]
        layers: list[nn.Module] = []
        for n, (inner, outer) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            kernel, stride = (5, 2) if n == 0 else (3, (2, 1))
            layers += [
                nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(outer),
                nn.ReLU(),
            ]
        self.look = nn.Sequential(*layers)
        self.column = nn.Sequential(
            nn.Conv1d(sizes[-1] * (height // 16), width, 1), nn.ReLU(),
            nn.Conv1d(width, width, 5, padding=2), nn.ReLU(),
        )  # fmt: skip
        self.letter = nn.Conv1d(width, len(ALPHABET) + 1, 1)

    def columns(self, images: UInt8[Tensor, "B H W 3"] | Float[Tensor, "B H W 3"]) -> Tensor:
        """Features of the columns, (B, width, W / 2). Pixels in [0, 255]."""
        if images.shape[1] != self.height or images.shape[-1] != 3:
            raise ValueError(
                f"expected images (B, {self.height}, W, 3), got {tuple(images.shape)}; train a "
                "recogniser for this size"
            )
        x = rearrange(images.float() / 127.5 - 1, "b h w c -> b c h w")
        return self.column(rearrange(self.look(x), "b c h w -> b (c h) w"))

    def forward(self, images: Tensor) -> Float[Tensor, "B k 27"]:
        """Log-probabilities of blank and letters by column."""
        return rearrange(self.letter(self.columns(images)), "b c k -> b k c").log_softmax(-1)

    @torch.no_grad()
    def read(self, images: UInt8[Tensor, "B H W 3"]) -> list[str]:
        """The words, lower case."""
        return [merge(row) for row in self(images).argmax(-1).tolist()]

    @torch.no_grad()
    def features(self, images: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B D"]:
        """Mean and maximum of the column features, D = 2 * width."""
        columns = self.columns(images)
        return torch.cat([columns.mean(-1), columns.amax(-1)], -1)


def merge(classes: Sequence[int]) -> str:
    """Repeats merged, then blanks dropped."""
    kept = [c for n, c in enumerate(classes) if c != BLANK and (n == 0 or classes[n - 1] != c)]
    return "".join(ALPHABET[c - 1] for c in kept)


@dataclass(frozen=True)
class WordAccuracy:
    """Share of signs whose word was read exactly (case aside), with Wilson's 95% interval."""

    right: int
    count: int
    low: float
    high: float
    letter_error: float
    """Edit distance over all words, per letter of the true words."""

    @property
    def accuracy(self) -> float:
        return self.right / self.count if self.count else float("nan")


def word_accuracy(read: Sequence[str], words: Sequence[str]) -> WordAccuracy:
    """Compare what was read with what the captions asked for; ValueError unless equally many."""
    if len(read) != len(words):
        raise ValueError(f"expected one word per reading, got {len(words)} and {len(read)}")
    pairs = [(a.lower(), b.lower()) for a, b in zip(read, words, strict=True)]
    right = sum(a == b for a, b in pairs)
    letters = sum(len(b) for _, b in pairs)
    wrong = sum(edit_distance(a, b) for a, b in pairs)
    return WordAccuracy(right, len(pairs), *wilson(right, len(pairs)), wrong / max(1, letters))


def edit_distance(first: str, second: str) -> int:
    """Fewest insertions, deletions and substitutions of letters (Levenshtein)."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        corner, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (a != b))
    return row[-1]


def training_batch(
    index: int, size: int, config: ToyConfig
) -> tuple[UInt8[Tensor, "B H W 3"], list[str], Int[Tensor, "B k"]]:
    """Rendered signs, half of words that training may show and half of random letters.

    Returns the images, the words, and the class of each column of two pixels.
    """
    images, words, targets = [], [], []
    for n in range(index * size, (index + 1) * size):
        # From the far end of the training seeds: the samples themselves stay apart.
        draw = Draw("sign", SPLITS["train"].stop - 1 - n)
        if n % 2:
            word = draw.choose(config.seen_words)
        else:
            word = "".join(draw.choose(ALPHABET) for _ in range(2 + draw.integer(6)))
        font, color = draw.choose(config.fonts), draw.choose(list(PALETTE))
        image, truth = paint_sign(draw, word, font, color, config)
        images.append(_disturb(draw, image))
        words.append(word)
        targets.append(_column_classes(word, truth["letters"], config.width))
    stack = torch.from_numpy(np.stack(images))
    return stack, words, torch.tensor(np.stack(targets))


def _column_classes(word: str, letters: Iterable[tuple[float, float]], width: int) -> np.ndarray:
    centers = 2 * np.arange(width // 2) + 1.0
    classes = np.full(width // 2, BLANK)
    for letter, (left, right) in zip(word, letters, strict=True):
        margin = min(1.0, 0.2 * (right - left))  # a blank between letters keeps doubles apart
        classes[(centers >= left + margin) & (centers < right - margin)] = (
            ALPHABET.index(letter) + 1
        )
    return classes


def _disturb(draw: Draw, image: np.ndarray) -> np.ndarray:
    """Contrast, noise, a shift of up to three pixels, and at times a blur."""
    import cv2

    values = image.astype(np.float32)
    if draw.uniform() < 0.3:
        values = cv2.GaussianBlur(values, (3, 3), draw.uniform(0.3, 0.7))
    values = 128 + (values - 128) * draw.uniform(0.75, 1.1)
    if draw.uniform() < 0.5:
        values += draw.uniform(0, 10) * 1.7 * draw.noise(values.size).reshape(values.shape)
    return values.round().clip(0, 255).astype(np.uint8)


def loss(log_p: Float[Tensor, "B k 27"], words: list[str], columns: Int[Tensor, "B k"]) -> Tensor:
    """Connectionist temporal classification, and the cross-entropy of the columns to start it."""
    target = torch.tensor([ALPHABET.index(letter) + 1 for word in words for letter in word])
    lengths = torch.tensor([len(word) for word in words])
    spans = torch.full((len(words),), log_p.shape[1])
    temporal = F.ctc_loss(
        rearrange(log_p, "b k c -> k b c"), target, spans, lengths, BLANK, zero_infinity=True
    )
    return 0.2 * temporal + F.nll_loss(log_p.flatten(0, 1), columns.flatten())


def train(
    config: ToyConfig, steps: int, batch: int = 32, rate: float = 3e-3, width: int = 96,
    report: Any = None,
) -> Recogniser:  # fmt: skip
    """Train on fresh renderings; the same weights for the same arguments on the same machine.

    report: called with (step, loss) after each step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Recogniser(config.height, width)
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, max(2, steps), pct_start=0.15)
    model.train()
    for step in range(steps):
        images, words, columns = training_batch(step, batch, config)
        value = loss(model(images), words, columns)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if report is not None:
            report(step + 1, float(value.detach()))
    return model.eval()


def ceiling(model: Recogniser, config: ToyConfig, count: int) -> dict[str, WordAccuracy]:
    """Accuracy on true signs of the test split: the most a generator can be credited with.

    all, and apart words that training shows (seen) and does not (new).
    """
    world = ToyWorld(config)
    signs = [_sign(world, world.seed("test", n)) for n in range(count)]
    images = torch.from_numpy(np.stack([image for image, _ in signs]))
    read = [word for part in images.split(128) for word in model.read(part)]
    rows = [
        (word, truth.word, truth.new_word) for word, (_, truth) in zip(read, signs, strict=True)
    ]
    groups = {"all": (True, False), "seen": (False,), "new": (True,)}
    return {
        name: word_accuracy(
            [row[0] for row in rows if row[2] in which], [row[1] for row in rows if row[2] in which]
        )
        for name, which in groups.items()
    }


def _sign(world: ToyWorld, seed: int) -> tuple[UInt8[np.ndarray, "H W 3"], SignTruth]:
    sample = world.sample("sign", seed)
    assert sample.image is not None and isinstance(sample.truth, SignTruth)
    return sample.image, sample.truth


def save_recogniser(
    path: Path, model: Recogniser, config: ToyConfig, scores: dict[str, WordAccuracy]
) -> str:
    """Write a directory with the weights and recogniser.json; returns the weights' SHA-256."""
    weights = save({name: value.contiguous() for name, value in model.state_dict().items()})
    digest = hashlib.sha256(weights).hexdigest()
    known = {
        "height": model.height, "width": model.width, "sha256": digest,
        "world": config.to_dict(),
        "ceiling": {
            name: asdict(s) | {"accuracy": s.accuracy} for name, s in scores.items() if s.count
        },
    }  # fmt: skip
    with atomic_directory(path) as directory:
        (directory / "recogniser.safetensors").write_bytes(weights)
        (directory / "recogniser.json").write_text(json.dumps(known, indent=2) + "\n")
    return digest


def load_recogniser(path: Path) -> tuple[Recogniser, dict[str, Any]]:
    """A stored recogniser and its recogniser.json. ValueError if absent or altered."""
    file = path / "recogniser.safetensors"
    try:
        known = json.loads((path / "recogniser.json").read_text())
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(
            f"{path}: expected a recogniser: {error}; train one with "
            "python -m selfflow_wm.metrics.train_recogniser"
        ) from None
    if digest != known["sha256"]:
        raise ValueError(
            f"{file}: expected SHA-256 {known['sha256']}, got {digest}; the file was altered, "
            "train it again"
        )
    model = Recogniser(known["height"], known["width"])
    model.load_state_dict(load_file(file), strict=True)
    return model.eval(), known
