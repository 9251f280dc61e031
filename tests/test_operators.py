import pytest
import torch

from helpers import F64, assert_mean, seeded
from toyscore import operators as ops
from toyscore.distributions import two_modes
from toyscore.models import NoiseClassifier


def field(x, sigma):
    """A score with cubic terms and a coupling, so that its Jacobian is neither constant nor symmetric."""
    return -x + 0.1 * x.pow(3) + 0.5 * x.roll(1, -1) * (1 + sigma)


def test_noise_does_not_depend_on_layout():
    x = torch.zeros(5, 3)
    a = ops.normal_like(x, seeded())
    b = ops.normal_like(x.t().contiguous().t(), seeded())
    assert torch.equal(a, b)
    image = torch.zeros(2, 3, 4, 4)
    assert torch.equal(
        ops.normal_like(image, seeded()), ops.normal_like(image.to(memory_format=torch.channels_last), seeded())
    )
    assert torch.equal(ops.normal_like(image, seeded()).view(2, -1), ops.normal_like(image.view(2, -1), seeded()))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_noise_follows_dtype_and_leaves_the_default_generator(dtype):
    before = torch.get_rng_state()
    for draw in (ops.normal_like, ops.rademacher_like):
        assert draw(torch.zeros(2, 2, dtype=dtype), seeded()).dtype == dtype
    assert torch.equal(before, torch.get_rng_state())


def test_rademacher_is_a_fair_sign():
    v = ops.rademacher_like(torch.zeros(1_000_000, 1), seeded())
    assert set(v.unique().tolist()) == {-1.0, 1.0}
    assert_mean(v[:, 0], 0.0)


def test_expand_spreads_rows_over_any_event():
    sigma = torch.tensor([1.0, 2.0])
    for shape in ((2, 3), (2, 1, 4, 4)):
        spread = ops.expand(sigma, torch.zeros(shape, dtype=F64))
        assert spread.dtype == F64
        product = spread * torch.ones(shape, dtype=F64)
        assert torch.equal(product[0], torch.ones(shape[1:], dtype=F64))
        assert torch.equal(product[1], 2 * torch.ones(shape[1:], dtype=F64))


def test_trace_is_the_jacobians_row_by_row():
    x = torch.randn(4, 3, generator=seeded(), dtype=F64)
    sigma = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=F64)[:, None]
    s, trace = ops.jacobian_trace(lambda x, _: field(x, sigma), x, 0.0)
    assert torch.allclose(s, field(x, sigma))
    for row in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda y, row=row: field(y, sigma[row]), x[row])
        assert torch.isclose(trace[row], jacobian.trace(), rtol=1e-12)


def test_quadratic_form_sees_an_asymmetric_jacobian():
    x = torch.randn(2, 3, generator=seeded(1), dtype=F64)
    v = torch.randn(4, 2, 3, generator=seeded(2), dtype=F64)
    _, forms = ops.quadratic_form(field, x, 0.3, v)
    for row in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda y: field(y, 0.3), x[row])
        expected = torch.einsum("ni,ij,nj->n", v[:, row], jacobian, v[:, row])
        assert torch.allclose(forms[:, row], expected, rtol=1e-12)


def test_a_constant_score_has_no_trace():
    constant = torch.ones(2, requires_grad=True)
    for score in (lambda x, _: torch.ones_like(x), lambda x, _: constant.expand_as(x)):
        assert torch.equal(ops.jacobian_trace(score, torch.zeros(3, 2), 0.0)[1], torch.zeros(3))


def test_derivatives_work_inside_no_grad_and_leave_x_alone():
    x = torch.randn(3, 2)
    with torch.no_grad():
        s, trace = ops.jacobian_trace(field, x, 0.0)
    assert not s.requires_grad
    assert not trace.requires_grad
    assert not x.requires_grad
    assert trace.abs().sum() > 0


def test_low_precision_scores_are_summed_in_float32():
    x = torch.ones(2, 4096, dtype=torch.bfloat16)
    s = ops.evaluate(lambda x, _: x, x, 0.0)
    assert s.dtype == torch.float32
    total = ops.sum_event(x)
    assert total.dtype == torch.float32
    assert total.tolist() == [4096.0, 4096.0]


@pytest.mark.parametrize(
    ("owner", "score"),
    [
        ("the mixture", two_modes().score),
        ("the classifier", NoiseClassifier((2,), 3, [1.0, 0.1])),
    ],
)
def test_a_point_on_another_device_is_named(owner, score):
    with pytest.raises(
        ValueError, match=rf'x is on meta, {owner} on cpu: they must be on one device; move x with .to\("cpu"\)'
    ):
        score(torch.zeros(4, 2, device="meta"), 0.5)
