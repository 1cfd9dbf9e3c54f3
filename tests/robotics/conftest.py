"""A made-up data set and tiny world models on it, for the tests of this directory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from robotics.data.rlds.fake import fake_dataset
from robotics.data.windows import WindowDataset
from robotics.model.world_model import WorldModel
from robotics.training.build import compose_config
from robotics.training.fit import fit_world

sys.path.insert(0, str(Path(__file__).parent))  # what tests share, by name

TINY = (
    "spec=embedded",
    "dataset.image_size=[32,48]",
    "codec.channels=16",
    "codec.fit_windows=40",
    "model.width=24",
    "model.heads=2",
    "model.single=2",
    "log.wandb=disabled",
)

JOINT = (
    "spec=embedded",
    "dataset.image_size=[32,48]",
    "dataset.horizon=4",
    "dataset.video_offsets=[1,2,3,4,5]",
    "codec=image_and_video",
    "codec.image.patch=8",
    "codec.image.channels=16",
    "codec.video.patch=8",
    "codec.video.channels=12",
    "codec.fit_windows=40",
    "layout.rows=null",
    "model.width=24",
    "model.heads=2",
    "model.double=1",
    "model.single=2",
    "modes.joint.batch_size=3",
    'dataset.train_split="train[:4]"',
    'dataset.validation_split="train[4:]"',
    "trainer.total_steps=4",
    "trainer.validate_every=4",
    "trainer.validation_batches=1",
    "trainer.preview_every=4",
    "trainer.export_every=2",
    "trainer.compile=false",
    "trainer.precision=float32",
    "log.wandb=disabled",
)


@pytest.fixture(scope="session")
def rt1_directory(tmp_path_factory):
    """An RLDS data set of six made-up episodes."""
    return fake_dataset(tmp_path_factory.mktemp("rt1"), (12, 9, 15, 8, 11, 10))


@pytest.fixture(scope="session")
def tiny_overrides():
    """Hydra overrides that shrink every experiment to seconds."""
    return TINY


@pytest.fixture(scope="session")
def joint_overrides():
    """The same for the experiments with codecs of image and video in joint mode."""
    return JOINT


@pytest.fixture(scope="session")
def windows(rt1_directory):
    return WindowDataset(rt1_directory, (32, 48), progress=False, spec="embedded")


@pytest.fixture
def world(windows) -> WorldModel:
    """A tiny model in evaluation mode, with weights that are all alive."""
    return tiny_world(windows)


@pytest.fixture
def keypose_world(windows) -> WorldModel:
    """As `world`, with keyposes in its layout."""
    return tiny_world(windows, "layout.keypose=true")


def tiny_world(windows, *overrides: str) -> WorldModel:
    """`world` with hydra overrides of its own."""
    from omegaconf import OmegaConf

    config = compose_config([*TINY, *overrides, "data=x", "out=x"])
    plain = OmegaConf.to_container(config, resolve=True)
    torch.manual_seed(0)
    modes = tuple(plain["modes"])
    model = fit_world(windows, plain, modes)
    model.backbone.eval().requires_grad_(False)
    for parameter in model.backbone.parameters():  # the heads start at zero: nothing would show
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model
