"""Small training runs, the same in one process and in several.

torchrun runs this file: `ranked.py OUT` trains every case of `CASES` under ddp and fsdp2 and leaves
the states in OUT; `test_parallel.py` trains the same in one process and compares.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from selfflow_wm.flow.time_laws import LogitNormalTime
from selfflow_wm.layout import Batch, Layout, Modality
from selfflow_wm.model import Backbone
from selfflow_wm.objective import REPA, FlowMatching, SelfFlow
from selfflow_wm.objective.encoders import RandomProjection
from selfflow_wm.training import ranks
from selfflow_wm.training.optim import AdamWCosine
from selfflow_wm.training.parallel import make_parallel
from selfflow_wm.training.trainer import Trainer

LAYOUT = Layout(
    (
        Modality("image", (1, 2, 2), 5),
        Modality("video", (2, 1, 2), 5, mask_ratio=0.25),
        Modality("action", (3, 1, 1), 3, mask_ratio=0.5),
    ),
    text_length=6,
)
MODES = (
    (("image",), ()),
    (("image", "video", "action"), ("image",)),
    (("image", "action"), ("image",)),
)
"""Modalities present and given, one row a step: some parameters have no gradient in some steps."""
STEPS = 5
CASES = {
    "flow_matching": {},
    "self_flow": {},
    "repa": {},
    "accumulated": {"arm": "self_flow", "accumulate": 2},
    "checkpointed": {"arm": "self_flow", "activation_checkpointing": True},
}


class Rows:
    """A stream of batches of 4 samples with gaps, of which this process gets its rows."""

    def __init__(self, accumulate: int, rank: int = 0, size: int = 1) -> None:
        self.accumulate, self.rank, self.size, self.position = accumulate, rank, size, 0

    def __next__(self) -> Batch:
        present, given = MODES[self.position // self.accumulate % len(MODES)]
        generator = torch.Generator().manual_seed(self.position)
        self.position += 1
        batch = LAYOUT.fake_batch(4, present, generator, given)
        own = slice(self.rank, None, self.size)
        valid = {
            name: torch.rand(value.shape, generator=generator) < 0.7
            for name, value in batch.valid.items()
        }
        return Batch(
            {name: value[own] for name, value in batch.latents.items()},
            {name: value[own] for name, value in valid.items()},
            batch.text_ids[own],
            batch.text_mask[own],
            batch.given,
        )

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def make(out: Path, word: str = "none", arm: str = "self_flow", **settings) -> Trainer:
    """A run in `out`; `word` is `trainer.parallel`."""
    joined = ranks.join(word, "cpu")
    # Other processes start from other weights: those of the main one are what counts.
    torch.manual_seed(joined.rank)
    model = Backbone(LAYOUT, width=24, heads=2, double=1, single=2, skip=True)
    with torch.no_grad():  # away from the zero initialisation
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    law, noise = LogitNormalTime(), {"image": 0.2}
    objective = {
        "flow_matching": lambda: FlowMatching(law, noise),
        "self_flow": lambda: SelfFlow(law, width=24, condition_noise=noise),
        "repa": lambda: REPA(law, width=24, encoder=RandomProjection(8), condition_noise=noise),
    }[arm]()
    defaults = {"total_steps": STEPS, "ema_decay": 0.8, "log_every": 1, "save_every": 0}
    return Trainer(
        model,
        objective,
        Rows(settings.get("accumulate", 1), joined.rank, joined.size),
        out_dir=out,
        # eps: where a gradient is zero but for rounding, AdamW would step by the rounding's sign.
        # clip_norm: low enough to matter.
        optim=AdamWCosine(lr=1e-2, warmup=1, eps=1e-4, clip_norm=0.5),
        parallel=make_parallel(joined),
        diagnose_every=2,
        validate_every=2,
        validate=lambda ema, step: {"sum": float(sum(p.sum() for p in ema.parameters()))},
        export=lambda ema, step: torch.save(None, out / f"exported_{joined.rank}_{step}"),
        **{**defaults, **settings},
    )


def train(out: Path, word: str, name: str) -> None:
    """Case `name` from start to end."""
    settings = {"arm": name} | CASES[name]
    make(out / f"{word}-{name}", word, **settings).train()


def go_on(out: Path, source: str, word: str) -> None:
    """Resume the run that stopped half-way in out/`source`, in a copy of it."""
    place = out / f"{source}-{word}"
    joined = ranks.join(word, "cpu")
    joined.on_main(lambda: shutil.copytree(out / source, place) and None)
    trainer = make(place, word)
    assert trainer.resume()
    trainer.train()


def main(out: Path) -> None:
    for word in ("ddp", "fsdp2"):
        for name in CASES:
            train(out, word, name)
        go_on(out, "half-none", word)
        make(out / f"half-{word}", word).train(until=2)
    go_on(out, "half-ddp", "fsdp2")
    go_on(out, "half-fsdp2", "ddp")
    ranks.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
