"""REPA: what the frozen encoders give, and what learns from them."""

import sys
from types import SimpleNamespace

import pytest
import torch
from small_networks import LAYOUT, Recorder, backbone, batch, seeded

from selfflow_wm.flow.time_laws import LogitNormalTime
from selfflow_wm.objective import REPA
from selfflow_wm.objective.encoders import DINOv2, RandomProjection

LAW = LogitNormalTime()


def test_the_random_encoder_is_fixed_and_reads_clean_tokens():
    made = batch()
    features = RandomProjection(7, seed=1)(LAYOUT, made)
    assert set(features) == {"video", "action"} and features["video"].shape == (4, 4, 7)
    again = RandomProjection(7, seed=1)(LAYOUT, made)
    assert all(torch.equal(features[k], again[k]) for k in features)
    other = RandomProjection(7, seed=2)(LAYOUT, made)
    assert not torch.equal(features["video"], other["video"])
    made.latents["video"][:, 2] += 1.0
    moved = RandomProjection(7, seed=1)(LAYOUT, made)["video"] != features["video"]
    assert moved[:, 2].all() and not moved[:, [0, 1, 3]].any()


def test_repa_trains_projector_and_student_and_not_the_encoder():
    student, objective = backbone(), REPA(LAW, width=24, encoder=RandomProjection(7))
    made = batch()
    for latents in made.latents.values():
        latents.requires_grad_(True)
    out = objective.loss(student, None, made, seeded())
    out.parts["representation"].backward()
    assert all(p.grad.abs().sum() > 0 for p in objective.modules().parameters())
    assert student.double_blocks[0].mlp["main"].up.weight.grad.abs().sum() > 0
    assert not any(w.requires_grad for w in objective.encoder._weights.values())
    # The encoder is no part of what is saved or optimised.
    assert {n.split(".")[0] for n, _ in objective.modules().named_parameters()} == {"projector"}
    # Repeated steps raise the cosine.
    optimiser = torch.optim.Adam([*student.parameters(), *objective.modules().parameters()], 1e-2)
    scores = []
    for _ in range(12):
        optimiser.zero_grad()
        out = objective.loss(student, None, batch(16), seeded())
        out.total.backward()
        optimiser.step()
        scores.append(-float(out.terms["rep"]))
    assert scores[-1] > scores[0] + 0.2


class OnlyVideo(RandomProjection):
    def __call__(self, layout, made):
        features = super().__call__(layout, made)
        return {name: features[name] for name in features if name == "video"}


def test_repa_covers_what_the_encoder_knows():
    student, made = backbone(), batch()
    objective = REPA(LAW, width=24, encoder=OnlyVideo(7))
    recorder = Recorder(student)
    out = objective.loss(recorder, None, made, seeded())
    projected = objective.projector(recorder.calls[0][2].features)[:, :4]
    target = OnlyVideo(7)(LAYOUT, made)["video"]
    expected = -torch.cosine_similarity(projected, target, dim=-1).mean()
    torch.testing.assert_close(out.terms["rep"], expected.detach())
    actions = LAYOUT.fake_batch(4, generator=seeded(), given=("image", "video"))
    plain = objective.loss(student, None, actions, seeded())
    assert "rep" not in plain.terms and set(plain.parts) == {"generation"}


def test_an_encoder_of_the_wrong_shape_is_refused():
    objective = REPA(LAW, width=24, encoder=RandomProjection(7))
    objective.encoder = lambda layout, made: {"video": torch.zeros(4, 3, 7)}
    objective.encoder.width = 7
    with pytest.raises(ValueError, match="video"):
        objective.loss(backbone(), None, batch(), seeded())


class FakeDINOv2(torch.nn.Module):
    """Mean colour of each 14-pixel patch, after a class token, in DINOv2's shapes."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(hidden_size=6, patch_size=14)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, pixel_values):
        patches = torch.nn.functional.avg_pool2d(pixel_values, 14).flatten(2).mT
        hidden = torch.cat([patches, patches], -1) * self.weight
        return SimpleNamespace(last_hidden_state=torch.cat([hidden[:, :1] * 0, hidden], 1))


def test_dinov2_gives_each_token_its_patch(tmp_path, monkeypatch):
    loader = SimpleNamespace(from_pretrained=lambda path, local_files_only: FakeDINOv2())
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoModel=loader))
    (tmp_path / "config.json").write_text("{}")
    encoder = DINOv2(tmp_path, width=6)
    with pytest.raises(ValueError, match="bind"):
        encoder(LAYOUT, batch())
    frames = torch.zeros(4, 2, 8, 16, 3, dtype=torch.uint8)
    frames[:, 1, :, 8:] = 255  # the right token of the second frame
    encoder.bind(lambda made, name: frames if name == "video" else None)
    features = encoder(LAYOUT, batch())
    assert set(features) == {"video"} and features["video"].shape == (4, 4, 6)
    bright = features["video"][..., 0]
    assert (bright.argmax(1) == 3).all() and (bright[:, :2] < 0).all()
    assert not features["video"].requires_grad
    objective = REPA(LAW, width=24, encoder=encoder)
    assert objective.loss(backbone(), None, batch(), seeded()).terms["rep"].isfinite()
    with pytest.raises(ValueError, match=r"\b768\b.*\b6\b"):
        DINOv2(tmp_path)
    frames = frames[:, :1]
    with pytest.raises(ValueError, match="2 frames.*got 1"):
        encoder(LAYOUT, batch())


@pytest.mark.extra("repa")
def test_a_dinov2_of_transformers_gives_its_own_patch_features(tmp_path):
    import transformers

    config = transformers.Dinov2Config(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=28
    )
    model = transformers.Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    encoder = DINOv2(tmp_path, width=12)
    frames = torch.randint(0, 256, (4, 2, 14, 28, 3), dtype=torch.uint8)  # one patch a token
    encoder.bind(lambda made, name: frames if name == "video" else None)
    features = encoder(LAYOUT, batch())["video"]
    mean, std = torch.tensor(DINOv2.MEAN), torch.tensor(DINOv2.STD)
    pictures = ((frames.flatten(0, 1) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = model(pixel_values=pictures).last_hidden_state[:, 1:]
    torch.testing.assert_close(features, wanted.reshape(4, 4, 12), atol=1e-5, rtol=1e-4)


def test_missing_weights_and_packages_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"objective\.encoder\.path"):
        DINOv2(None)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install .selfflow-wm\[repa\]"):
        DINOv2(tmp_path)
