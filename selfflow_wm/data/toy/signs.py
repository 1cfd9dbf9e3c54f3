"""Signs: a word on a board on a post."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from selfflow_wm.data.toy.canvas import backdrop
from selfflow_wm.data.toy.config import CASES, FONTS, PALETTE, Draw, ToyConfig, is_held_out
from selfflow_wm.data.toy.truth import Sample, SignTruth


@lru_cache(maxsize=512)
def font_of(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of `FONTS`, `size` pixels high.

    The basic layout engine: whether a better one is installed must not change a picture.
    """
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FONTS[name]
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=8192)
def fitting_size(text: str, font: str, width: int, height: int) -> int:
    """The largest font size at which `text` fits a box of (width, height) pixels."""
    probe = 64
    left, top, right, bottom = font_of(font, probe).getbbox(text)
    size = int(probe * min(width / (right - left), height / (bottom - top)))
    while size > 5:
        left, top, right, bottom = font_of(font, size).getbbox(text)
        if right - left <= width and bottom - top <= height:
            break
        size -= 1
    return size


def sign(seed: int, config: ToyConfig) -> Sample:
    """An image of a sign, its word seen in training or, half the time in a test, held out."""
    draw = Draw("sign", seed)
    held_out = config.held_out_words
    new_word = bool(draw.split == "test" and held_out and draw.uniform() < 0.5)
    word = draw.choose(held_out if new_word else config.seen_words)
    first, second = draw.pair(len(config.fonts), len(PALETTE))
    image, truth = paint_sign(draw, word, config.fonts[first], list(PALETTE)[second], config)
    truth = SignTruth(**truth, new_word=new_word, new_pair=new_pair(draw, first, second))
    article = "an" if truth.color[0] in "aeiou" else "a"
    caption = f'{article} {truth.color} sign that says "{truth.text}" in {truth.font}'
    return Sample("sign", seed, caption, truth, image=image)


def new_pair(draw: Draw, first: int, second: int) -> bool:
    """Whether a pair of attributes is one that training never shows."""
    return draw.split == "test" and is_held_out(first, second)


def paint_sign(
    draw: Draw, word: str, font: str, color: str, config: ToyConfig
) -> tuple[np.ndarray, dict]:
    """A sign with any word: the image (H, W, 3), uint8, and the fields of its truth."""
    height, width = config.height, config.width
    text = CASES[draw.choose(config.cases)](word)
    background, _ = backdrop(draw, height, width)
    # Twice the size in place of the canvas' four: letters are smoothed by the font renderer.
    s = 2
    picture = Image.fromarray(background).resize((width * s, height * s))
    board_width = draw.uniform(0.80, 0.94) * width
    board_height = min(draw.uniform(0.36, 0.5) * height, 0.9 * board_width)
    left = draw.uniform(0.02 * width, 0.98 * width - board_width)
    top = draw.uniform(0.08, 0.34) * height
    box = (left, top, left + board_width, top + board_height)
    paint = ImageDraw.Draw(picture)
    ground = round(draw.uniform(0.86, 0.94) * height * s)
    green = (150, 172, 132) if draw.uniform() < 0.5 else (186, 176, 158)
    paint.rectangle((0, ground, width * s, height * s), fill=green)
    _post(paint, box, ground, s, draw)
    light_board = draw.uniform() < 0.4
    fill, ink = ((250, 248, 242), PALETTE[color]) if light_board else (PALETTE[color], (255,) * 3)
    ink = tuple(int(0.8 * value) for value in ink) if light_board else ink
    board = Image.new("RGBA", picture.size, (*fill, 0))
    on_board = ImageDraw.Draw(board)
    frame = [value * s for value in box]
    radius, stroke = draw.choose((1, 3, 6)) * s * min(height, width) / 64, max(1, height * s // 64)
    on_board.rounded_rectangle(frame, radius, fill=(*fill, 255), outline=(*ink, 255), width=stroke)
    room = round(0.88 * board_width * s), round(0.62 * board_height * s)
    letters = font_of(font, fitting_size(text, font, *room))
    l, t, r, b = letters.getbbox(text)  # noqa: E741
    center = (frame[0] + frame[2]) / 2, (frame[1] + frame[3]) / 2
    origin = center[0] - (l + r) / 2, center[1] - (t + b) / 2
    on_board.text(origin, text, (*ink, 255), font=letters)
    edges = [(origin[0] + letters.getlength(text[:n])) / s for n in range(len(text) + 1)]
    board = board.rotate(draw.uniform(-6, 6), Image.Resampling.BILINEAR, center=center)
    picture.paste(board, (0, 0), board)
    image = np.asarray(picture.reduce(s)).astype(np.float32)
    image = image * draw.uniform(0.86, 1.06)
    truth = {"word": word, "text": text, "font": font, "color": color, "box": box}
    truth["letters"] = tuple(zip(edges[:-1], edges[1:], strict=True))
    return image.round().clip(0, 255).astype(np.uint8), truth


def _post(paint: ImageDraw.ImageDraw, box: tuple, ground: int, s: int, draw: Draw) -> None:
    """One post in the middle or one near each end."""
    left, _, right, bottom = (value * s for value in box)
    half = 0.02 * (right - left) + s / 2
    wood = (122, 104, 88)
    one = draw.uniform() < 0.5
    for share in (0.5,) if one else (0.15, 0.85):
        x = left + share * (right - left)
        paint.rectangle((x - half, (bottom + box[1] * s) / 2, x + half, ground + s), fill=wood)
