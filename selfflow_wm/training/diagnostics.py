"""Diagnostics beyond the loss: is the representation term doing anything?

These measurements cost extra passes, so they are taken every few hundred steps. They
leave no trace: no gradient is kept, and no random number that training would draw is consumed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from selfflow_wm.layout import Batch
from selfflow_wm.training.parallel import SingleProcess, local, norm

INERT_COSINE = 0.97
INERT_SHARE = 0.01
INERT_TIMES = 3


class Diagnostics:
    """Measures one batch; every measurement is the same for every arm that has it.

    teacher_cosine_raw: mean cosine between the raw features of the student and of the EMA at the
        arm's layers (the paper's, for arms without), without the projector.
    rep_cosine: what the representation loss maximises, -L_rep, through the projector.
    gradient_share: |g_rep| / (|g_gen| + |g_rep|), the norms of the gradients of L_gen and
        gamma * L_rep with respect to the student's weights.
    ema_distance: |student - EMA| / |student|, over all weights.

    The batch is one that was just trained on, with noise drawn afresh from `seed` and the step.
    Once the cosine has been above 0.97 and the share below 1% three times in a row, the
    representation term is called inert, in one line and once.
    """

    def __init__(
        self,
        objective: Any,
        *,
        seed: int = 0,
        autocast: bool = False,
        parallel: SingleProcess | None = None,
    ) -> None:
        self.objective, self.seed, self.autocast = objective, seed, autocast
        self.parallel = parallel or SingleProcess()
        self.inert_in_a_row, self.warned = 0, False

    def __call__(
        self, student: nn.Module, ema: nn.Module, batch: Batch, step: int
    ) -> dict[str, float]:
        """The measurements by name; those that the objective has no part for are left out."""
        device = batch.text_ids.device
        values = {"ema_distance": self._relative_distance(student, ema)}
        devices = [device] if device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices=devices),  # objectives may use torch's own generator
            torch.autocast(device.type, torch.bfloat16, enabled=self.autocast),
        ):
            values |= self._gradients(student, ema, batch, step)
            if hasattr(self.objective, "teacher_cosine"):
                cosine = self.parallel.measure(
                    student,
                    lambda network: self.objective.teacher_cosine(
                        network, ema, batch, self._generator(device, step)
                    ),
                )
                values["teacher_cosine_raw"] = float(self._mean(cosine))
        self._judge(values, step)
        return values

    def state_dict(self) -> dict[str, Any]:
        return {"inert_in_a_row": self.inert_in_a_row, "warned": self.warned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inert_in_a_row = int(state.get("inert_in_a_row", 0))
        self.warned = bool(state.get("warned", False))

    def _generator(self, device: torch.device, step: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(self.seed * 1_000_003 + step)

    def _gradients(
        self, student: nn.Module, ema: nn.Module, batch: Batch, step: int
    ) -> dict[str, float]:
        """The norms of the two parts' gradients, by a forward and a backward pass each."""
        weights = [p for p in student.parameters() if p.requires_grad]
        norms: dict[str, float] = {}
        terms: dict[str, Tensor] = {}
        for part in ("representation", "generation"):
            # A pass each, not one graph kept for both: compiled blocks free theirs in backward.
            loss = self.parallel.measure(
                student,
                lambda network: self.objective.loss(
                    network, ema, batch, self._generator(batch.text_ids.device, step)
                ),
            )
            if part not in loss.parts:
                return {}
            norms[part] = float(self.parallel.gradient_norm(loss.parts[part], weights))
            terms = loss.terms
        total = norms["representation"] + norms["generation"]
        share = norms["representation"] / total if total else 0.0
        return {"gradient_share": share, "rep_cosine": -float(self._mean(terms["rep"]))}

    def _mean(self, value: Tensor) -> Tensor:
        return self.parallel.ranks.mean({"": value})[""]

    @torch.no_grad()
    def _relative_distance(self, student: nn.Module, ema: nn.Module) -> float:
        pairs = list(zip(student.parameters(), ema.parameters(), strict=True))
        # Per weight, so that no second copy of the network is made.
        difference = [norm([local(a).float() - local(b).float()]) for a, b in pairs]
        size = [norm([local(a)]) for a, _ in pairs]
        apart, whole = self.parallel.norms(difference, size)
        return float(apart / whole.clamp(min=1e-12))

    def _judge(self, values: dict[str, float], step: int) -> None:
        """Count inert measurements in a row, and say so once."""
        if "gradient_share" not in values:
            return
        inert = values["rep_cosine"] > INERT_COSINE and values["gradient_share"] < INERT_SHARE
        self.inert_in_a_row = self.inert_in_a_row + 1 if inert else 0
        if self.inert_in_a_row < INERT_TIMES or self.warned:
            return
        self.warned = True
        if not self.parallel.ranks.main:
            return
        print(
            f"warning: step {step}: the representation term is inert. {INERT_TIMES} times in a "
            f"row its cosine was above {INERT_COSINE} (now {values['rep_cosine']:.3f}) and its "
            f"share of the gradient below {INERT_SHARE:.0%} (now "
            f"{values['gradient_share']:.2%}): training goes as without it. Raise "
            "objective.gamma, or compare with the arm that has no such term.",
            flush=True,
        )
