"""The probe's classifier: multinomial logistic regression on standardised features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""L2 weights tried."""

ITERATIONS = 1000
"""Of the solver (L-BFGS), at most."""

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
    best CHOOSE accuracy wins, ties going to the lower cross-entropy. Computed in float64 by
    scikit-learn, on the CPU.

    ValueError on features that are not finite, labels of a single class, or penalties <= 0.
    """
    from sklearn.metrics import log_loss

    if not penalties or min(penalties) <= 0:
        raise ValueError(f"expected L2 penalties > 0, got {tuple(penalties)}")
    if not features.isfinite().all():
        raise ValueError("expected finite features, got nan or inf; is the checkpoint broken?")
    x, y, rows = features.double().cpu().numpy(), labels.cpu().numpy(), group.cpu().numpy()
    if len(np.unique(y[rows == FIT])) < 2:
        raise ValueError("expected at least two classes in the fit split, got one; add data")
    parts = {which: (x[rows == which], y[rows == which]) for which in (FIT, CHOOSE, TEST)}
    tried = []
    for l2 in sorted(penalties, reverse=True):
        model, converged = logistic_regression(*parts[FIT], l2)
        x, y = parts[CHOOSE]
        score, known = model.score(x, y), np.isin(y, model.classes_)
        proba = model.predict_proba(x[known])
        loss = log_loss(y[known], proba, labels=model.classes_) if known.any() else 0.0
        tried.append(((score, -loss), model, l2, converged))
    score, model, l2, converged = max(tried, key=lambda one: one[0])
    return Fit(
        accuracy=float(model.score(*parts[TEST])),
        choose_accuracy=float(score[0]),
        fit_accuracy=float(model.score(*parts[FIT])),
        chance=float(labels.unique(return_counts=True)[1].max() / len(labels)),
        l2=l2,
        converged=converged,
    )


def logistic_regression(
    x: Float[np.ndarray, "M D"], y: Int[np.ndarray, "M"], l2: float
) -> tuple[Any, bool]:
    """The scikit-learn model, standardisation included, at the minimum over weights of each class
    and free biases of mean cross-entropy + l2 / 2 * |weights|^2; and whether it got there."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Of two classes it has one vector, the difference of ours: half the penalty.
    strength = l2 * len(y) * (0.5 if len(np.unique(y)) == 2 else 1.0)
    solver = LogisticRegression(C=1 / strength, tol=1e-6, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge is said by the result
        model = make_pipeline(StandardScaler(), solver).fit(x, y)
    return model, bool(solver.n_iter_.max() < ITERATIONS)
