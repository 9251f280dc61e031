"""What images cost, counted and measured: the counts are those of theory, and a benchmark notices what is another computation."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from toyscore.cli.summary import costs
from toyscore.models import NCSN, CompactNCSN
from toyscore.noise import geometric

ROOT = Path(__file__).parent.parent
SIGMAS = geometric(1.0, 0.01, 10)


def loaded(path):
    """A script as a module; as a name of its own, since others are called alike."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images():
    return loaded(ROOT / "benchmarks" / "images.py")


def total(found):
    return sum(c.parameters for c in found), sum(c.macs for c in found), sum(c.kept for c in found)


@pytest.fixture(scope="module")
def script():
    return loaded(ROOT / "docs" / "make_scaling.py")


def test_scaling_is_current(script):
    assert script.main(["--check"]) == 0


def test_a_stale_document_is_noticed(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "TARGET", tmp_path / "scaling.md")
    monkeypatch.setattr(script, "text", lambda: "right")
    assert script.main(["--check"]) == 1
    (tmp_path / "scaling.md").write_text("wrong")
    assert script.main(["--check"]) == 1
    assert "make scaling" in capsys.readouterr().out
    (tmp_path / "scaling.md").write_text("right")
    assert script.main(["--check"]) == 0


def test_costs_of_a_network_counted_by_hand():
    """Convolutions of C_in C_out k² H W multiply-adds; kept is what their derivatives need: inputs, and the output of the ELU."""

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = nn.Conv2d(3, 8, 5, padding=2)
            self.halved = nn.Conv2d(8, 4, 3, padding=1, stride=2, bias=False)
            self.linear = nn.Linear(4 * 6 * 6, 10)

        def forward(self, x, sigma):
            h = self.halved(nn.functional.elu(self.wide(x)))
            return self.linear(h.flatten(1)) / sigma

    found = {c.group: c for c in costs(Small(), torch.full((1, 3, 12, 12), 0.5), 0.1)}
    assert [found[name].parameters for name in ("wide", "halved", "linear")] == [
        3 * 8 * 25 + 8,
        8 * 4 * 9,
        144 * 10 + 10,
    ]
    macs = [3 * 8 * 25 * 12 * 12, 8 * 4 * 9 * 6 * 6, 144 * 10]
    assert [found[name].macs for name in ("wide", "halved", "linear")] == macs
    assert total(found.values())[1] == sum(macs)
    numbers = 3 * 12 * 12 + 8 * 12 * 12 + 4 * 6 * 6  # what enters each layer
    before = 8 * 12 * 12  # the ELU may keep what enters it, too
    assert 4 * numbers <= total(found.values())[2] <= 4 * (numbers + before) + 64


@pytest.mark.parametrize(
    ("network", "event", "parameters", "macs"),
    [
        (lambda: CompactNCSN(sigmas=SIGMAS), (3, 32, 32), 3_176_067, 3.1e9),
        (lambda: NCSN(1, 28, 64, SIGMAS), (1, 28, 28), 7_638_657, 1.9e9),
        (lambda: NCSN(3, 32, 128, SIGMAS), (3, 32, 32), 30_117_635, 9.9e9),
    ],
    ids=["compact", "NCSN, MNIST", "NCSN, CIFAR-10"],
)
def test_costs_of_the_published_networks(network, event, parameters, macs):
    """Parameters to the last one; groups add up to the network; activations grow as the images."""
    network = network()
    found = costs(network, torch.full((1, *event), 0.5), 0.01)
    assert total(found)[0] == parameters == sum(p.numel() for p in network.parameters())
    assert total(found)[1] == pytest.approx(macs, rel=0.02)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    least = sum(m.in_channels * m.weight[0, 0].numel() * m.out_channels for m in convolutions) * (event[1] // 2) ** 2
    assert least < total(found)[1] <= 4 * least  # between all of them at half and all at full resolution
    pixels = event[1] * event[2]
    assert 10 * pixels < total(found)[2] / 4 < 1000 * pixels * convolutions[0].out_channels


def test_the_document_has_the_costs_of_every_configuration():
    rows = {}
    for line in (ROOT / "docs" / "scaling.md").read_text().splitlines():
        cells = [cell.strip("` ") for cell in line.strip("|").split("|")]
        if len(cells) == 10 and cells[1][:1].isdigit():
            rows[cells[0]] = [cell.replace(",", "") for cell in cells[1:]]
    assert rows.keys() == {"digits", "mnist5k", "cifar10", "celeba", "song2019"}
    parameters, macs, weights, adam, average, *_, images, flop, hours = rows["cifar10"]
    assert int(parameters) == 30_117_635
    assert [float(v) for v in (weights, adam, average)] == pytest.approx([240.9, 240.9, 120.5], abs=0.06)
    assert float(images) == pytest.approx(128 * 200_001 / 1e6, rel=0.01)
    assert float(flop) == pytest.approx(6 * int(macs) * 128 * 200_001 / 1e18, rel=0.05)
    assert float(hours) == pytest.approx(6 * int(macs) * 128 * 200_001 / (0.3 * 989e12) / 3600, rel=0.05)
    assert rows["song2019"][4] == "-"


@pytest.mark.parametrize("case", ["mnist", pytest.param("cifar10", marks=pytest.mark.slow)])
def test_the_images_benchmark_runs_and_its_losses_agree(images, case, capsys):
    assert images.main(["--quick", "--device", "cpu", "--only", case]) == 0
    said = capsys.readouterr().out
    assert "agree with the plain loop's" in said
    assert said.count("+ bfloat16") == 1
    assert "compile" not in said


@pytest.mark.parametrize(
    "key", ["lr", "layout", *(pytest.param(key, marks=pytest.mark.slow) for key in ("seed", "noise"))]
)
def test_a_variant_that_computes_something_else_is_reported(images, key, capsys, monkeypatch):
    """Another batch, rate, law of noise or network: each is found, and named."""
    right = images.fit

    def wrong(model, data, loss, **options):
        if key == "noise":
            loss = images.build_loss(images.Config().noise.__class__(sigma_max=1.0, sigma_min=0.01, n_levels=2))
        if key in options:
            options[key] = 2 * options[key] + (key == "seed")
        return right(model, data, loss, **options)

    def altered(network, *, channels_last=False, compile=False):
        with torch.no_grad():
            network.body.end_conv.weight.mul_(1.01 if channels_last else 1.0)
        return network

    if key == "layout":
        monkeypatch.setattr(images, "quicken", altered)
    else:
        monkeypatch.setattr(images, "fit", wrong)
    monkeypatch.setattr(images, "VARIANTS", images.VARIANTS[:3])
    assert images.main(["--quick", "--device", "cpu", "--only", "mnist"]) == 1
    said = capsys.readouterr().out
    assert "mnist, + channels_last: a loss differs" in said
    assert ("mnist, fit (Adam fused): a loss differs" in said) == (key != "layout")


def test_compiling_is_timed_apart_and_sampling_left_out_on_a_processor(images, monkeypatch):
    """With one that takes no time to compile: what is left of the warm-up is about nothing beside it."""
    asked = []
    monkeypatch.setattr(images, "quicken", lambda network, **options: asked.append(options))
    case = images.CASES["mnist"]
    contestant = images.Contestant(images.VARIANTS[-1], case, case.config(2), 2, torch.device("cpu"))
    contestant.warm_up()
    assert contestant.turns == {"training": [], "sampling": []}
    contestant.take("training", 2)
    assert asked == [{"channels_last": True, "compile": True}]
    found = images.result(contestant, contestant.losses, 10, 1e9)
    assert found.sampling is None
    assert abs(found.compile_seconds) < 5
    assert found.share_of_peak == pytest.approx(6 * 10 * found.training / 1e9, abs=1e-4)
    assert found.difference == found.drift == 0.0
    first, *_, last = contestant.losses
    found = images.result(contestant, [first, *[0.5 * last] * 2], 10, 1e9)
    assert (found.difference, found.drift) == (0.0, 1.0)  # in bfloat16 only the first loss is of the same weights
    assert images.result(contestant, [2 * first, last, last], 10, 1e9).difference == 0.5


def test_losses_that_are_not_numbers_are_no_agreement(images):
    row = {"difference": float("nan")}
    found = {"variants": {variant.name: row for variant in images.VARIANTS}}
    assert len(list(images.disagreements(found, "float32"))) == len(images.VARIANTS)


def test_what_is_stored_is_of_one_machine_version_and_number_of_threads(images, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "STORED", tmp_path / "images.json")
    images.store("b", {"torch": "1", "threads": 2}, {"mnist": 1})
    images.store("a", {"torch": "1", "threads": 2}, {"mnist": 2})
    images.store("b", {"torch": "1", "threads": 2}, {"cifar10": 3})
    stored = json.loads((tmp_path / "images.json").read_text())
    assert list(stored) == ["a", "b"]
    assert stored["b"]["cases"] == {"mnist": 1, "cifar10": 3}
    images.store("b", {"torch": "2", "threads": 2}, {"cifar10": 4})
    assert json.loads((tmp_path / "images.json").read_text())["b"] == {
        "torch": "2",
        "threads": 2,
        "cases": {"cifar10": 4},
    }


def test_what_is_stored_becomes_a_table(images, script):
    row = script.Row("`mnist5k`", script.read("mnist5k"), 1, 1, 1)
    fast = images.Result(100.0, 2002.0, 0.25, 60.0, 400.0, 0.0, 0.0)
    rows = {"plain": vars(replace(fast, training=50.0, sampling=None, compile_seconds=None)), "fast": vars(fast)}
    case = {"event": [1, 28, 28], "width": 64, "batch": 8, "variants": rows}
    facts = {"torch": "2", "threads": 2, "float32": "TF32", "cases": {"mnist": case}}
    said = "".join(script.machine_tables({"a machine": facts}, {"mnist5k": row}))
    assert "| plain | 50.0 | 1.00 | 25.0% | 14 | - | - | - |" in said
    assert "| fast | 100 | 2.00 | 25.0% | 7.1 | 2002 | 2.0 | 60 |" in said
    assert "### a machine" in said


def test_the_share_of_the_peak_is_told_where_the_card_is_known(images):
    assert images.peak_of("NVIDIA H100 80GB HBM3") == images.peak_of("NVIDIA H200") == 989e12
    assert images.peak_of("NVIDIA A100-PCIE-40GB") == 312e12
    for other in ("NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "AMD EPYC 7B13"):
        assert images.peak_of(other) is None


@pytest.mark.parametrize("options", [["--quick", "--write"], ["--steps", "1"], ["--batch", "0"], ["--repeats", "-1"]])
def test_options_that_cannot_be_are_refused(images, options, capsys):
    with pytest.raises(SystemExit):
        images.main(options)
    assert options[0] in capsys.readouterr().err
