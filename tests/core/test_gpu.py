"""On a CUDA GPU: attention's kernels, sampling that waits for nothing, samples from CUDA graphs."""

from __future__ import annotations

import shutil

import pytest
import torch
from small_networks import LAYOUT, backbone, seeded
from torch.nn.attention import SDPBackend, sdpa_kernel
from toy_runs import no_waiting

from selfflow_wm.flow.sampler import sample
from selfflow_wm.model.attention import attend, chosen_kernel
from selfflow_wm.sampling.captured import CapturedSampler

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
FLASH, EFFICIENT = SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION


def arguments(seed, size=2):
    batch = LAYOUT.fake_batch(size, ("image", "video", "action"), seeded(seed))
    ids = torch.randint(0, 256, (size, 6), generator=seeded(seed)).cuda()
    mask = (torch.arange(6) < torch.tensor([[6], [3]])[:size]).cuda()
    given = {"image": batch.latents["image"].cuda()}
    options = {
        "valid": {"image": batch.valid["image"].cuda()},
        "generator": [seeded(10 * seed + n) for n in range(size)],
        "condition_level": 0.1,
    }
    return (LAYOUT, given, ("video", "action"), ids, mask), options


def masks(tokens=96):
    keys = torch.rand(2, 1, 1, tokens, device="cuda") > 0.2
    return {"none": None, "keys": keys, "groups": keys.expand(-1, -1, tokens, -1).contiguous()}


@pytest.mark.parametrize("head_width", [64, 72, 128])
@pytest.mark.parametrize("pattern", ["none", "keys", "groups"])
def test_each_mask_runs_on_the_kernels_of_the_table(pattern, head_width):
    mask = masks()[pattern]
    q, k, v = torch.randn(
        3, 2, 96, 4, head_width, device="cuda", dtype=torch.bfloat16, requires_grad=True
    )
    with sdpa_kernel(SDPBackend.MATH):
        expected = attend(q, k, v, mask)
    for kernel in [EFFICIENT, *([FLASH] if mask is None else [])]:
        with sdpa_kernel(kernel):
            found = attend(q, k, v, mask)
            torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)
            found.float().square().mean().backward(retain_graph=True)
    if mask is not None:
        with sdpa_kernel(FLASH), pytest.raises(RuntimeError):
            attend(q, k, v, mask)
    heads_first = [x.transpose(1, 2) for x in (q, k, v)]
    assert chosen_kernel(*heads_first, mask) != "math"


@pytest.mark.parametrize("solver", ["euler", "heun", "euler_maruyama"])
def test_sampling_waits_for_nothing(solver):
    model = backbone(vector_in=("text",)).cuda()
    call, options = arguments(1)
    options |= {"steps": 3, "solver": solver, "guidance": 2.0}
    sample(model, *call, **options)  # tables of positions, kernels
    with no_waiting():
        found = sample(model, *call, **options)
    assert all(x.isfinite().all() for x in found.values())


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_captured_sample_is_the_eager_one(autocast, compile):
    if compile and not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler here, which torch.compile needs")
    model, captured = backbone().cuda(), CapturedSampler(compile=compile)
    worst = 2e-2 if autocast else 1e-4 if compile else 1e-5
    for guidance in (1.0, 2.0):
        for seed in (1, 2, 3):
            results = []
            for sampler in (sample, captured):
                call, options = arguments(seed)
                with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
                    results.append(sampler(model, *call, **options, steps=3, guidance=guidance))
            for name, expected in results[0].items():
                torch.testing.assert_close(results[1][name], expected, atol=worst, rtol=worst)
    assert len(captured._graphs) == 2


def test_a_replay_waits_for_nothing_and_sees_new_weights():
    model, captured = backbone().cuda(), CapturedSampler()
    for seed in (1, 2):
        call, options = arguments(seed)
        captured(model, *call, **options, steps=2)
    call, options = arguments(3)
    with no_waiting():
        before = captured(model, *call, **options, steps=2)
    with torch.no_grad():
        model.head["action"].bias.add_(1.0)
    (call, options), results = arguments(3), []
    results.append(captured(model, *call, **options, steps=2))
    call, options = arguments(3)
    results.append(sample(model, *call, **options, steps=2))
    torch.testing.assert_close(results[0]["action"], results[1]["action"], atol=1e-5, rtol=1e-5)
    assert not torch.equal(before["action"], results[0]["action"])
    assert len(captured._graphs) == 1
