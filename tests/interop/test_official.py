"""The authors' checkpoints: the same outputs, a round trip, and refusals."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from selfflow_wm.flow.noising import NoiseLevels
from selfflow_wm.flow.time_laws import UniformTime
from selfflow_wm.interop.official import (
    from_official_state_dict,
    load_official,
    load_official_projector,
    to_official_state_dict,
)
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model.sit import SiT
from selfflow_wm.objective import SelfFlow

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "official.npz"))
STATE = {
    name.removeprefix("weights/"): torch.from_numpy(value).float()
    for name, value in GOLDEN.items()
    if name.startswith("weights/")
}
NOISY, LABELS = torch.from_numpy(GOLDEN["noisy"]), torch.from_numpy(GOLDEN["labels"])[:, None]


def tiny(depth=3):
    layout = Layout((Modality("image", (1, 4, 4), 16),), text_length=1, vocabulary=11)
    return SiT(layout, width=24, depth=depth, heads=2)


def saved(path, content):
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_official(saved(tmp_path_factory.mktemp("official") / "model.pt", STATE), tiny())


def levels(kind):
    t = torch.from_numpy(GOLDEN[f"{kind}/t"])
    if kind == "uniform":
        return NoiseLevels.uniform(t, 16)
    return NoiseLevels(t, torch.arange(16).expand(3, 16))


@torch.no_grad()
def call(model, kind, **kwargs):
    return model({"image": NOISY}, levels(kind), LABELS, torch.ones_like(LABELS).bool(), **kwargs)


def close(got, expected):
    torch.testing.assert_close(got, torch.as_tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["uniform", "per_token"])
def test_outputs_and_features_are_those_of_the_authors_code(model, kind):
    layer = int(GOLDEN["layer"])
    assert np.abs(GOLDEN[f"{kind}/output"]).mean() > 0.1
    close(call(model, kind).velocity["image"], GOLDEN[f"{kind}/output"])
    output = call(model, kind, feature_layer=layer)
    close(output.velocity["image"], GOLDEN[f"{kind}/output"])
    close(output.features, GOLDEN[f"{kind}/features"])
    stopped = call(model, kind, feature_layer=layer, stop_at_feature=True)
    close(stopped.features, GOLDEN[f"{kind}/features"])


@pytest.mark.parametrize("flip", ["t_embedder.mlp.0.weight", "final_layer.linear.weight"])
def test_no_flip_can_be_left_out(model, flip):
    unflipped = from_official_state_dict(STATE)
    unflipped[flip] = STATE[flip][: len(unflipped[flip])]
    wrong = tiny()
    wrong.load_state_dict(unflipped)
    got = call(wrong.eval(), "per_token").velocity["image"]
    assert (got - torch.from_numpy(GOLDEN["per_token/output"])).abs().max() > 1e-2


def test_our_positions_are_theirs():
    close(tiny().pos_embed, STATE["pos_embed"])


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_plain_state_dict_loads(model, tmp_path, name):
    got = load_official(saved(tmp_path / name, STATE), tiny())
    close(call(got, "uniform").velocity["image"], call(model, "uniform").velocity["image"])


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_wrapped_and_prefixed_forms_load(model, tmp_path, wrapper):
    content = {wrapper: {f"module.{name}": value for name, value in STATE.items()}, "step": 3}
    got = load_official(saved(tmp_path / "wrapped.pt", content), tiny())
    for name, value in model.state_dict().items():
        assert torch.equal(got.state_dict()[name], value)


def test_round_trip_through_the_official_form(model):
    objective = SelfFlow(UniformTime(), width=24, projector_hidden=48)
    projector = objective.modules().state_dict()
    back = to_official_state_dict(model, projector)
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in STATE.items()}
    again = tiny()
    again.load_state_dict(from_official_state_dict(back))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=1e-6, rtol=1e-6)
    # Their unused rows (channels 4..7 of each pixel) are gone, the rest of the head came back.
    rows = STATE["final_layer.linear.weight"].unflatten(0, (2, 2, 8))[:, :, :4]
    assert torch.equal(back["final_layer.linear.weight"].unflatten(0, (2, 2, 8))[:, :, :4], rows)
    close(back["t_embedder.mlp.0.weight"], STATE["t_embedder.mlp.0.weight"])
    assert torch.equal(back["projector.linear2.bias"], projector["projector.2.bias"])


def test_without_learn_sigma_the_head_is_narrower(model, tmp_path):
    narrow = to_official_state_dict(model, learn_sigma=False)
    assert narrow["final_layer.linear.bias"].shape == (16,)
    got = load_official(saved(tmp_path / "narrow.pt", narrow), tiny())
    close(call(got, "uniform").velocity["image"], GOLDEN["uniform/output"])


def test_the_projector_goes_into_the_objective(tmp_path):
    path = saved(tmp_path / "model.pt", STATE)
    objective = SelfFlow(UniformTime(), width=24, projector_hidden=48)
    objective.modules().load_state_dict(load_official_projector(path))
    assert torch.equal(objective.projector[2].weight, STATE["projector.linear2.weight"])
    without = {k: v for k, v in STATE.items() if not k.startswith("projector")}
    load_official(saved(path, without), tiny())
    with pytest.raises(ValueError, match="projector"):
        load_official_projector(path)


def changed(**changes):
    state = dict(STATE)
    for name, value in changes.items():
        name = name.replace("__", ".")
        state.pop(name, None)
        if value is not None:
            state[name] = value
    return state


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (changed(blocks__2__attn__qkv__bias=None), r"Missing: blocks\.2\.attn\.qkv\.bias;"),
        (changed(extra=torch.zeros(1)), "unknown: extra;"),
        (changed(x_embedder__proj__bias=torch.zeros(25)), r"expected \(24,\), got \(25,\)"),
        (changed(projector__linear1__bias=None), r"Missing: projector\.linear1\.bias"),
        (changed(final_layer__linear__bias=torch.zeros(24)), "final_layer"),
    ],
)
def test_differing_keys_are_listed(tmp_path, state, match):
    with pytest.raises(ValueError, match=match):
        load_official(saved(tmp_path / "model.pt", state), tiny())


def test_a_tiny_file_is_not_the_released_model(tmp_path):
    with pytest.raises(ValueError, match=r"1152.*28.*\d+ more"):
        load_official(saved(tmp_path / "model.pt", STATE))


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_but_tensors_is_unpickled(tmp_path, capsys):
    path = tmp_path / "evil.pt"
    torch.save({"model": STATE, "hook": Evil()}, path)
    with pytest.raises(ValueError, match=r"evil\.pt"):
        load_official(path, tiny())
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"evil\.pt"):
        load_official(path, tiny())
    assert "executed" not in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"none\.pt"):
        load_official(tmp_path / "none.pt")
    with pytest.raises(ValueError, match=r"evil\.pt"):
        load_official(saved(path, {"epoch": 3, "x_embedder.proj.weight": torch.zeros(2)}), tiny())
