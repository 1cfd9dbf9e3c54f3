"""The reader of signs for a world: shipped, given, or trained once beside the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfflow_wm.data.toy import ToyConfig
from selfflow_wm.metrics.recogniser import (
    Recogniser,
    ceiling,
    load_recogniser,
    save_recogniser,
    train,
)
from selfflow_wm.progress import Progress

STEPS = 4000
"""Of the optimiser, as `metrics.train_recogniser` takes by default."""


def shipped(config: ToyConfig) -> Path:
    """Where a recogniser for pictures of this size lies in the package, if one does: the output of
    python -m selfflow_wm.metrics.train_recogniser --size H W, whose recogniser.json has the SHA-256
    of the weights, the world it was trained on and its ceiling."""
    import selfflow_wm.metrics

    folder = Path(selfflow_wm.metrics.__path__[0]) / "weights"
    return folder / f"recogniser_{config.height}x{config.width}"


def find_recogniser(
    config: ToyConfig, given: Path | None, out: Path
) -> tuple[Recogniser, str, dict[str, Any]]:
    """The network, its name, and its recogniser.json.

    `given`, or the one shipped for this size, or `out`/recogniser, which is trained first if it is
    not there. ValueError for one of another height.
    """
    path = given or shipped(config)
    if given is None and not path.is_dir():
        path = out / "recogniser"
        if not path.is_dir():
            _train(config, path)
    model, known = load_recogniser(path)
    if model.height != config.height:
        raise ValueError(
            f"{path}: expected a recogniser of pictures {config.height} pixels high, got one of "
            f"{model.height}; train one with python -m selfflow_wm.metrics.train_recogniser "
            f"--size {config.height} {config.width}"
        )
    return model, f"toy recogniser {known['height']} px {known['sha256'][:12]}", known


def _train(config: ToyConfig, path: Path) -> None:
    print(
        f"no recogniser for {config.height}x{config.width} pixels is shipped: training one, a few "
        "minutes, once",
        flush=True,
    )
    # All words and fonts of its size, so that it serves every world of that size.
    whole = ToyConfig(config.height, config.width)
    model = train_with_progress(whole, STEPS)
    save_recogniser(path, model, whole, ceiling(model, whole, 1000))


def train_with_progress(config: ToyConfig, steps: int, batch: int = 32) -> Recogniser:
    """`metrics.recogniser.train` with a progress bar, and the loss at every twentieth of it."""
    with Progress(steps, description="training the recogniser") as progress:

        def report(step: int, value: float) -> None:
            if step % max(1, steps // 20) == 0:
                progress.report(step, {"loss": value})
            else:
                progress.advance(step)

        return train(config, steps, batch, report=report)
