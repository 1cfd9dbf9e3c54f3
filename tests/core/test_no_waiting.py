"""A sampling step waits for no GPU: checked operator by operator on a stand-in for one."""

from __future__ import annotations

import pytest
import stand_in
import torch
from small_networks import LAYOUT, backbone, seeded

from selfflow_wm.flow.sampler import sample
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import SiT

LABELS = Layout((Modality("image", (1, 2, 2), 4),), text_length=1, vocabulary=11)


def on_device(layout, names, size=2):
    batch = layout.fake_batch(size, names, generator=seeded())
    return batch.to(stand_in.DEVICE)


@pytest.mark.parametrize("solver", ["euler", "heun", "euler_maruyama"])
@pytest.mark.parametrize(
    ("given", "generate"),
    [
        (("image",), ("action",)),  # a policy
        (("image",), ("video", "action")),
        (("image", "action"), ("video",)),  # a world model
        (("image", "video"), ("action",)),  # inverse dynamics
        ((), ("image", "action")),  # parts that do not adjoin
    ],
)
def test_sampling_waits_for_nothing(given, generate, solver):
    options = {"vector_in": ("text", "image")} if given else {}
    model = backbone(**options).to(stand_in.DEVICE)
    batch = on_device(LAYOUT, (*given, *generate))
    with stand_in.no_waiting(draws=False):  # noise of the host, copied before the first step
        found = sample(
            model,
            LAYOUT,
            {name: batch.latents[name] for name in given},
            generate,
            batch.text_ids,
            batch.text_mask,
            steps=3,
            solver=solver,
            guidance=2.0,
            condition_level=0.1,
            valid=batch.valid,
            generator=[seeded(1), seeded(2)],
        )
    assert {name: x.device.type for name, x in found.items()} == dict.fromkeys(
        generate, stand_in.DEVICE
    )


def test_sampling_images_of_classes_waits_for_nothing():
    model = SiT(LABELS, width=24, depth=2, heads=2).to(stand_in.DEVICE)
    batch = on_device(LABELS, ("image",))
    with stand_in.no_waiting(draws=False):
        sample(
            model, LABELS, {}, ("image",), batch.text_ids, None, steps=2, guidance=1.5,
            generator=seeded(),
        )  # fmt: skip


def test_the_check_finds_a_network_that_waits():
    model = backbone().to(stand_in.DEVICE)
    batch = on_device(LAYOUT, ("image",))

    def waiting(noisy, *args, **options):
        if torch.isfinite(noisy["image"]).all():
            return model(noisy, *args, **options)
        return None

    with stand_in.no_waiting(draws=False), pytest.raises(stand_in.Waited):
        sample(waiting, LAYOUT, {}, ("image",), batch.text_ids, batch.text_mask, steps=1)
