"""Exact mathematics keeps its digits under what networks are run with: autocast, and matrix products of fewer bits."""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import seeded
from reliability.calls import CALLS, F32, World, leaves, run, tensors
from toyscore import metrics, models
from toyscore._precision import exact
from toyscore.distributions import asymmetric, two_modes
from toyscore.losses import explicit_score_matching, implicit_score_matching

NETWORKS = (
    models.MLP,
    models.NoiseClassifier,
    models.NCSN,
    models.CompactNCSN,
    models.ContinuousNCSN,
    metrics.Features,
)
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot"}


class Rounded(TorchDispatchMode):
    """Names the products of float32 that may lose digits where they run, as they would on a device that has TF32."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        if name in PRODUCTS and args[0].dtype == F32 and torch.backends.mkldnn.matmul.fp32_precision != "ieee":
            self.names.add(name)
        return operator(*args, **(kwargs or {}))


@contextmanager
def hurried():
    """As a training script asks for: 16 bits in products, by autocast and by the backend."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), Rounded() as rounded:
            yield rounded.names
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


@pytest.fixture
def exact_networks(monkeypatch):
    """Networks keep their digits here, so that what is left of a difference is the package's own."""
    for network in NETWORKS:
        for method in ("forward", "jvp"):
            if hasattr(network, method):
                monkeypatch.setattr(network, method, exact(getattr(network, method)))


def results(name, way):
    """What a call returns, in a context made by ``way``, which its arguments are made outside of; and what the context gave."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        w = World(F32)
        arguments = CALLS[name].arguments(w)
        with way() as given:
            return tensors(list(leaves(run(name, w, arguments)))), given


@pytest.mark.usefixtures("exact_networks")
@pytest.mark.parametrize("module", sorted({name.partition(".")[0] for name in CALLS}))
def test_neither_autocast_nor_reduced_products_change_a_digit(module):
    changed = []
    for name in CALLS:
        if name.startswith(f"{module}.") and name != "train.fit":  # whose backward pass is the network's
            plain, _ = results(name, Rounded)  # a mode alone makes torch take other ways to some results
            under, rounded = results(name, hurried)
            same = [
                a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
                for a, b in zip(plain, under, strict=True)
            ]
            changed += [] if all(same) and not rounded else [name]
    assert changed == []


def test_networks_stay_in_the_precision_that_is_asked_for():
    """What the tests above rely on: the products of a network are seen, and rounded; and what was set is set again afterwards"""
    w = World(F32)
    with hurried() as rounded:
        score = w["net"](w["x"], 0.5)
        asymmetric().score(w["plane"])
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
        assert torch.is_autocast_enabled("cpu")
    assert rounded or not torch.equal(score, w["net"](w["x"], 0.5))


def test_a_level_that_is_kept_under_autocast_serves_afterwards():
    p, q = asymmetric(), asymmetric()
    x = p.sample(20, generator=seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        p.score(x, 0.7)
    assert torch.equal(p.score(x, 0.7), q.score(x, 0.7))


def test_the_truth_has_no_error_against_itself():
    """Exactly none, under autocast, too; and the implicit loss of the truth is J = F + constant with F = 0"""
    p = two_modes()
    x = p.sample(50, generator=seeded())
    plain = implicit_score_matching(p.score, x, 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(explicit_score_matching(p.score, x, 0.3, target=p.score).abs().max()) == 0
        assert torch.equal(implicit_score_matching(p.score, x, 0.0), plain)
        assert len(p.sample(1000, generator=seeded()).unique()) > 1900  # of 2,000 numbers
