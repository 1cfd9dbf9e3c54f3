"""Instructions as UTF-8 bytes: no vocabulary to fit, no download."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from selfflow_wm.layout import NULL_BYTE


def shortened(text: str, max_length: int) -> str:
    """`text` without surrounding blanks, its end cut to `max_length` UTF-8 bytes at most; a
    character is never cut in two."""
    return text.strip().encode()[:max_length].decode(errors="ignore")


def encode_text(
    texts: Sequence[str], max_length: int
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Byte ids and their mask, L = `max_length` for shapes that never change. An empty text is
    one `NULL_BYTE`.

    ValueError when a text takes more than `max_length` bytes: cutting it (`shortened`) may change
    what is asked for, so who calls this decides and says so.
    """
    if isinstance(texts, str):
        raise ValueError(f"expected a sequence of texts, got the string {texts!r}; use [text]")
    rows = [list(text.strip().encode()) or [NULL_BYTE] for text in texts]
    longest = max(map(len, rows))
    if longest > max_length:
        culprit = max(texts, key=lambda text: len(text.strip().encode()))
        raise ValueError(
            f"expected texts of at most {max_length} bytes, got {longest}: {culprit!r}; raise "
            "Layout.text_length or shorten the instruction"
        )
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.tensor([row + [NULL_BYTE] * (max_length - len(row)) for row in rows])
    return ids, torch.arange(max_length) < lengths[:, None]
