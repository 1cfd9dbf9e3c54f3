"""SiT with a noise level per token: the network of Self-Flow's ImageNet experiments.

Patches of an image latent plus fixed 2-D sin-cos positions go through pre-norm blocks of
attention and MLP; adaLN-zero of each block is driven by the noise level and the class (the
caption, one id). The parts are named as in the authors' checkpoints, so that
`selfflow_wm.interop.official` renames nothing.

Shapes: B batch, N tokens, D width, C channels per token, K noise levels per sample.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from selfflow_wm.flow.noising import NoiseLevels
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model.attention import attend, group_mask
from selfflow_wm.model.block import gather_levels, modulate, split_affines
from selfflow_wm.model.embed import sinusoid
from selfflow_wm.model.network import Network, NetworkOutput

SIZES: dict[str, dict[str, int]] = {
    "S": {"width": 384, "depth": 12, "heads": 6},
    "B": {"width": 768, "depth": 12, "heads": 12},
    "L": {"width": 1024, "depth": 24, "heads": 16},
    "XL": {"width": 1152, "depth": 28, "heads": 16},
}
"""The sizes of DiT and SiT; XL with patch 2 is the 675M model of the paper."""


def imagenet_layout(patch: int = 2) -> Layout:
    """ImageNet at 256 pixels: SD-VAE latents (4, 32, 32) in patches, 1000 classes and null.

    A token holds its patch as (channel, row, column), the column running fastest.
    """
    side = 32 // patch
    image = Modality("image", (1, side, side), channels=4 * patch * patch)
    return Layout((image,), text_length=1, vocabulary=1001)


def sit_xl(layout: Layout | None = None) -> SiT:
    """SiT-XL, by default XL/2 for `imagenet_layout`: 675M parameters."""
    return SiT(layout or imagenet_layout(), **SIZES["XL"])


class SiT(Network):
    """See the module docstring; called like a `Backbone`. The velocity is 0 at initialisation.

    Args:
        layout: one modality of grid (1, H, W); text_length 1, the caption being a class label
            in 0..vocabulary - 2, or vocabulary - 1 for none.
        width: D, divisible by 4 (sin-cos of two axes) and by heads.
        depth, heads, mlp_ratio: blocks, attention heads, hidden width of the MLP over D.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        _check_layout(layout)
        if width % heads or width % 4:
            raise ValueError(
                f"expected a width divisible by 4 and by heads, got {width} and {heads} heads"
            )
        if depth < 1:
            raise ValueError(f"expected depth >= 1, got {depth}")
        self.layout, self.width, self.heads = layout, width, heads
        (image,) = layout.modalities
        self.x_embedder = PatchProjection(image.channels, width)
        self.t_embedder = TimeEmbedding(width)
        self.y_embedder = LabelEmbedding(layout.vocabulary, width)
        # Persistent although it is fixed: checkpoints carry it.
        self.register_buffer("pos_embed", position_table(image, width))
        self.blocks = nn.ModuleList(SiTBlock(width, heads, mlp_ratio) for _ in range(depth))
        self.final_layer = FinalLayer(width, image.channels)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier for linear layers, normal(0.02) for embeddings, zero for adaLN and the head."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or "adaLN" in name or name.startswith("final_layer"):
                nn.init.zeros_(parameter)
            elif name.startswith(("t_embedder", "y_embedder")):
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.xavier_uniform_(parameter)

    def all_blocks(self) -> list[nn.Module]:
        return list(self.blocks)

    def forward(
        self,
        noisy: Mapping[str, Float[Tensor, "B N C"]],
        noise_levels: NoiseLevels,
        text_ids: Int[Tensor, "B 1"],
        text_mask: Bool[Tensor, "B 1"] | None,
        valid: Mapping[str, Bool[Tensor, "B N"]] | None = None,
        feature_layer: int | None = None,
        stop_at_feature: bool = False,
        outputs: Collection[str] | None = None,
    ) -> NetworkOutput:
        """The velocity (noise - clean) at the noised tokens; arguments as of `Backbone.forward`.

        `text_mask` has no part in it: a dropped label is the null id. `outputs` can only name
        the one modality there is.
        """
        (name,) = self.layout.names
        last = self.last_layer(feature_layer, stop_at_feature)
        self._check(noisy, noise_levels, text_ids, outputs)
        mask = self._mask(valid[name] if valid and name in valid else None, noise_levels)
        levels, index = noise_levels.levels, noise_levels.index
        condition = self.t_embedder(levels) + self.y_embedder(text_ids)
        tokens = self.x_embedder(noisy[name]) + self.pos_embed
        features = None
        for layer, block in enumerate(self.blocks[:last], start=1):
            tokens = self.run(block, tokens, condition, index, mask)
            if layer == feature_layer:
                features = tokens
        if stop_at_feature:
            return NetworkOutput(None, features)
        return NetworkOutput({name: self.final_layer(tokens, condition, index)}, features)

    @staticmethod
    def _mask(
        valid: Bool[Tensor, "B N"] | None, levels: NoiseLevels
    ) -> Bool[Tensor, "B 1 #M N"] | None:
        """Which keys each query may attend to; None (faster) for all."""
        if not levels.separated:
            return None if valid is None else valid[:, None, None]
        keys = torch.ones_like(levels.index, dtype=torch.bool) if valid is None else valid
        return group_mask(keys[:, None, None], levels.groups())

    def _check(
        self,
        noisy: Mapping[str, Tensor],
        noise_levels: NoiseLevels,
        text_ids: Tensor,
        outputs: Collection[str] | None,
    ) -> None:
        (image,) = self.layout.modalities
        if set(noisy) != {image.name} or set(outputs or noisy) != {image.name}:
            raise ValueError(
                f"expected the modality {image.name!r} alone as input and output, got "
                f"{sorted(noisy)} and {sorted(outputs or ())}; use Backbone for several"
            )
        shapes = {
            "noisy tokens": (noisy[image.name], (image.num_tokens, image.channels)),
            "noise level index": (noise_levels.index, (image.num_tokens,)),
            "text_ids (a class label)": (text_ids, (1,)),
        }
        for what, (tensor, shape) in shapes.items():
            expected = (len(noise_levels.levels), *shape)
            if tuple(tensor.shape) != expected:
                raise ValueError(
                    f"expected {what} of shape {expected}, got {tuple(tensor.shape)}; is the "
                    "layout that of the codec?"
                )


class PatchProjection(nn.Module):
    """Tokens of C values to the width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, width)

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N D"]:
        return self.proj(tokens)


class TimeEmbedding(nn.Module):
    """Noise levels to vectors: 256 sinusoids of t itself (not 1000 * t), then a perceptron."""

    def __init__(self, width: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, levels: Float[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
        return self.mlp(sinusoid(levels, self.frequencies).to(next(self.parameters()).dtype))


class LabelEmbedding(nn.Module):
    """Class labels to vectors; the last row is the null label."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(vocabulary, width)

    def forward(self, labels: Int[Tensor, "B 1"]) -> Float[Tensor, "B 1 D"]:
        return self.embedding_table(labels)


class SelfAttention(nn.Module):
    """Multi-head attention among the tokens, q, k and v from one matrix with bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "B N D"], key_mask: Bool[Tensor, "B 1 #M N"] | None
    ) -> Float[Tensor, "B N D"]:
        q, k, v = rearrange(self.qkv(x), "b n (s h d) -> s b n h d", s=3, h=self.heads)
        return self.proj(attend(q, k, v, key_mask))


class Perceptron(nn.Module):
    """fc2(gelu(fc1(x))), GELU by its tanh approximation."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, int(mlp_ratio * width))
        self.fc2 = nn.Linear(int(mlp_ratio * width), width)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SiTBlock(nn.Module):
    """Attention, then MLP, each inside adaLN-zero; the modulation is computed once per level."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.mlp = Perceptron(width, mlp_ratio)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        condition: Float[Tensor, "B K D"],
        index: Int[Tensor, "B N"],
        key_mask: Bool[Tensor, "B 1 #M N"] | None,
    ) -> Float[Tensor, "B N D"]:
        table = self.adaLN_modulation(condition)
        attention, mlp = split_affines(table, index, x.shape[-1])
        mixed = self.attn(modulate(x, attention.shift, attention.scale), key_mask)
        x = torch.addcmul(x, attention.gate, mixed)
        return torch.addcmul(x, mlp.gate, self.mlp(modulate(x, mlp.shift, mlp.scale)))


class FinalLayer(nn.Module):
    """adaLN and the projection to velocities."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        condition: Float[Tensor, "B K D"],
        index: Int[Tensor, "B N"],
    ) -> Float[Tensor, "B N C"]:
        affine = gather_levels(self.adaLN_modulation(condition), index)
        shift, scale = affine.chunk(2, dim=-1)
        return self.linear(modulate(x, shift, 1.0 + scale))


def position_table(image: Modality, width: int) -> Float[Tensor, "1 N D"]:
    """Fixed 2-D sin-cos positions: sin and cos of the column, then sin and cos of the row.

    Each axis has D / 4 frequencies 10000^(-4 k / D), in float64 before rounding.
    """
    rows_columns = image.positions()[:, 1:].double()
    steps = torch.arange(width // 4, dtype=torch.float64)
    angles = rows_columns.flip(-1)[..., None] * 10_000.0 ** (-steps / (width / 4))
    table = torch.stack([angles.sin(), angles.cos()], dim=-2)
    return rearrange(table, "n side wave k -> 1 n (side wave k)").float()


def _check_layout(layout: Layout) -> None:
    if len(layout.modalities) != 1 or layout.modalities[0].grid[0] != 1:
        grids = {m.name: m.grid for m in layout.modalities}
        raise ValueError(
            f"SiT: expected one modality of grid (1, H, W), got {grids}; use Backbone for "
            "several modalities or for video"
        )
    if layout.text_length != 1:
        raise ValueError(
            f"SiT: expected a class label as caption (text_length 1), got {layout.text_length}; "
            "use Backbone for text, or Layout(..., text_length=1, vocabulary=classes + 1)"
        )
