"""Linear probes on signals that were put there, and on none."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from selfflow_wm.checkpoints import fingerprint
from selfflow_wm.commands.probe import main
from selfflow_wm.intervals import wilson
from selfflow_wm.layout import NULL_BYTE, Batch, Layout, Modality
from selfflow_wm.model import Backbone
from selfflow_wm.probing import core
from selfflow_wm.probing.classifier import (
    TEST,
    _logistic,
    classify,
    split_samples,
)
from selfflow_wm.probing.features import extract
from selfflow_wm.probing.sources import LabelledLatents, load_model
from selfflow_wm.probing.table import Table
from selfflow_wm.training.model_files import SavedModel, save_model

LAYOUT = Layout((Modality("image", (1, 2, 2), 3),), text_length=4)
CLASSES = 3
BACKBONE = {"width": 24, "heads": 2, "double": 1, "single": 1}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(count=300, strength=2.0):
    """Latents whose first channel, in every token, is the label times `strength` plus noise."""
    labels = torch.randint(0, CLASSES, (count,), generator=seeded(1))
    latents = torch.randn(count, 4, 3, generator=seeded(2))
    latents[..., 0] += strength * (labels - 1)[:, None]
    return latents, labels


def in_batches(latents, labels, size=64):
    def batch(rows):
        return Batch(
            latents={"image": latents[rows]},
            valid={"image": torch.ones(len(latents[rows]), 4, dtype=torch.bool)},
            text_ids=torch.full((len(latents[rows]), 4), 7),
            text_mask=torch.ones(len(latents[rows]), 4, dtype=torch.bool),
        )

    slices = [slice(start, start + size) for start in range(0, len(labels), size)]
    return [(batch(rows), labels[rows]) for rows in slices]


class Layers:
    """A stand-in backbone: layer 1 has forgotten the input, 2 shows it, 3 hides it in a square."""

    layout, depth = LAYOUT, 3

    def __init__(self):
        self.calls = []

    def to(self, device):
        return self

    def __call__(self, noisy, levels, text_ids, text_mask, valid=None, feature_layer=None,
                 stop_at_feature=False, outputs=None):  # fmt: skip
        assert stop_at_feature and outputs == {"image"}
        self.calls.append((feature_layer, float(levels.levels[0, 0]), text_ids, text_mask))
        x = noisy["image"]
        return SimpleNamespace(features={1: torch.ones_like(x), 2: x, 3: -(x**2)}[feature_layer])


def run(model, batches, layers=None, levels=(0.0,), **options):
    return core.probe(model, batches, layers, levels, modality="image", **options)


# ---------------------------------------------------------------- the classifier


def test_splits_are_disjoint_complete_and_fixed():
    group = split_samples(100, 0.2, 0.3, seed=5)
    assert group.bincount().tolist() == [50, 20, 30]
    assert torch.equal(group, split_samples(100, 0.2, 0.3, seed=5))
    assert not torch.equal(group, split_samples(100, 0.2, 0.3, seed=6))
    for count, choose, test in ((100, 0.5, 0.5), (100, 0.0, 0.2), (2, 0.2, 0.2)):
        with pytest.raises(ValueError, match="expected"):
            split_samples(count, choose, test)


def test_logistic_regression_is_at_its_minimum():
    x = torch.randn(80, 4, generator=seeded(), dtype=torch.float64)
    y = torch.randint(0, CLASSES, (80,), generator=seeded(1))
    weight, converged = _logistic(x, y, 0.03, torch.zeros(CLASSES, 5, dtype=torch.float64))
    assert converged
    weight = weight.requires_grad_()
    logits = x @ weight[:, :-1].T + weight[:, -1]
    loss = F.cross_entropy(logits, y) + 0.015 * weight[:, :-1].square().sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    assert float(gradient.abs().max()) < 1e-4


def test_features_of_any_scale_and_constants():
    latents, labels = planted()
    x, group = latents.mean(1), split_samples(300)
    scaled = torch.cat([1e4 * x + 1e5, torch.full((300, 1), 0.1)], 1)
    plain, other = classify(x, labels, group), classify(scaled.double(), labels, group)
    assert plain.accuracy == pytest.approx(other.accuracy, abs=0.02)
    assert plain.converged and plain.accuracy > 0.9 > 0.5 > plain.chance


def test_a_penalty_is_chosen_where_samples_are_few():
    """100 samples of 80 features, a quarter of the labels wrong: unpenalised, it learns these."""
    true = torch.arange(1000) % 2
    x = torch.randn(1000, 80, generator=seeded(1)) + 0.25 * (2 * true[:, None] - 1)
    labels = torch.where(torch.rand(1000, generator=seeded(2)) < 0.25, 1 - true, true)
    group = split_samples(1000, 0.4, 0.5)
    free = classify(x, labels, group, penalties=(1e-6,))
    chosen = classify(x, labels, group, penalties=(1e-6, 1.0))
    assert chosen.l2 == 1.0 and free.fit_accuracy == 1.0
    assert chosen.accuracy > free.accuracy + 0.05


def test_the_test_split_chooses_nothing():
    """Labels that are right in the fit and choose splits only: the probe cannot know."""
    latents, labels = planted(600)
    group = split_samples(600)
    wrong = torch.where(group == TEST, (labels + 1) % CLASSES, labels)
    found = classify(latents.mean(1), wrong, group)
    assert found.choose_accuracy > 0.9 and found.accuracy < 0.1


def test_classifier_errors():
    x, y, group = torch.randn(30, 2), torch.arange(30) % 2, split_samples(30)
    with pytest.raises(ValueError, match="finite features"):
        classify(torch.full((30, 2), float("nan")), y, group)
    with pytest.raises(ValueError, match="two classes"):
        classify(x, torch.zeros(30, dtype=torch.long), group)
    with pytest.raises(ValueError, match="penalties > 0"):
        classify(x, y, group, penalties=(0.0,))


# ---------------------------------------------------------------- features


def test_noise_depends_on_the_sample_alone():
    latents, labels = planted(50)
    model = Layers()
    kinds = [
        extract(model, LAYOUT, in_batches(latents, labels, size), 2, 0.5, modality="image")
        for size in (50, 7)
    ]
    assert torch.equal(kinds[0].values, kinds[1].values)
    assert torch.equal(kinds[1].labels, labels)
    assert torch.equal(kinds[1].sample, torch.arange(50))
    zeros = in_batches(torch.zeros(50, 4, 3), labels)
    noise = [extract(model, LAYOUT, zeros, 2, t, modality="image").values for t in (0.25, 1.0)]
    torch.testing.assert_close(noise[0], 0.25 * noise[1])
    other = extract(model, LAYOUT, zeros, 2, 1.0, modality="image", seed=1).values
    both = torch.stack([noise[1].flatten(), other.flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.3, "another seed, another noise"


def test_captions_are_hidden_unless_asked_for():
    model, batches = Layers(), in_batches(*planted(10))
    extract(model, LAYOUT, batches, 2, 0.0, modality="image")
    extract(model, LAYOUT, batches, 2, 0.0, modality="image", captions=True)
    (_, _, ids, mask), (_, _, kept, kept_mask) = model.calls
    assert (ids == NULL_BYTE).all() and mask.sum(1).eq(1).all()
    assert (kept == 7).all() and kept_mask.all()


def test_pools():
    latents, labels = planted(5)
    batches = in_batches(latents, labels)
    batches[0][0].valid["image"][0, 1:] = False
    mean = extract(Layers(), LAYOUT, batches, 2, 0.0, modality="image")
    torch.testing.assert_close(mean.values[0], latents[0, 0])
    torch.testing.assert_close(mean.values[1:], latents[1:].mean(1))
    tokens = extract(Layers(), LAYOUT, batches, 2, 0.0, modality="image", pool="none")
    assert tokens.sample.tolist() == [0] + [i for i in range(1, 5) for _ in range(4)]
    assert torch.equal(tokens.values[0], latents[0, 0])
    assert torch.equal(tokens.values[1:5], latents[1])
    assert torch.equal(tokens.labels, labels[tokens.sample])


def test_feature_errors():
    batches = in_batches(*planted(10))
    for options, match in (
        ({"level": 1.5}, "noise level in"),
        ({"pool": "max"}, "pool among"),
        ({"modality": "audio"}, "modality 'audio'"),
        ({"seed": -1}, "seed"),
        ({"batches": []}, "at least one"),
        ({"batches": [(batches[0][0], torch.rand(10))]}, "integer labels"),
        ({"batches": [(batches[0][0], torch.zeros(9, dtype=torch.long))]}, "integer labels"),
    ):
        call = {"batches": batches, "level": 0.0, "modality": "image"} | options
        with pytest.raises(ValueError, match=match):
            extract(Layers(), LAYOUT, layer=2, **call)


# ---------------------------------------------------------------- the probe


def test_the_probe_finds_the_layer_and_the_level():
    rows = {
        (row.layer, row.level): row
        for row in run(Layers(), in_batches(*planted()), levels=(0.0, 0.5, 1.0))
    }
    assert len(rows) == 9
    assert rows[2, 0.0].accuracy > 0.9
    assert rows[2, 0.0].accuracy >= rows[2, 0.5].accuracy > 0.6
    assert rows[1, 0.0].low <= rows[1, 0.0].chance <= rows[1, 0.0].high, "layer 1 has nothing"
    assert 0.4 < rows[3, 0.0].accuracy < rows[2, 0.0].accuracy - 0.1, "the sign is lost in layer 3"
    for layer in (1, 2, 3):
        pure = rows[layer, 1.0]
        assert pure.low <= 1 / CLASSES <= pure.high, "pure noise knows nothing"


def test_shuffled_labels_are_at_chance():
    latents, labels = planted(600)
    shuffled = labels[torch.randperm(600, generator=seeded(9))]
    (row,) = run(Layers(), in_batches(latents, shuffled), layers=[2])
    assert row.low <= 1 / CLASSES <= row.high


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_intervals_count_samples(pool):
    (row,) = run(Layers(), in_batches(*planted()), layers=[2], levels=[0.5], pool=pool)
    assert row.test_samples == 60, "tokens of one sample are no independent trials"
    assert (row.low, row.high) == wilson(row.accuracy * 60, 60)
    assert row.low < row.accuracy < row.high


def test_a_backbone_with_random_weights():
    torch.manual_seed(0)
    model = Backbone(LAYOUT, **BACKBONE).eval()
    rows = run(model, in_batches(*planted()), levels=[0.0, 1.0])
    assert [(row.layer, row.level) for row in rows] == [(1, 0.0), (2, 0.0), (1, 1.0), (2, 1.0)]
    assert all(row.dimension == 24 and row.classes == CLASSES for row in rows)
    assert min(row.accuracy for row in rows[:2]) > 0.9
    assert all(row.low <= 1 / CLASSES <= row.high for row in rows[2:])


def test_probe_errors():
    batches = in_batches(*planted(20))
    with pytest.raises(ValueError, match="got an iterator"):
        run(Layers(), iter(batches))
    with pytest.raises(ValueError, match=r"layers in 1..3, got \[0, 4\]"):
        run(Layers(), batches, layers=[0, 1, 4])
    with pytest.raises(ValueError, match="layers and levels"):
        run(Layers(), batches, levels=[])


# ---------------------------------------------------------------- several checkpoints, on disk


def test_probes_are_resumed_and_not_repeated(tmp_path):
    models = {name: Layers() for name in "ab"}
    prints = {"a": "1", "b": "1"}
    batches = in_batches(*planted(60), size=60)

    def run_all(layers=(1, 2), levels=(0.0, 0.5), names="ab"):
        for model in models.values():
            model.calls.clear()
        table = Table(tmp_path, {"seed": 0, "penalties": (1.0,)})
        core.probe_checkpoints(
            {name: name for name in names}, batches, table, load=models.get,
            fingerprint=prints.get, layers=layers, levels=levels, modality="image",
        )  # fmt: skip
        return {name: [call[:2] for call in model.calls] for name, model in models.items()}

    first = [(1, 0.0), (2, 0.0)]
    assert run_all(levels=(0.0,), names="a") == {"a": first, "b": []}
    assert run_all() == {"a": [(1, 0.5), (2, 0.5)], "b": [*first, (1, 0.5), (2, 0.5)]}
    assert run_all() == {"a": [], "b": []}
    assert run_all(layers=(3,), levels=(0.0,)) == {"a": [(3, 0.0)], "b": [(3, 0.0)]}
    prints["b"] = "2"
    assert run_all(levels=(0.0,)) == {"a": [], "b": first}, "another checkpoint of this name"
    rows = json.loads((tmp_path / "probe.json").read_text())["rows"]
    assert sum(row["checkpoint"] == "b" for row in rows) == 2
    assert not list(tmp_path.glob(".*")), "no temporary files"
    with pytest.raises(ValueError, match="differ in seed"):
        Table(tmp_path, {"seed": 1, "penalties": (1.0,)})
    (tmp_path / "probe.json").write_text("{")
    with pytest.raises(ValueError, match="expected a table of probes"):
        Table(tmp_path, {})


def test_a_crash_keeps_the_rows_before_it(tmp_path):
    class Failing(Layers):
        def __call__(self, *args, feature_layer=None, **options):
            if feature_layer == 3:
                raise RuntimeError("out of memory")
            return super().__call__(*args, feature_layer=feature_layer, **options)

    def attempt(model):
        core.probe_checkpoints(
            {"a": "a"}, in_batches(*planted(60)), Table(tmp_path, {}), load=lambda path: model,
            fingerprint=str, modality="image",
        )  # fmt: skip

    with pytest.raises(RuntimeError, match="memory"):
        attempt(Failing())
    assert Table(tmp_path, {}).done("a") == {(1, 0.0), (2, 0.0)}
    attempt(Layers())
    assert Table(tmp_path, {}).done("a") == {(1, 0.0), (2, 0.0), (3, 0.0)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two checkpoints and a data file."""
    root = tmp_path_factory.mktemp("probe")
    for seed in (0, 1):
        torch.manual_seed(seed)
        model, path = Backbone(LAYOUT, **BACKBONE), root / f"model{seed}"
        save_model(path, SavedModel(model, BACKBONE))
    latents, labels = planted(120)
    save_file({"latents": latents, "labels": labels}, root / "data.safetensors")
    return root


def test_load_model(files):
    torch.manual_seed(0)
    expected = Backbone(LAYOUT, **BACKBONE).state_dict()
    model = load_model(files / "model0")
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert fingerprint(files / "model0") != fingerprint(files / "model1")


def test_labelled_latents(files):
    latents, labels = planted(120)
    data = LabelledLatents(files / "data.safetensors", "image", batch_size=50, limit=110)
    for _ in range(2):
        batches = list(data)
        assert [batch.batch_size for batch, _ in batches] == [50, 50, 10]
        assert torch.equal(torch.cat([label for _, label in batches]), labels[:110])
        assert torch.equal(torch.cat([b.latents["image"] for b, _ in batches]), latents[:110])
    batches[0][0].check(LAYOUT)


def test_command_line(files, tmp_path, capsys, monkeypatch):
    line = [
        "--checkpoint", f"first={files / 'model0'}", "--checkpoint", str(files / "model1"),
        "--data", str(files / "data.safetensors"), "--out", str(tmp_path), "--levels", "0,1",
    ]  # fmt: skip
    assert main(line) == 0
    shown = capsys.readouterr().out
    assert "first" in shown and "model1" in shown and "left" in shown
    held = json.loads((tmp_path / "probe.json").read_text())
    assert len(held["rows"]) == 2 * 2 * 2
    csv = (tmp_path / "probe.csv").read_text().splitlines()
    assert len(csv) == 9 and csv[0].startswith("checkpoint,fingerprint,layer,level,accuracy,low")
    assert (tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(core, "extract", None)  # calling it would fail
    assert main(line) == 0
    assert json.loads((tmp_path / "probe.json").read_text()) == held


BAD = {
    "no such data": (["--data", "nowhere"], "nothing there"),
    "no such checkpoint": (["--checkpoint", "x=nowhere"], "nothing there"),
    "twice": (["--checkpoint", "model0=elsewhere"], "distinct names"),
    "unnamed": (["--checkpoint", "=elsewhere"], "got '=elsewhere'; write a name"),
    "layer": (["--layers", "9"], "layers in 1..2, got [9]"),
    "level": (["--levels", "0,2"], "noise level in [0, 1], got 2.0"),
    "modality": (["--modality", "audio"], "'audio'"),
    "limit": (["--limit", "1"], "expected samples"),
    "device": (["--device", "toaster"], "'toaster'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(files, tmp_path, capsys, case):
    extra, match = BAD[case]
    line = ["--checkpoint", str(files / "model0"), "--data", str(files / "data.safetensors"),
            "--out", str(tmp_path), *extra]  # fmt: skip
    assert main(line) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and match in error and error.count("\n") == 1


@pytest.mark.parametrize("extra", [["--levels", "a"], ["--pool", "max"]])
def test_a_bad_command_is_one_clear_line(tmp_path, capsys, extra):
    with pytest.raises(SystemExit) as exit:
        main(["--checkpoint", "x", "--data", "x", "--out", str(tmp_path), *extra])
    assert exit.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"latents": torch.zeros(4, 2, 3)}, "labels"),
        ({"latents": torch.zeros(4, 2), "labels": torch.zeros(4, dtype=torch.long)}, "latents"),
        ({"latents": torch.zeros(4, 2, 3), "labels": torch.zeros(4)}, "integer labels"),
        ({"latents": torch.zeros(4, 2, 3), "labels": torch.zeros(5, dtype=torch.long)}, "labels"),
        (
            {"latents": torch.full((4, 2, 3), np.nan), "labels": torch.zeros(4, dtype=torch.long)},
            "finite",
        ),
    ],
)
def test_bad_data_files(tmp_path, tensors, match):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=match):
        LabelledLatents(tmp_path / "x.safetensors", "image")


def test_a_robots_network_can_be_probed_too():
    model = load_model("self_flow")
    assert "action" in model.layout and not any(p.requires_grad for p in model.parameters())
