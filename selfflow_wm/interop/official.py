"""The authors' Self-Flow checkpoints (SiT-XL/2 on ImageNet 256) as our `SiT`, and back.

The released network differs from ours in four ways, all of which go into the weights, so that
the loaded model is an ordinary `SiT` which any objective, sampler and checkpoint can take:

- It embeds 1 - t. With angles f * (1 - t), cos and sin are a reflection of cos(f t), sin(f t)
  by the fixed angle f, so the first matrix of the time embedding absorbs it (in float64,
  rounded once to float32). The reflection is its own inverse.
- Its output is the negated velocity before the authors' wrapper negates it again: the rows of
  the last matrix change sign (exact).
- Its output token is ordered (row, column, channel), while tokens go in as (channel, row,
  column): the rows of the last matrix are permuted (exact).
- It predicts as many further values (learn_sigma) that its forward pass throws away: those rows
  are dropped. `to_official_state_dict` fills them with zeros.

Facts from the public inference code `black-forest-labs/Self-Flow` (Apache-2.0).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from selfflow_wm.model.embed import frequencies
from selfflow_wm.model.sit import SiT, sit_xl
from selfflow_wm.training.checkpoint import load_tensors

State = dict[str, Tensor]

_TIME = "t_embedder.mlp.0.weight"
_HEAD = ("final_layer.linear.weight", "final_layer.linear.bias")
# Theirs and what `SelfFlow.modules()` calls it; not used at inference.
_PROJECTOR = {
    f"projector.linear{theirs}.{kind}": f"projector.{ours}.{kind}"
    for theirs, ours in ((1, 0), (2, 2))
    for kind in ("weight", "bias")
}


def load_official(path: Path | str, model: SiT | None = None, *, patch: int = 2) -> SiT:
    """The authors' checkpoint as a `SiT` in our convention, float32, on the CPU, in eval mode.

    Args:
        path: `selfflow_imagenet256.pt` or the same tensors as .safetensors; the state dict may
            lie under "model" or "state_dict" and its keys may begin with "module.".
        model: where to load it; SiT-XL/2 for `imagenet_layout` by default.
        patch: side of a patch in latents; a token has patch^2 * latent channels values.

    Nothing is unpickled but tensors. ValueError names every kind of difference when the file
    does not hold exactly this network (the projector may be absent as a whole).
    """
    state = read_state_dict(path)
    assign = model is None
    if model is None:
        with torch.device("meta"):  # the weights are about to be replaced: do not draw them
            model = sit_xl()
    _check(state, model, patch, path)
    model.load_state_dict(from_official_state_dict(state, patch=patch), strict=True, assign=assign)
    return model.eval()


def load_official_projector(path: Path | str) -> State:
    """The trained projector, to be loaded into `SelfFlow(projector_hidden=2 * width).modules()`.

    ValueError when the file lacks it.
    """
    state = read_state_dict(path)
    if missing := sorted(set(_PROJECTOR) - set(state)):
        raise ValueError(
            f"{path}: expected the projector {sorted(_PROJECTOR)}, got a file without {missing}; "
            "start the projector from scratch"
        )
    return {ours: state[theirs].float() for theirs, ours in _PROJECTOR.items()}


def read_state_dict(path: Path | str) -> State:
    """The tensors in a .safetensors or PyTorch file under their names there, wrappers taken off.

    Nothing is unpickled but tensors; ValueError for a file that holds more or no state dict.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        content = load_tensors(path)
    else:
        content = _torch_load(path)
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a state dict, got {type(content).__name__}")
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    if strange := sorted(name for name, value in state.items() if not isinstance(value, Tensor)):
        raise ValueError(
            f"{path}: expected a state dict of tensors (plain, or under 'model' or 'state_dict'), "
            f"got other values at {strange[:8]}; save the state dict alone"
        )
    return state


def from_official_state_dict(state: Mapping[str, Tensor], *, patch: int = 2) -> State:
    """A state dict under official names to one of our `SiT`, float32; the projector is left out."""
    tensors = {
        name: value.detach().float() for name, value in state.items() if name not in _PROJECTOR
    }
    tensors[_TIME] = _reflect_time(tensors[_TIME])
    channels = tensors["x_embedder.proj.weight"].shape[1]
    for name in _HEAD:
        rows = rearrange(tensors[name], "(p q c) ... -> (c p q) ...", p=patch, q=patch)
        tensors[name] = -rows[:channels]
    return tensors


def to_official_state_dict(
    model: SiT,
    projector: Mapping[str, Tensor] | None = None,
    *,
    patch: int = 2,
    learn_sigma: bool = True,
) -> State:
    """The inverse of `from_official_state_dict`: a state dict the authors' code can load.

    Args:
        projector: the state dict of `SelfFlow(projector_hidden=2 * width).modules()`, if any.
        learn_sigma: add the rows that their forward pass drops, as zeros.
    """
    tensors = {name: value.detach().float().clone() for name, value in model.state_dict().items()}
    tensors[_TIME] = _reflect_time(tensors[_TIME])
    for name in _HEAD:
        rows = -tensors[name]
        if learn_sigma:
            rows = torch.cat([rows, torch.zeros_like(rows)])
        tensors[name] = rearrange(rows, "(c p q) ... -> (p q c) ...", p=patch, q=patch)
    if projector is None:
        return tensors
    if missing := sorted(set(_PROJECTOR.values()) - set(projector)):
        raise ValueError(
            f"expected a projector with {sorted(_PROJECTOR.values())}, got one without {missing}; "
            "pass objective.modules().state_dict()"
        )
    return tensors | {
        theirs: projector[ours].detach().float() for theirs, ours in _PROJECTOR.items()
    }


def _reflect_time(weight: Float[Tensor, "D 256"]) -> Float[Tensor, "D 256"]:
    """`weight` on the sinusoids of 1 - t as a matrix on those of t, and the reverse."""
    # cos(f - a) = cos f cos a + sin f sin a;  sin(f - a) = sin f cos a - cos f sin a.
    half = weight.shape[1] // 2
    angles = frequencies(weight.shape[1], device=weight.device).double()
    cos, sin = angles.cos(), angles.sin()
    on_cos, on_sin = weight.double().split(half, dim=1)
    return torch.cat([on_cos * cos + on_sin * sin, on_cos * sin - on_sin * cos], 1).float()


def _torch_load(path: Path) -> object:
    if not path.is_file():
        raise ValueError(f"{path}: expected a checkpoint file, got nothing there; check the path")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path}: expected a file of tensors alone, got one that cannot be read safely "
            f"({str(error).splitlines()[0]}); download it again, or convert it to .safetensors "
            "where you trust it"
        ) from None


def _check(state: Mapping[str, Tensor], model: SiT, patch: int, path: Path | str) -> None:
    """ValueError unless `state` holds what the authors' network of this size would hold."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    channels = expected["x_embedder.proj.weight"][1]
    if channels % patch**2:
        raise ValueError(
            f"expected {channels} token values to divide by patch^2, got patch {patch}"
        )
    width = model.width
    shapes = ((2 * width, width), (2 * width,), (width, 2 * width), (width,))
    if set(_PROJECTOR) & set(state):
        expected |= dict(zip(_PROJECTOR, shapes, strict=True))
    got = {name: tuple(value.shape) for name, value in state.items()}
    for name in _HEAD:  # learn_sigma doubles the rows
        if got.get(name) == (2 * channels, *expected[name][1:]):
            expected[name] = got[name]
    missing, unknown = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    others = [
        f"{name} (expected {expected[name]}, got {got[name]})"
        for name in sorted(expected.keys() & got.keys())
        if expected[name] != got[name]
    ]
    if missing or unknown or others:
        raise ValueError(
            f"{path}: expected the weights of a SiT of width {width} and depth {model.depth}. "
            f"Missing: {_few(missing)}; unknown: {_few(unknown)}; other shapes: {_few(others)}. "
            "Pass a model of the checkpoint's size, or get the released selfflow_imagenet256.pt"
        )


def _few(items: list[str], count: int = 8) -> str:
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(items[:count]) + more if items else "none"
