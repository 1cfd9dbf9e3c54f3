"""The interface of networks: blocks, features after any of them, compilation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass
class NetworkOutput:
    """The result of a forward pass."""

    velocity: dict[str, Float[Tensor, "B n C"]] | None
    """noise - clean per modality; None when the forward stopped at the feature layer."""
    features: Float[Tensor, "B M D"] | None
    """Tokens of the `outputs` modalities, in layout order, after the feature layer."""


class Network(nn.Module):
    """A stack of blocks, counted from 1."""

    checkpoint_blocks = False
    """Activation checkpointing: where there is a gradient, a block keeps its inputs alone and runs
    again in the backward pass."""

    def all_blocks(self) -> list[nn.Module]:
        """The blocks, in the order in which they run."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        return len(self.all_blocks())

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the blocks in place (`torch.compile`), each kind once per shape of input.

        The blocks are nearly all the work, and one compiled block serves all its siblings: a
        fraction of the time to compile the whole network for every set of modalities.
        """
        # A graph per kind of block and set of modalities, for student and teacher: more than
        # torch's default of 8, beyond which it silently runs uncompiled.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        # Under DDP a block would be cut further, at the borders of its gradient buckets.
        torch._dynamo.config.optimize_ddp = False
        for block in self.all_blocks():
            block.compile(*args, **({"dynamic": False} | options))

    def run(self, block: nn.Module, *inputs: Any) -> Any:
        """`block(*inputs)`, checkpointed if asked for."""
        if self.checkpoint_blocks and torch.is_grad_enabled():
            # No random numbers are drawn in a block.
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return block(*inputs)

    def last_layer(self, feature_layer: int | None, stop_at_feature: bool) -> int:
        """The last block to run; ValueError for a `feature_layer` that is not there."""
        if feature_layer is None and stop_at_feature:
            raise ValueError("expected a feature_layer to stop at, got None")
        if feature_layer is not None and not 1 <= feature_layer <= self.depth:
            raise ValueError(f"expected feature_layer in 1..{self.depth}, got {feature_layer}")
        return feature_layer if stop_at_feature and feature_layer else self.depth
