"""The multimodal transformer: noised tokens of several modalities and a caption to velocities.

The FLUX.2-style network of Self-Flow (arXiv 2603.06507): `double` double-stream blocks (main
tokens and text tokens with separate weights, joint attention), then `single` parallel
single-stream blocks over [text, main]; SwiGLU, qk-norm, 3-D RoPE, adaLN-zero whose modulation
layers are shared by all blocks of a kind, one input and one output projection per modality.

Shapes: B batch, L text tokens, N main tokens, D width, K noise levels per sample.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from selfflow_wm.devices import to_device
from selfflow_wm.flow.noising import NoiseLevels
from selfflow_wm.layout import Layout
from selfflow_wm.model.attention import group_mask, rotary_identity, rotary_table
from selfflow_wm.model.block import (
    DoubleBlock,
    Modulation,
    SingleBlock,
    gather_levels,
    modulate,
    split_affines,
)
from selfflow_wm.model.embed import (
    LevelEmbedding,
    ModalityEmbedding,
    TextEmbedding,
    VectorEmbedding,
)
from selfflow_wm.model.network import Network, NetworkOutput

VECTOR_OCTAVES = 6
"""Fourier features of the vectors in `vector_in`: wavelengths from 4 pi down to 0.4."""


class Backbone(Network):
    """See the module docstring. The velocity is exactly 0 at initialisation.

    Args:
        layout: the modalities; each gets input, output and position parameters.
        width: D; width / heads must be even and at least 6.
        heads: attention heads.
        double, single: numbers of blocks of each kind.
        mlp_ratio: hidden width of the SwiGLU over D.
        rope_theta: base of the rotary frequencies.
        text_patch: caption ids (bytes) per text token.
        stem: give every input projection a two-layer perceptron beside it, so that a token can be
            a non-linear function of its pixels before the first attention.
        vector_in: modalities of the layout, or "text", whose mean token goes through a perceptron
            into the modulation of every block, as FLUX does with its pooled caption. What all
            tokens need (proprioception, the task) then need not be found by attention first.
        skip: add gate(h) * noisy to every velocity, with a gate per token and channel from the
            last hidden state. A token of C values whose clean value is known has the velocity
            noisy / t: without the skip its C noise values must pass through the width D, which a
            network with D not much larger than C cannot do. Not in the paper, where D >> C.
        blind_conditions: given and text tokens attend to each other only, never to generated
            tokens. That is what separated levels do to them in training; with this, they are
            the same in the teacher and when sampling. Not in the paper.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 192,
        heads: int = 4,
        double: int = 1,
        single: int = 4,
        mlp_ratio: float = 4.0,
        rope_theta: float = 2000.0,
        text_patch: int = 1,
        stem: bool = False,
        vector_in: Sequence[str] = (),
        skip: bool = False,
        blind_conditions: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"expected a width divisible by heads, got {width} and {heads}")
        if double < 0 or single < 0 or double + single < 1:
            raise ValueError(f"expected at least one block, got double={double}, single={single}")
        self.layout, self.width, self.heads, self.rope_theta = layout, width, heads, rope_theta
        self.blind_conditions = blind_conditions
        self.embed = nn.ModuleDict(
            {m.name: ModalityEmbedding(m, width, stem) for m in layout.modalities}
        )
        self.text = TextEmbedding(layout.text_length, width, text_patch, layout.vocabulary)
        self.level = LevelEmbedding(width)
        layout.present(name for name in vector_in if name != "text")  # refuses unknown ones
        self.vector_in = nn.ModuleDict(
            {
                name: VectorEmbedding(width, width)
                if name == "text"
                else VectorEmbedding(
                    layout[name].num_tokens * layout[name].channels,
                    width,
                    VECTOR_OCTAVES if layout[name].num_tokens == 1 else 0,
                )
                for name in vector_in
            }
        )
        # 15 * D^2 in all, however deep the network.
        self.modulation = nn.ModuleDict(
            {
                "main": Modulation(width, 6),
                "text": Modulation(width, 6),
                "single": Modulation(width, 3),
                "final": Modulation(width, 2),
            }
        )
        self.double_blocks = nn.ModuleList(
            DoubleBlock(width, heads, mlp_ratio) for _ in range(double)
        )
        self.single_blocks = nn.ModuleList(
            SingleBlock(width, heads, mlp_ratio) for _ in range(single)
        )
        self.head = nn.ModuleDict({m.name: nn.Linear(width, m.channels) for m in layout.modalities})
        self.gate = nn.ModuleDict(
            {m.name: nn.Linear(width, m.channels) for m in layout.modalities} if skip else {}
        )
        self._initialise()
        self._tables: dict[tuple, Float[Tensor, "2 N 1 half"]] = {}
        with torch.device("cpu"):  # even when the network itself is built on the meta device
            self._table(layout.names, torch.device("cpu"))  # a bad head width fails here

    def _initialise(self) -> None:
        """Xavier for the blocks; modulation (in `Modulation`) and heads start at zero."""
        for block in self.all_blocks():
            for name, parameter in block.named_parameters():
                if parameter.ndim == 2:
                    # q, k and v are three square matrices, not one 3 * D wide.
                    parts = parameter.chunk(3) if "qkv" in name else (parameter,)
                    for part in parts:
                        nn.init.xavier_uniform_(part)
                elif name.endswith("bias"):
                    nn.init.zeros_(parameter)
        for parameter in [*self.head.parameters(), *self.gate.parameters()]:
            nn.init.zeros_(parameter)

    def all_blocks(self) -> list[nn.Module]:
        return [*self.double_blocks, *self.single_blocks]

    def forward(
        self,
        noisy: Mapping[str, Float[Tensor, "B n C"]],
        noise_levels: NoiseLevels,
        text_ids: Int[Tensor, "B L"],
        text_mask: Bool[Tensor, "B L"] | None,
        valid: Mapping[str, Bool[Tensor, "B n"]] | None = None,
        feature_layer: int | None = None,
        stop_at_feature: bool = False,
        outputs: Collection[str] | None = None,
    ) -> NetworkOutput:
        """Velocities at the noised tokens.

        Args:
            noisy: the modalities present; tokens are ordered as in the layout.
            noise_levels: their noise levels, index (B, N) in that order. If they are
                `separated`, tokens of different levels do not attend to each other.
            text_ids, text_mask: caption ids, and which of them are text (None: all are); text
                counts as free of noise (level 0).
            valid: False tokens are not attended to (missing modalities are all valid). Where
                neither this nor a mask of the text nor groups of tokens close anything to
                attention, it goes without a mask.
            feature_layer: 1..depth, the block whose output becomes `features`.
            stop_at_feature: end there, without a velocity.
            outputs: modalities whose velocity and features are wanted (None: all present).
                Nothing else of the last block is computed than what these need.
        """
        names = self.layout.present(noisy)
        wanted = names if outputs is None else self.layout.present(outputs)
        last = self.last_layer(feature_layer, stop_at_feature)
        self._check(noisy, names, noise_levels, wanted)
        select = self._select(names, wanted)
        tokens, features, vectors = self._run_blocks(
            noisy, names, noise_levels, text_ids, text_mask, valid, select, feature_layer, last
        )
        if stop_at_feature:
            return NetworkOutput(None, features)
        index = noise_levels.index[:, select]
        shift, scale = gather_levels(self.modulation["final"](vectors), index).chunk(2, dim=-1)
        tokens = modulate(tokens, shift, 1.0 + scale)
        velocity = {}
        for name, piece in self.layout.slices(wanted).items():
            velocity[name] = self.head[name](tokens[:, piece])
            if name in self.gate:
                velocity[name] = velocity[name] + self.gate[name](tokens[:, piece]) * noisy[name]
        return NetworkOutput(velocity, features)

    def _run_blocks(
        self,
        noisy: Mapping[str, Tensor],
        names: tuple[str, ...],
        noise_levels: NoiseLevels,
        text_ids: Tensor,
        text_mask: Tensor | None,
        valid: Mapping[str, Tensor] | None,
        select: slice | Tensor,
        feature_layer: int | None,
        last: int,
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B M D"] | None, Float[Tensor, "B K D"]]:
        """Blocks 1..last: the selected main tokens, their features, the level vectors."""
        text, text_mask = self.text(text_ids, text_mask)
        key_mask = self._key_mask(names, text, text_mask, valid, noise_levels)
        table = self._table(names, text_ids.device)
        pooled = self._pool(noisy, text, text_mask)
        vectors = self.level(noise_levels.levels) + pooled
        clean_vector = self.level(torch.zeros_like(noise_levels.levels[:1, :1])) + pooled
        main = torch.cat([self.embed[name](noisy[name]) for name in names], dim=1)
        features = None

        if self.double_blocks:
            main_affine = split_affines(
                self.modulation["main"](vectors), noise_levels.index, self.width
            )
            text_affine = split_affines(self.modulation["text"](clean_vector), None, self.width)
        for layer, block in enumerate(self.double_blocks[:last], start=1):
            text, main = self.run(block, text, main, text_affine, main_affine, table, key_mask)
            if layer == feature_layer:
                features = main[:, select]
        if last <= len(self.double_blocks):
            return main[:, select], features, vectors

        length = text.shape[1]
        x = torch.cat([text, main], dim=1)
        # In the joint stream the caption is one more level, the last of the table.
        level_vectors = torch.cat([vectors, clean_vector.expand(len(vectors), -1, -1)], dim=1)
        index = F.pad(noise_levels.index, (length, 0), value=noise_levels.num_levels)
        (affine,) = split_affines(self.modulation["single"](level_vectors), index, self.width)
        table = torch.cat([rotary_identity(table, length), table], dim=1)
        if isinstance(select, slice):
            queries = slice(length + select.start, length + select.stop)
        else:
            queries = length + select
        for layer, block in enumerate(self.single_blocks, start=len(self.double_blocks) + 1):
            x = self.run(block, x, affine, table, key_mask, queries if layer == last else None)
            if layer == feature_layer:
                features = x if layer == last else x[:, queries]
            if layer == last:
                break
        return x, features, vectors

    def _pool(
        self, noisy: Mapping[str, Tensor], text: Tensor, text_mask: Tensor | None
    ) -> Float[Tensor, "B 1 D"] | float:
        """The sum of the `vector_in` embeddings of what is present."""
        pooled: Tensor | float = 0.0
        for name, embed in self.vector_in.items():
            if name == "text":
                if text_mask is None:
                    mean = text.mean(1, keepdim=True)
                else:
                    keep = text_mask[..., None].to(text.dtype)
                    mean = (text * keep).sum(1, keepdim=True) / keep.sum(1, True)
                pooled = pooled + embed(mean)
            elif name in noisy:
                pooled = pooled + embed(noisy[name].flatten(1)[:, None])
        return pooled

    def _check(
        self,
        noisy: Mapping[str, Tensor],
        names: tuple[str, ...],
        noise_levels: NoiseLevels,
        wanted: tuple[str, ...],
    ) -> None:
        if not wanted or not set(wanted) <= set(names):
            raise ValueError(f"expected outputs among the modalities {names}, got {wanted}")
        batch_size = len(noise_levels.levels)
        for name in names:
            expected = (batch_size, self.layout[name].num_tokens, self.layout[name].channels)
            if tuple(noisy[name].shape) != expected:
                raise ValueError(
                    f"{name}: expected noisy tokens {expected}, got {tuple(noisy[name].shape)}; "
                    "is the layout that of the codec?"
                )
        expected_index = (batch_size, self.layout.num_tokens(names))
        if tuple(noise_levels.index.shape) != expected_index:
            raise ValueError(
                f"expected a noise level index of shape {expected_index} for {names}, got "
                f"{tuple(noise_levels.index.shape)}"
            )

    def _select(self, names: tuple[str, ...], wanted: tuple[str, ...]) -> slice | Tensor:
        """Where the wanted modalities lie among the main tokens; a slice if they adjoin."""
        slices = self.layout.slices(names)
        pieces = [slices[name] for name in wanted]
        if all(a.stop == b.start for a, b in pairwise(pieces)):
            return slice(pieces[0].start, pieces[-1].stop)
        device = next(self.parameters()).device
        return torch.cat([torch.arange(p.start, p.stop, device=device) for p in pieces])

    def _key_mask(
        self,
        names: tuple[str, ...],
        text: Tensor,
        text_mask: Tensor | None,
        valid: Mapping[str, Tensor] | None,
        noise_levels: NoiseLevels,
    ) -> Bool[Tensor, "B 1 #S S"] | None:
        """Which of [text, main] may be attended to, by all or, if separated, by each token; None
        (faster, see `model.attention`) where all may by all."""
        valid = {name: valid[name] for name in names if name in valid} if valid else {}
        separate = noise_levels.separated or self.blind_conditions
        if text_mask is None and not valid and not separate:
            return None
        full = torch.ones_like(noise_levels.index, dtype=torch.bool)
        main = [
            valid.get(name, full[:, piece]) for name, piece in self.layout.slices(names).items()
        ]
        if text_mask is None:
            text_mask = full.new_ones(len(full), text.shape[1])
        key_mask = torch.cat([text_mask, *main], dim=1)[:, None, None]
        if not separate:
            return key_mask
        group = F.pad(noise_levels.groups(), (text.shape[1], 0))  # text is a condition
        return group_mask(key_mask, group)

    def _table(self, names: tuple[str, ...], device: torch.device) -> Float[Tensor, "2 N 1 half"]:
        """The rotary table of the main tokens, kept per set of modalities."""
        key = (names, str(device))
        if key not in self._tables:
            table = rotary_table(
                self.layout.positions(names), self.width // self.heads, self.rope_theta
            )
            self._tables[key] = to_device(table, device)
        return self._tables[key]
