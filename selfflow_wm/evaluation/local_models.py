"""Networks of transformers from directories on the disk: safetensors, nothing downloaded, no code.

The only place of the evaluation that imports transformers (extra `evaluation`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from selfflow_wm.codec.weights import file_digest


def open_directory(option: str, path: Path | str | None, kind: str) -> tuple[Path, dict[str, Any]]:
    """A model's directory and its config.json.

    option: such as --features audio=clap, for messages. kind: the model_type it should be of.

    Raises:
        ValueError: none given, nothing there, no safetensors, or a model of another kind.
    """
    if not path:
        raise ValueError(f"{option}: expected {option.rpartition('=')[2]}:DIR, got no directory")
    path = Path(path)
    config = read_settings(path, "config.json")
    if config.get("model_type") != kind:
        raise ValueError(
            f"{path}: expected a model of type {kind}, got {config.get('model_type')}; give "
            "another directory"
        )
    if not any(path.glob("*.safetensors")):
        raise ValueError(
            f"{path}: expected the weights as safetensors, got none; pickled weights are not read, "
            "convert them with save_pretrained(DIR, safe_serialization=True)"
        )
    return path, config


def read_settings(path: Path, *names: str) -> dict[str, Any]:
    """The first of the JSON files `names` that the directory has; ValueError for none."""
    for name in names:
        if (path / name).is_file():
            try:
                value = json.loads((path / name).read_text())
            except ValueError as error:
                raise ValueError(f"{path / name}: expected JSON, got {error}") from None
            if isinstance(value, dict):
                return value
    raise ValueError(
        f"{path}: expected a model's directory with {' or '.join(names)}, got none; put the "
        "model's files there, nothing is downloaded"
    )


def load(path: Path, name: str, parts: Sequence[str], device: torch.device | str) -> Any:
    """transformers' model class `name` from a directory, frozen, in evaluation mode, float32.

    parts: prefixes of the weights that have to be there; others, such as a classifier's, may lack.

    Raises:
        ValueError: transformers is not installed, weights of `parts` are missing (they would be
            random), or it can't read the directory.
    """
    transformers = _transformers()
    try:
        with _quiet(transformers):
            model, about = getattr(transformers, name).from_pretrained(
                str(path), local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    # It raises many kinds of errors for damaged directories, and others in each version.
    except Exception as error:
        raise ValueError(f"{path}: expected a model that loads as {name}, got {error}") from None
    wrong = [*about["missing_keys"], *(one[0] for one in about["mismatched_keys"])]
    wrong = [one for one in wrong if one.startswith(tuple(parts))]
    if wrong:
        raise ValueError(
            f"{path}: expected all weights of {name}, got {len(wrong)} missing or of other shapes, "
            f"such as {sorted(wrong)[0]}; is the directory complete?"
        )
    return model.float().to(device).eval().requires_grad_(False)


def load_preparation(path: Path, name: str) -> Any:
    """transformers' feature extractor class `name` with the settings of a directory."""
    transformers = _transformers()
    read_settings(path, "preprocessor_config.json", "processor_config.json")
    try:
        return getattr(transformers, name).from_pretrained(str(path), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected the settings of {name}, got {error}") from None


def digest(path: Path) -> str:
    """12 hex digits of the SHA-256 of a directory's weights: of the file, or of the digests of
    several in the order of their names."""
    digests = [file_digest(file) for file in sorted(path.glob("*.safetensors"))]
    if len(digests) > 1:
        digests = [hashlib.sha256("".join(digests).encode()).hexdigest()]
    return digests[0][:12]


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ValueError(
            "expected the package transformers for this extractor, found none; "
            'install it with: pip install "selfflow-wm[evaluation]"'
        ) from None
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without its progress bar and its report: what matters of that is an error of ours."""
    logging = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
