from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from selfflow_wm.flow.noising import NoiseLevels
from selfflow_wm.layout import Layout

PRESETS = {
    "tiny": dict(width=96, heads=2, double=1, single=3),
    "small": dict(width=192, heads=4, double=1, single=4),
}


@dataclass
class BackboneOutput:
    velocity: dict[str, Tensor] | None
    features: Tensor | None


class Backbone(nn.Module):
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
    ) -> None:
        super().__init__()
        self.layout = layout
        raise NotImplementedError

    @property
    def depth(self) -> int: ...

    def forward(
        self,
        noisy: Mapping[str, Tensor],
        noise_levels: NoiseLevels,
        text_ids: Tensor,
        text_mask: Tensor,
        valid: Mapping[str, Tensor] | None = None,
        feature_layer: int | None = None,
        stop_at_feature: bool = False,
        outputs: Collection[str] | None = None,  # modalities wanted (None: all); features and
        # velocity cover these only, and the last block then skips the other tokens' queries
    ) -> BackboneOutput: ...
