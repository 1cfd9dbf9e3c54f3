"""The probe's classifier: multinomial logistic regression on standardised features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""L2 weights tried, strongest first so that each fit starts near the next."""

FIT, CHOOSE, TEST = range(3)


@dataclass(frozen=True)
class Fit:
    """A chosen classifier, in numbers. Accuracies are over rows of the features."""

    accuracy: float
    choose_accuracy: float
    fit_accuracy: float
    chance: float
    """Share of the most frequent label among all rows."""
    l2: float
    converged: bool


def split_samples(
    count: int, choose: float = 0.2, test: float = 0.2, seed: int = 0
) -> Int[Tensor, "N"]:
    """Each sample's split, FIT, CHOOSE or TEST, by a permutation that only `seed` and `count`
    decide: every checkpoint, layer and level is judged on the same samples.

    ValueError unless both fractions and their rest are positive and no split is empty.
    """
    if not (choose > 0 and test > 0 and choose + test < 1):
        raise ValueError(
            f"expected fractions choose > 0, test > 0 and choose + test < 1, got {choose}, {test}"
        )
    sizes = round(count * choose), round(count * test)
    if min(*sizes, count - sum(sizes)) < 1:
        raise ValueError(
            f"expected samples for a fit, a choose and a test split, got {count} in all; add data"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    group = torch.full((count,), FIT)
    group[order[: sizes[0]]] = CHOOSE
    group[order[sizes[0] : sum(sizes)]] = TEST
    return group


def classify(
    features: Float[Tensor, "M D"],
    labels: Int[Tensor, "M"],
    group: Int[Tensor, "M"],
    penalties: Sequence[float] = PENALTIES,
) -> Fit:
    """Fit on FIT rows, choose the penalty on CHOOSE rows, judge on TEST rows.

    Features are standardised by the FIT rows; a constant one becomes 0. The penalty with the
    best CHOOSE accuracy wins, ties going to the lower cross-entropy. Computed in float64 on the
    features' device.

    ValueError on features that are not finite, labels of a single class, or penalties <= 0.
    """
    if not penalties or min(penalties) <= 0:
        raise ValueError(f"expected L2 penalties > 0, got {tuple(penalties)}")
    if not features.isfinite().all():
        raise ValueError("expected finite features, got nan or inf; is the checkpoint broken?")
    names, y = labels.to(features.device).unique(return_inverse=True)
    group = group.to(features.device)
    if len(y[group == FIT].unique()) < 2:
        raise ValueError("expected at least two classes in the fit split, got one; add data")
    x = _standardise(features.double(), group == FIT)
    parts = {which: (x[group == which], y[group == which]) for which in (FIT, CHOOSE, TEST)}
    weight = x.new_zeros(len(names), x.shape[1] + 1)
    tried = []
    for l2 in sorted(penalties, reverse=True):
        weight, converged = _logistic(*parts[FIT], l2, weight)
        loss = float(F.cross_entropy(_logits(parts[CHOOSE][0], weight), parts[CHOOSE][1]))
        tried.append(((_accuracy(*parts[CHOOSE], weight), -loss), weight, l2, converged))
    score, weight, l2, converged = max(tried, key=lambda one: one[0])
    return Fit(
        accuracy=_accuracy(*parts[TEST], weight),
        choose_accuracy=score[0],
        fit_accuracy=_accuracy(*parts[FIT], weight),
        chance=float(y.bincount().max() / len(y)),
        l2=l2,
        converged=converged,
    )


def _standardise(x: Tensor, fit: Tensor) -> Tensor:
    mean, std = x[fit].mean(0), x[fit].std(0, correction=0)
    # Rounding leaves a constant feature a deviation of about 1e-16 of its size, not noise to
    # blow up.
    constant = std <= 1e-9 * mean.abs().clamp(min=1e-30)
    return torch.where(constant, 0.0, (x - mean) / std.masked_fill(constant, 1.0))


def _logits(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x, weight[:, :-1], weight[:, -1])


def _accuracy(x: Tensor, y: Tensor, weight: Tensor) -> float:
    return float((_logits(x, weight).argmax(1) == y).double().mean())


def _logistic(
    x: Float[Tensor, "M D"], y: Int[Tensor, "M"], l2: float, start: Float[Tensor, "K D1"]
) -> tuple[Float[Tensor, "K D1"], bool]:
    """argmin of mean cross-entropy + l2 / 2 * |weights|^2 (the bias, last column, goes free)."""
    target = F.one_hot(y, len(start)).double()

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = torch.tensor(flat).to(x).reshape(start.shape)
        log_p = _logits(x, weight).log_softmax(1)
        error = (log_p.exp() - target) / len(x)
        penalised = F.pad(weight[:, :-1], (0, 1))
        gradient = torch.cat([error.T @ x, error.sum(0)[:, None]], 1) + l2 * penalised
        value = -(log_p * target).sum() / len(x) + 0.5 * l2 * penalised.square().sum()
        return float(value), gradient.flatten().cpu().numpy()

    found = minimize(
        value_and_gradient,
        start.flatten().cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "ftol": 1e-9, "gtol": 1e-6},
    )
    return torch.tensor(found.x).to(x).reshape(start.shape), bool(found.success)
