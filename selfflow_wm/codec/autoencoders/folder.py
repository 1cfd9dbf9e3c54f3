"""An autoencoder of diffusers in a local folder."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from selfflow_wm.codec.base import Codec
from selfflow_wm.codec.weights import compute_dtype, file_digest, find_weights


class Autoencoder(Codec):
    """A diffusers autoencoder from a local folder (config.json, *.safetensors), frozen."""

    network_class: ClassVar[str]
    shift: Any
    scale: Any

    def _open(
        self, weights: str | os.PathLike[str], dtype: str, weights_sha256: str | None
    ) -> None:
        """Load `self.network` and its `settings`; ValueError for absent or other weights."""
        folder = find_weights(weights, "config.json")
        settings = json.loads((folder / "config.json").read_text())
        found = settings.get("_class_name", self.network_class)
        if found != self.network_class:
            raise ValueError(
                f"{folder}: expected weights of {self.network_class}, got {found}; "
                f"{self.kind} is another autoencoder"
            )
        self.weights, self.dtype = str(weights), dtype
        self.weights_sha256 = _folder_digest(folder, settings)
        if weights_sha256 not in (None, self.weights_sha256):
            raise ValueError(
                f"{folder}: expected the weights {str(weights_sha256)[:12]} that the codec was "
                f"made with, got {self.weights_sha256[:12]}; put those into the folder"
            )
        network = _diffusers_class(self.network_class)
        self._type = compute_dtype(dtype)
        # Safetensors only, so nothing is unpickled; and never from the network.
        self.network = network.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True
        )
        self.network = self.network.to(dtype=self._type).eval().requires_grad_(False)
        self.settings = self.network.config

    def _moved(self, device: torch.device) -> Any:
        if self.network.device != device:
            self.network.to(device)
        return self.network

    def _normalize(self, tokens: Tensor) -> Tensor:
        """Raw tokens (..., C) to those a model sees."""
        return (tokens - self.shift.to(tokens.device)) / self.scale.to(tokens.device)

    def _restore(self, tokens: Tensor) -> Tensor:
        """The inverse of `_normalize`."""
        return tokens * self.scale.to(tokens.device) + self.shift.to(tokens.device)

    def identity(self) -> dict[str, Any]:
        # Where the weights lie does not matter, what they are does.
        return {name: value for name, value in self.config.items() if name != "weights"}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        return cls.from_config(config)


def _diffusers_class(name: str) -> Any:
    try:
        return getattr(importlib.import_module("diffusers"), name)
    except (ImportError, AttributeError):
        raise ValueError(
            f"expected diffusers with {name}, which is not installed; "
            "pip install 'selfflow-wm[diffusers]'"
        ) from None


def _folder_digest(folder: Path, settings: Mapping[str, Any]) -> str:
    """sha256 of the settings (without diffusers' own notes, _*) and of every weights file."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"{folder}: expected weights as *.safetensors, got none; put them there yourself, "
            "nothing is downloaded"
        )
    known = {name: value for name, value in settings.items() if not name.startswith("_")}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for file in files:
        digest.update(f"|{file.name}|{file_digest(file)}".encode())
    return digest.hexdigest()
