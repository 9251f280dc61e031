"""Image networks: the official one to its digits, exact sizes, and what each part must do."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from helpers import F64, seeded
from toyscore.distributions import GaussianMixture
from toyscore.models import EMA, MLP, NCSN, CompactNCSN, ContinuousNCSN
from toyscore.models.refinenet import ConditionalNorm, mean_pool
from toyscore.noise import geometric

SIGMAS = geometric(1.0, 0.01, 10)
REFERENCE = os.environ.get("TOYSCORE_REFERENCE")
BUILD = {
    "NCSN": lambda size=8, channels=1: NCSN(channels, size, 4, SIGMAS),
    "CompactNCSN": lambda size=8, channels=1: CompactNCSN(channels, size, 4, sigmas=SIGMAS),
    "ContinuousNCSN": lambda size=8, channels=1: ContinuousNCSN(channels, size, 4, SIGMAS),
}


@pytest.fixture(params=BUILD)
def build(request):
    torch.manual_seed(0)
    return BUILD[request.param]


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.skipif(not REFERENCE, reason="TOYSCORE_REFERENCE names no folder of reference weights")
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_the_official_weights_give_the_official_outputs(channels, size):
    """song2019, Appendix A, by the weights and outputs of its code"""
    with np.load(Path(REFERENCE) / f"ncsn_official_ngf8_{channels}x{size}x{size}.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    weights = {name.removeprefix("weights/"): value for name, value in arrays.items() if name.startswith("weights/")}
    model = NCSN(channels, size, 8, SIGMAS)
    assert model.load_official({f"module.{name}": value for name, value in weights.items()}) is model
    assert torch.allclose(model(arrays["x"], SIGMAS[arrays["labels"]]), arrays["output"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: NCSN(1, 28, 64, SIGMAS), 7_638_657),
        (lambda: NCSN(3, 32, 64, SIGMAS), 7_640_963),
        (lambda: NCSN(3, 32, 128, SIGMAS), 30_117_635),
        (lambda: CompactNCSN(sigmas=SIGMAS), 3_176_067),
    ],
)
def test_sizes_are_exact(model, expected):
    assert count(model()) == expected


@pytest.mark.parametrize("plus", [True, False])
def test_the_norm_is_its_formula(plus):
    """song2019, Appendix A.1: instance norm, the channel means standardised over channels (unbiased), gamma, alpha, beta"""
    torch.manual_seed(0)
    norm = ConditionalNorm(5, n_levels=3, plus=plus).double()
    with torch.no_grad():
        norm.embed.weight.normal_(generator=seeded(1))
    h = torch.randn(2, 5, 4, 6, generator=seeded(2), dtype=F64) * 3 + torch.arange(5, dtype=F64)[:, None, None]
    index = torch.tensor([2, 0])
    parts = norm.embed.weight[index].reshape(2, -1, 5, 1, 1)
    means = h.mean((2, 3), keepdim=True)
    expected = functional.instance_norm(h)
    if plus:
        centred = means - means.mean(1, keepdim=True)
        expected = expected + parts[:, 1] * centred / (means.var(1, keepdim=True, unbiased=True) + 1e-5).sqrt()
    assert torch.allclose(norm(h, index), parts[:, 0] * expected + parts[:, -1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("size", "stride", "padding"), [(5, 1, 2), (2, 2, 0)])
def test_mean_pooling_is_torchs(size, stride, padding, layout):
    """values are torch's to the bit, gradients but for rounding; zeros around are counted, and the result lies as convolutions expect"""
    h = torch.randn(3, 4, 6, 8, generator=seeded(), dtype=F64).to(memory_format=layout).requires_grad_()
    found = mean_pool(h, size, stride=stride, padding=padding)
    expected = functional.avg_pool2d(h, size, stride, padding)
    assert torch.equal(found, expected)
    assert found.is_contiguous()
    far = torch.randn(found.shape, generator=seeded(1), dtype=F64)
    pairs = [torch.autograd.grad(out, h, far)[0] for out in (found, expected)]
    assert torch.allclose(*pairs, rtol=1e-12, atol=1e-14)


def test_the_norm_begins_as_the_official_one():
    torch.manual_seed(0)
    for norm in (ConditionalNorm(64, n_levels=100), ConditionalNorm(64, n_features=8)):
        start = (norm.embed.weight if isinstance(norm.embed, torch.nn.Embedding) else norm.embed.bias[None]).detach()
        assert (start[:, -64:] == 0).all()
        assert float(start[:, :-64].mean()) == pytest.approx(1, abs=0.02)
        assert float(start[:, :-64].std()) == pytest.approx(0.02, rel=0.2)
    plain = ConditionalNorm(64, n_levels=2, plus=False).embed.weight
    assert (plain[:, :64] == 1).all()
    assert (plain[:, 64:] == 0).all()


@pytest.mark.parametrize("size", [8, 28, 64])
def test_no_tap_of_a_convolution_is_outside_every_image(build, size):
    """The dilations are cut where a tap would see padding only: every weight of every convolution has a gradient"""
    model = build(size)
    x = torch.rand(2, 1, size, size, generator=seeded())
    model(x, 0.01).square().sum().backward()
    for name, p in model.named_parameters():
        if p.ndim == 4:
            assert (p.grad.abs().amax((0, 1)) > 0).all(), name


def test_rows_and_levels_do_not_mix(build):
    model = build(channels=2).double()
    if hasattr(model, "sigmas"):
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, ConditionalNorm):
                    module.embed.weight.normal_(1.0, 0.3, generator=seeded(3))
    x = torch.rand(4, 2, 8, 8, generator=seeded(), dtype=F64)
    sigma = SIGMAS[[0, 3, 9, 3]]
    together = model(x, sigma)
    for i in range(4):
        for form in (float(sigma[i]), sigma[i], sigma[i : i + 1]):
            assert torch.allclose(model(x[i : i + 1], form), together[i : i + 1], rtol=1e-9)
    assert not torch.allclose(model(x, 0.01)[0], together[0])
    assert torch.allclose(model(x, sigma[0]), model(x, float(sigma[0])))


def test_a_network_indexed_by_level_knows_its_levels_only():
    model = NCSN(1, 8, 4, [1.0, 0.5, 0.1])
    x = torch.rand(2, 1, 8, 8, generator=seeded())
    for sigma in (0.7, torch.tensor(0.7), torch.tensor([1.0, 0.7])):
        with pytest.raises(ValueError, match=r"sigma = 0.7 is none of the network's 3 levels.*the nearest is 1"):
            model(x, sigma)
    assert torch.equal(model(x, 0.5), model(x, 0.5 * (1 + 1e-4)))
    kept = NCSN(1, 8, 4, [9.0, 8.0, 7.0])
    kept.load_state_dict(model.state_dict())  # the levels come with the weights
    assert torch.equal(kept(x, 0.5), model(x, 0.5))


def test_without_correction_the_continuous_network_is_a_gaussian():
    """karras2022, Sec. 5. At every level, over sixteen powers of ten of sigma: the score of N(m, (v + sigma²) I)"""
    model = ContinuousNCSN(1, 8, 4, [160.0, 0.01], data_mean=0.3, data_variance=0.12).double()
    with torch.no_grad():
        for p in model.body.end_conv.parameters():
            p.zero_()
    truth = GaussianMixture(torch.full((1, 64), 0.3, dtype=F64), 0.12)
    x = torch.randn(3, 64, generator=seeded(), dtype=F64)
    for sigma in (1e-8, 0.01, 1.0, 160.0, 1e8):
        expected = truth.score(x, sigma).view(3, 1, 8, 8)
        assert torch.allclose(model(x.view(3, 1, 8, 8), sigma), expected, rtol=1e-6)


def test_the_correction_has_unit_size_at_every_level():
    """Where data is N(m, v) the residual sigma s + z of the Gaussian is F times a factor in [0, 1] that is one at small sigma"""
    model = ContinuousNCSN(1, 8, 4, [160.0, 0.01], data_mean=0.0, data_variance=0.12).double()
    with torch.no_grad():
        model.body.end_conv.weight.zero_()
        model.body.end_conv.bias.fill_(1.0)
    x = torch.zeros(1, 1, 8, 8, dtype=F64)
    for sigma in (1e-6, 0.1, 100.0):
        expected = (0.12 / (0.12 + sigma**2)) ** 0.5
        assert float(sigma * model(x, sigma).detach().mean()) == pytest.approx(expected, rel=1e-6)


def test_the_compact_networks_output_is_divided_by_sigma():
    model = CompactNCSN(1, 8, 4, sigmas=SIGMAS).double()  # all levels begin alike
    x = torch.rand(2, 1, 8, 8, generator=seeded(), dtype=F64)
    assert torch.allclose(model(x, 1.0), 0.01 * model(x, 0.01), rtol=1e-6)


def test_the_stages_of_the_compact_network_look_ever_wider():
    model = CompactNCSN(1, 32, 4, sigmas=SIGMAS)
    assert [stage["1_1_conv"].dilation[0] for stage in model.stages] == [1, 2, 4, 8]
    assert [len(block.adapt_convs) for block in model.refine] == [1, 2, 2, 2]


def test_a_sigma_that_is_not_looked_at_gives_no_number(monkeypatch):
    """Where looking would stall the queue the rows of an unknown level are NaN, those of a level are not"""
    from toyscore.models import conditioning, ncsn

    monkeypatch.setattr(conditioning, "looks", lambda sigma: False)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    model, x = ncsn.NCSN(1, 8, 4, [1.0, 0.5]), torch.rand(3, 1, 8, 8, generator=seeded())
    s = model(x, torch.tensor([1.0, 0.7, torch.nan]))
    assert torch.isfinite(s[0]).all()
    assert torch.isnan(s[1:]).all()


def test_inside_the_data_lies_in_minus_one_to_one():
    seen = []
    for model in (NCSN(1, 8, 4, SIGMAS), CompactNCSN(1, 8, 4, sigmas=SIGMAS)):
        convolution = model.body.begin_conv if isinstance(model, NCSN) else model.begin_conv
        convolution.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model(torch.tensor([0.0, 1.0]).repeat(1, 1, 8, 4), 1.0)
    for inputs in seen:
        assert torch.equal(inputs, torch.tensor([-1.0, 1.0]).repeat(1, 1, 8, 4))


def test_weights_of_another_network_are_named():
    model = NCSN(1, 8, 4, SIGMAS)
    state = {name: value.clone() for name, value in model.body.state_dict().items()}
    with pytest.raises(ValueError, match=r"res1.0.conv1.weight is missing in the state_dict"):
        model.load_official({k: v for k, v in state.items() if k != "res1.0.conv1.weight"})
    with pytest.raises(
        ValueError, match=r"begin_conv.weight is \[4, 1, 3, 3\] in the state_dict, \[4, 3, 3, 3\] in the"
    ):
        NCSN(3, 8, 4, SIGMAS).load_official(state)
    with pytest.raises(
        TypeError, match=r"state_dict is list: .* checkpoint.pth holds weights and optimiser, pass .*\[0\]"
    ):
        model.load_official([state, {}])


def test_an_average_follows_its_recursion_and_is_what_is_called():
    """song2020, Technique 5, with the early averages forgotten faster"""
    torch.manual_seed(0)
    live = MLP(width=4).double()
    model = EMA(live, decay=0.5)
    expected = [p.detach().clone() for p in live.parameters()]
    for t in range(1, 9):
        with torch.no_grad():
            for p in live.parameters():
                p.add_(torch.randn(p.shape, generator=seeded(t), dtype=F64))
        model.update()
        decay = min(0.5, (1 + t) / (10 + t))
        expected = [decay * e + (1 - decay) * p.detach() for e, p in zip(expected, live.parameters(), strict=True)]
    for e, p in zip(expected, model.average.parameters(), strict=True):
        assert torch.allclose(e, p, rtol=1e-12)
    x = torch.randn(3, 2, generator=seeded(), dtype=F64)
    assert torch.equal(model(x), model.average(x))
    assert not torch.allclose(model(x), live(x))
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        f"model.{n}" for n, _ in live.named_parameters()
    ]


def test_pictures_on_another_device_than_the_network_are_named(build):
    """As those of another dtype are"""
    with pytest.raises(ValueError, match=r"x is on meta, the network on cpu: .* one with .to\('cpu'\)"):
        build()(torch.zeros(2, 1, 8, 8, device="meta"), 1.0)
