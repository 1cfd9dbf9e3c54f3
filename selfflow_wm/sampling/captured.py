"""Sampling from CUDA graphs: the whole loop over the steps as one launch.

A small network's sample takes a GPU less time than the host needs to ask for its thousands of
kernels. A graph is recorded once for each shape of the inputs and then asked for as one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from selfflow_wm.devices import to_device
from selfflow_wm.flow.sampler import sample, starting_noise
from selfflow_wm.layout import Layout

Tensors = dict[str, Tensor]
Work = Callable[[Tensors], Tensors]

WARM_UP = 3
"""Calls before the recording, in which kernels are compiled and chosen and buffers are made."""


class CudaGraph:
    """`work(inputs)` recorded, to be replayed on other numbers of the same shapes.

    work: only asks the GPU for kernels; draws nothing and reads nothing back. inputs: on one GPU.
    ValueError on another device.
    """

    def __init__(self, work: Work, inputs: Tensors) -> None:
        others = {str(x.device) for x in inputs.values() if x.device.type != "cuda"}
        if others:
            raise ValueError(
                f"captured sampling: expected tensors on a CUDA GPU, got {sorted(others)}; use "
                "selfflow_wm.flow.sampler.sample there"
            )
        self.inputs = {name: x.clone() for name, x in inputs.items()}
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                work(self.inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = work(self.inputs)

    def __call__(self, inputs: Tensors) -> Tensors:
        """`work(inputs)`, in tensors of the caller's own."""
        for name, fixed in self.inputs.items():
            fixed.copy_(inputs[name], non_blocking=True)
        self.graph.replay()
        return {name: x.clone() for name, x in self.outputs.items()}


class CapturedSampler:
    """Called as `flow.sampler.sample`, with its results; the first call of a shape records a graph.

    Everything that decides what the GPU is asked for is part of the shape: the network, the
    modalities, batch size, lengths of the captions, steps and other options, autocast. Noise is
    drawn outside, from the same generators in the same order. Weights may change in place, as by
    `load_state_dict`; a network that is moved or cast is another one.

    Args:
        compile: compile the blocks of every network it is called with (`model.compile()`).
        keep: graphs that are kept at once, each with its buffers; the one not used for longest
            goes.
        record: makes what is called with each new set of inputs.

    Raises:
        ValueError: tensors that are not on a CUDA GPU, a solver that draws noise on its way, or
            keep < 1.
    """

    def __init__(
        self,
        *,
        compile: bool = False,
        keep: int = 8,
        record: Callable[[Work, Tensors], Work] = CudaGraph,
    ) -> None:
        if keep < 1:
            raise ValueError(f"captured sampling: expected keep >= 1 graphs, got {keep}")
        self.compile, self.keep, self.record = compile, keep, record
        self._graphs: OrderedDict[Any, Work] = OrderedDict()
        self._networks: dict[int, Any] = {}  # kept alive, so that no other gets their numbers

    @torch.no_grad()
    def __call__(
        self,
        model: Any,
        layout: Layout,
        latents_given: Mapping[str, Tensor],
        generate: Sequence[str],
        text_ids: Tensor,
        text_mask: Tensor | None,
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        noise: Mapping[str, Tensor] | None = None,
        valid: Mapping[str, Tensor] | None = None,
        condition_level: float | Mapping[str, float] = 0.0,
        **options: Any,
    ) -> Tensors:
        """See `flow.sampler.sample`."""
        if options.get("solver") == "euler_maruyama":
            raise ValueError(
                "captured sampling: expected a solver of the ODE (euler, heun), got "
                "euler_maruyama, which draws noise at every step; use "
                "selfflow_wm.flow.sampler.sample for it"
            )
        self._know(model)
        start = starting_noise(
            layout, latents_given, generate, len(text_ids),
            generator=generator, noise=noise, condition_level=condition_level,
        )  # fmt: skip
        groups = {"given": latents_given, "noise": start, "valid": valid or {}}
        inputs = {
            f"{group}/{name}": to_device(x, text_ids.device)
            for group, tensors in groups.items()
            for name, x in tensors.items()
        } | {"text_ids": text_ids}
        if text_mask is not None:
            inputs["text_mask"] = text_mask
        levels = (
            tuple(sorted(condition_level.items()))
            if isinstance(condition_level, Mapping)
            else condition_level
        )
        device = text_ids.device.type
        autocast = (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        key = (
            id(model),
            next(model.parameters()).data_ptr(),
            tuple(generate),
            levels,
            tuple(sorted(options.items())),
            autocast,
            tuple((name, x.shape, x.dtype, x.device) for name, x in inputs.items()),
        )

        def work(tensors: Tensors) -> Tensors:
            # The casts of the weights that autocast keeps would not outlive the recording.
            with torch.autocast(device, autocast[1], enabled=autocast[0], cache_enabled=False):
                return sample(
                    model,
                    layout,
                    _group(tensors, "given"),
                    generate,
                    tensors["text_ids"],
                    tensors.get("text_mask"),
                    noise=_group(tensors, "noise"),
                    valid=_group(tensors, "valid") or None,
                    condition_level=condition_level,
                    **options,
                )

        if key not in self._graphs:
            while len(self._graphs) >= self.keep:
                self._graphs.popitem(last=False)
            self._graphs[key] = self.record(work, inputs)
        self._graphs.move_to_end(key)
        return self._graphs[key](inputs)

    def _know(self, model: Any) -> None:
        if id(model) not in self._networks:
            self._networks[id(model)] = model
            if self.compile:
                model.compile()


def _group(tensors: Tensors, group: str) -> Tensors:
    prefix = f"{group}/"
    return {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
