"""Networks of others: each reading against the exact score, each confusion caught and named."""

import json
import math
import warnings

import pytest
import torch
from torch import nn

from helpers import F64, cases, seeded
from toyscore import data, pretrained
from toyscore.distributions import GaussianMixture
from toyscore.models import CalibrationWarning, ContinuousNCSN, adapters, calibrate
from toyscore.models.adapters import ddpm_clock, from_epsilon, from_v, from_x0, rescaled, sigma_clock
from toyscore.noise import geometric, linear_betas
from toyscore.samplers import annealed_langevin, final

P = cases()["asymmetric"]
ALPHA_BARS = torch.cumprod(1 - linear_betas().double(), 0)
WRAP = {"epsilon": from_epsilon, "v": from_v, "x0": from_x0}


def at(t, x):
    """alpha, s of the real-valued steps t, by interpolating log(s / alpha): written anew, in float64"""
    logs = (0.5 * ((1 - ALPHA_BARS) / ALPHA_BARS).log()).tolist()
    sigma = torch.tensor(
        [
            math.exp(logs[int(u)] + (u - int(u)) * (logs[min(int(u) + 1, len(logs) - 1)] - logs[int(u)]))
            for u in t.tolist()
        ],
        dtype=F64,
    )[:, None]
    return 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()


def diffused(mixture, x, alpha, s):
    """grad log p_t at x, by autograd of the density of alpha x_0 + s z, row by row"""
    rows = []
    for row, a, b in zip(x, alpha, s, strict=True):
        p_t = GaussianMixture(
            a * mixture.means, a**2 * mixture.covariances + b**2 * torch.eye(2, dtype=F64), mixture.weights
        )
        point = row[None].clone().requires_grad_()
        rows.append(torch.autograd.grad(p_t.log_prob(point).sum(), point)[0])
    return torch.cat(rows)


def network(kind, mixture=P):
    """The perfect network of a kind, from the diffused mixture alone."""

    def predict(x_t, t):
        alpha, s = at(t, x_t)
        with torch.enable_grad():
            epsilon = -s * diffused(mixture, x_t.detach(), alpha, s)
        x0 = (x_t - s * epsilon) / alpha
        return {"epsilon": epsilon, "v": alpha * epsilon - s * x0, "x0": x0}[kind]

    return predict


@pytest.mark.parametrize("kind", WRAP)
def test_a_perfect_network_of_each_kind_is_the_exact_score(kind):
    """ho2020, Sec. 3.2; salimans2022, Sec. 4; karras2022, Eq. (3): to 1e-9, at steps and between them, sigma of every form"""
    score = WRAP[kind](network(kind), ddpm_clock(ALPHA_BARS))
    x = 3 * torch.randn(6, 2, generator=seeded(), dtype=F64)
    for sigma in (0.02, torch.tensor(1.3, dtype=F64), torch.tensor([0.011, 0.1, 0.5, 2.0, 30.0, 150.0], dtype=F64)):
        exact = P.score(x, sigma)
        assert torch.allclose(score(x, sigma), exact, rtol=1e-9, atol=1e-9)


def test_the_clock_reads_ddpms_steps():
    """ho2020, Eq. (4): sigma of every step gives the step; between two, log sigma is linear; whole steps round"""
    clock = ddpm_clock(ALPHA_BARS)
    sigma = ((1 - ALPHA_BARS) / ALPHA_BARS).sqrt()
    steps = torch.arange(1000, dtype=F64)
    assert torch.allclose(clock.time(sigma), steps, atol=1e-9)
    assert torch.allclose(clock.time(sigma.float()), steps.float(), atol=0.02)
    assert float(clock.time((sigma[10] * sigma[11]).sqrt()[None])) == pytest.approx(10.5)
    assert ddpm_clock(ALPHA_BARS, whole=True).time(sigma * 1.0001).tolist() == list(range(1000))
    assert torch.allclose(clock.alpha(sigma), ALPHA_BARS.sqrt(), rtol=1e-12)
    assert (clock.sigma_min, clock.sigma_max) == pytest.approx((float(sigma[0]), float(sigma[-1])))


def test_a_denoiser_of_sigma_itself():
    """karras2022, Eq. (3): D(x, sigma) = x + sigma² s, as other codes hand it out"""
    score = from_x0(lambda x, sigma: x + sigma[:, None] ** 2 * P.score(x, sigma), sigma_clock())
    x = torch.randn(4, 2, generator=seeded(), dtype=F64)
    assert torch.allclose(score(x, 0.3), P.score(x, 0.3), rtol=1e-9)


def test_rescaled_is_the_score_in_other_units():
    """Of y = a x + b: the mixture itself moved, to rounding"""
    moved = GaussianMixture(2 * P.means - 1, 4 * P.covariances, P.weights)
    x = torch.randn(5, 2, generator=seeded(), dtype=F64)
    for sigma in (0.4, torch.linspace(0.1, 2, 5, dtype=F64)):
        assert torch.allclose(rescaled(moved.score, 2.0, -1.0)(x, sigma), P.score(x, sigma), rtol=1e-10)


def test_an_adapted_network_is_sampled_like_any_other():
    score = from_epsilon(network("epsilon"), ddpm_clock(ALPHA_BARS))
    options = {"step_size": 0.05, "n_steps_each": 3}
    x = 5 * torch.randn(8, 2, generator=seeded(), dtype=F64)
    a, b = (
        final(annealed_langevin(s, x, geometric(5.0, 0.5, 4), generator=seeded(1), **options)) for s in (score, P.score)
    )
    assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)


LEVELS = geometric(20.0, 0.05, 7).double()


@pytest.mark.parametrize("name", list(cases()))
def test_an_exact_score_calibrates(name):
    """vincent2011: the size equals the agreement, and both lie between the linear bound and one"""
    p = cases()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = calibrate(p.score, p, LEVELS, n=4000, generator=seeded())
    assert found.cause is None
    dim = p.means.shape[1]
    assert torch.allclose(found.size, found.agreement, atol=5 * math.sqrt(2 / (4000 * dim)))
    assert bool((found.size <= 1 + 5 * math.sqrt(2 / (4000 * dim))).all())
    assert bool((found.size >= found.floor - 5 * math.sqrt(2 / (4000 * dim))).all())


def test_the_digits_network_calibrates_and_the_gaussian_inside_it():
    digits = data.digits("train")
    levels = geometric(10.0, 0.05, 6)
    mean, variance = digits.moments
    gaussian = ContinuousNCSN(1, 8, 4, levels, data_mean=mean, data_variance=variance)
    nn.init.zeros_(gaussian.body.end_conv.weight)
    nn.init.zeros_(gaussian.body.end_conv.bias)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for score in (gaussian, pretrained.digits().network):
            found = calibrate(score, digits, levels, n=128, generator=seeded())
            assert found.size[0] == pytest.approx(1, abs=0.1)


DECODE = {
    "score": lambda s, x, c: s,
    "epsilon": lambda s, x, c: -c * s,
    "v": lambda s, x, c: (1 / (1 + c**2)).sqrt() * (-c * s) - c * (1 / (1 + c**2)).sqrt() * (x + c**2 * s),
    "x0": lambda s, x, c: x + c**2 * s,
}


@pytest.mark.parametrize("true", DECODE)
@pytest.mark.parametrize("used", DECODE)
@pytest.mark.parametrize("name", ["asymmetric", "three dimensions", "one dimension"])
def test_every_wrong_reading_is_caught_and_named(name, used, true):
    """What predicts one thing and is read as another: the warning names both"""
    p = cases()[name]

    def out(x, c):
        return DECODE[true](p.score(x, c), x, c[:, None])

    if used == "score":
        score = lambda x, sigma: out(x, sigma.expand(len(x)))  # noqa: E731
    else:
        score = WRAP[used](lambda x, sigma: out(x, sigma), sigma_clock())
        # v is defined in coordinates that keep the variance; given x itself, the clock leaves only the reading to differ
    if used == true:
        assert calibrate(score, p, LEVELS, generator=seeded()).cause is None
        return
    spoken = {"score": "a score"}
    with pytest.warns(
        CalibrationWarning, match=r"this is no score of these data: at sigma = .* must be equal"
    ) as caught:
        found = calibrate(score, p, LEVELS, generator=seeded())
    assert f"it predicts {spoken.get(true, true)} and is read as {spoken.get(used, used)}" in found.cause, found
    assert found.cause in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (lambda x, sigma: -P.score(x, sigma), "its sign is wrong"),
        (lambda x, sigma: sigma * P.score(x, sigma), "not divided by sigma"),
        (lambda x, sigma: P.score(x, sigma) / sigma, "divided by sigma once too often"),
        (lambda x, sigma: P.score(x, sigma) / 2, "half the score"),
        (lambda x, sigma: 2 * P.score(x, sigma), "twice the score"),
        (rescaled(P.score, 0.5, 0.5), r"trained on data in \[-1, 1\]"),
        (rescaled(P.score, 2.0, -1.0), r"trained on data in \[0, 1\]"),
        (lambda x, sigma: (4.0 - x) / (sigma**2 + 1), "no usual confusion explains it"),
        (lambda x, sigma: torch.sin(3700 * x), "it tells nothing of x or of the noise"),
        (lambda x, sigma: P.score(x, sigma) * float("nan"), "no usual confusion explains it"),
    ],
)
def test_other_confusions_are_caught_and_named(wrong, cause):
    with pytest.warns(CalibrationWarning, match=cause):
        calibrate(wrong, P, LEVELS, generator=seeded())


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.3, 2.0, -1.0])
@pytest.mark.parametrize("levels", [[5.0, 1.0, 0.2], [1.0, 0.5]])
def test_a_factor_is_noticed_at_few_levels(factor, levels):
    with pytest.warns(CalibrationWarning):
        calibrate(lambda x, sigma: factor * P.score(x, sigma), P, levels, n=1000, generator=seeded())


@pytest.mark.parametrize("seed", range(20))
def test_exact_scores_raise_no_false_alarm(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for p in cases().values():
            for n in (64, 256):
                calibrate(p.score, p, [20.0, 1.0, 0.1], n=n, generator=seeded(seed))


@pytest.mark.parametrize("dead", [lambda x, _: 0 * x, lambda x, _: torch.ones_like(x)])
def test_a_network_that_says_nothing_is_told_so(dead):
    with pytest.warns(CalibrationWarning, match="tells nothing of x or of the noise: was it trained"):
        calibrate(dead, P, LEVELS, generator=seeded())


def test_what_a_foreign_function_raises_does_not_hide_the_warning():
    """A score that looks its level up, and has the wrong sign: asked at twice the level it raises what it likes"""
    table = {round(float(sigma), 6): float(sigma) for sigma in LEVELS}
    with pytest.warns(CalibrationWarning, match="its sign is wrong"):
        calibrate(lambda x, sigma: -P.score(x, table[round(float(sigma), 6)]), P, LEVELS, generator=seeded())


def test_the_better_of_two_causes_is_named(monkeypatch):
    """Both mend every level; the one with the smaller loss wins, whichever comes first"""
    from toyscore.models import calibration

    slightly = ("slightly wrong", lambda s, x, std: -1.06 * s)
    right = ("right", lambda s, x, std: -s)
    for order in ([slightly, right], [right, slightly]):
        monkeypatch.setattr(calibration, "_confusions", lambda order=order: iter(order))
        with pytest.warns(CalibrationWarning):
            found = calibrate(lambda x, sigma: -P.score(x, sigma), P, LEVELS, n=4000, generator=seeded())
        assert found.cause == "right"


def test_a_clock_ends_where_training_did():
    clock = ddpm_clock(ALPHA_BARS, whole=True)
    sigma = ((1 - ALPHA_BARS) / ALPHA_BARS).sqrt()
    ends = torch.stack([sigma[0] * 0.995, sigma[-1] * 1.005])
    assert clock.time(ends).tolist() == [0, 999]
    assert ddpm_clock(ALPHA_BARS).time(ends).tolist() == [0.0, 999.0]
    near = torch.exp(0.1 * sigma[3].log() + 0.9 * sigma[4].log())
    assert clock.time(near[None]).tolist() == [4]  # rounded, not cut off
    score = from_epsilon(lambda x, t: x, clock)
    score(torch.zeros(1, 2, dtype=F64), float(ends[1]))
    with pytest.raises(ValueError, match="knows nothing beyond"):
        score(torch.zeros(1, 2, dtype=F64), 1.2 * float(sigma[-1]))
    halved = rescaled(score, 2.0, -1.0)
    halved(torch.zeros(1, 2, dtype=F64), float(sigma[-1]) / 2)
    with pytest.raises(
        ValueError, match=r"beyond; .* \(in the units of the score that is rescaled, which sees 2 sigma and 2 x -1\)"
    ):
        halved(torch.zeros(1, 2, dtype=F64), float(sigma[-1]))
    assert ddpm_clock([0.9, 0.5]).sigma_max == pytest.approx(1.0)


def test_where_looking_is_not_free_rows_beyond_are_nan(monkeypatch):
    monkeypatch.setattr(adapters, "looks", lambda _: False)
    score = from_x0(lambda x, sigma: 0 * x, sigma_clock(0.1, 10.0))
    found = score(torch.ones(3, 2), torch.tensor([0.5, 50.0, 0.01]))
    assert found.isnan().all(1).tolist() == [False, True, True]


diffusers = pytest.importorskip("diffusers")


def unet(out_channels=1, **options):
    torch.manual_seed(0)
    small = {
        "sample_size": 8,
        "in_channels": 1,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    }
    return diffusers.UNet2DModel(out_channels=out_channels, **{**small, **options}).eval()


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("pipeline", [True, False])
def test_a_unet_of_diffusers_from_disk(tmp_path, predicts, pipeline):
    """Random weights: the wrapped score is what the library's own scheduler makes of the prediction, to 1e-5"""
    model = unet()
    scheduler = diffusers.DDPMScheduler(prediction_type=predicts, clip_sample=False)
    folders = (tmp_path / "unet", tmp_path / "scheduler") if pipeline else (tmp_path, tmp_path)
    model.save_pretrained(folders[0])
    scheduler.save_pretrained(folders[1])
    score = adapters.from_diffusers(tmp_path)
    assert next(score.parameters()).dtype == torch.float32
    x = torch.rand(3, 1, 8, 8, generator=seeded())
    for t in (0, 10, 500, 999):
        alpha_bar = scheduler.alphas_cumprod[t]
        sigma = float(((1 - alpha_bar) / alpha_bar).sqrt())  # of data in [-1, 1]
        y = 2 * x - 1
        with torch.no_grad():
            out = model(alpha_bar.sqrt() * y, t).sample
            x0 = scheduler.step(out, t, alpha_bar.sqrt() * y, generator=seeded()).pred_original_sample
            found = score(x, sigma / 2)
        assert torch.allclose(sigma * found / 2, (x0 - y) / sigma, rtol=1e-3, atol=1e-3 if t == 0 else 1e-4), t


def saved(folder, model=None, scheduler=None, **options):
    """A pipeline's folder"""
    (model or unet()).save_pretrained(folder / "unet", **options)
    (scheduler or diffusers.DDPMScheduler()).save_pretrained(folder / "scheduler")
    return folder


def by_hand(model, x, t, *more):
    """The score of epsilon at step t of the usual schedule, from its own bars, of x in units of its own: sigma, score"""
    alpha_bar = diffusers.DDPMScheduler().alphas_cumprod[t].double()
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    with torch.no_grad():
        return float(sigma), -model((alpha_bar.sqrt() * x).float(), t, *more).sample / float(sigma)


@pytest.mark.parametrize("encoder", ["vqvae", "vae", "model_index.json"])
def test_latents_are_not_rescaled(tmp_path, encoder):
    """A UNet beside an encoder sees latents: the score is its own prediction over sigma, and a warning says what x is"""
    saved(tmp_path)
    if encoder == "model_index.json":
        (tmp_path / encoder).write_text(json.dumps({"vqvae": ["diffusers", "VQModel"], "unet": ["diffusers", "UNet"]}))
    else:
        (tmp_path / encoder).mkdir()
    with pytest.warns(
        UserWarning, match=r"works in latents: x is not pictures in \[0, 1\] but what its vq?v?ae encodes"
    ) as caught:
        score = adapters.from_diffusers(tmp_path)
    assert caught[0].filename == __file__
    x = torch.randn(3, 1, 8, 8, generator=seeded())
    sigma, exact = by_hand(unet(), x, 300)
    assert torch.allclose(score(x, sigma), exact, rtol=1e-4, atol=1e-5)


def test_pictures_are_pictures_beside_an_index(tmp_path):
    saved(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline", "vae": [None, None]}))
    x = torch.rand(3, 1, 8, 8, generator=seeded())
    sigma, exact = by_hand(unet(), 2 * x - 1, 300)
    assert torch.allclose(adapters.from_diffusers(tmp_path)(x, sigma / 2), 2 * exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
def test_zero_terminal_snr_keeps_the_steps_with_signal(tmp_path, predicts):
    """999 levels of finite noise, of which each is its step; the last is refused beyond"""
    scheduler = diffusers.DDPMScheduler(rescale_betas_zero_snr=True, prediction_type=predicts, clip_sample=False)
    assert scheduler.alphas_cumprod[-1] == 0
    bars = scheduler.alphas_cumprod[:-1].double()
    score = adapters.from_diffusers(saved(tmp_path, scheduler=scheduler))
    sigma = ((1 - bars) / bars).sqrt()
    clock = score.score.clock
    assert torch.allclose(clock.time(sigma), torch.arange(999, dtype=F64), atol=1e-9)
    assert clock.sigma_max == pytest.approx(float(sigma[-1]))
    x = torch.rand(2, 1, 8, 8, generator=seeded())
    assert bool(score(x, float(sigma[-1]) / 2).isfinite().all())
    with pytest.raises(ValueError, match="knows nothing beyond"):
        score(x, float(sigma[-1]))


def test_steps_without_noise_or_signal_leave_the_others_their_numbers():
    bars = torch.cat([torch.ones(1, dtype=F64), ALPHA_BARS, torch.zeros(1, dtype=F64)])
    sigma = ((1 - ALPHA_BARS) / ALPHA_BARS).sqrt()
    assert torch.allclose(ddpm_clock(bars).time(sigma), 1.0 + torch.arange(1000, dtype=F64), atol=1e-9)
    assert ddpm_clock(bars, whole=True).time(sigma).tolist() == list(range(1, 1001))
    assert (ddpm_clock(bars).sigma_min, ddpm_clock(bars).sigma_max) == pytest.approx(
        (float(sigma[0]), float(sigma[-1]))
    )


def test_a_unet_of_classes_is_told_its_label(tmp_path):
    """One for all and one per row, as the network itself is told; others are refused by name"""
    model = unet(num_class_embeds=10)
    saved(tmp_path, model)
    x = torch.rand(3, 1, 8, 8, generator=seeded())
    for label in (3, torch.tensor([0, 9, 4])):
        sigma, exact = by_hand(model, 2 * x - 1, 300, torch.as_tensor(label).expand(3))
        assert torch.allclose(
            adapters.from_diffusers(tmp_path, label=label)(x, sigma / 2), 2 * exact, rtol=1e-4, atol=1e-4
        )
    for label, kind, words in (
        (None, ValueError, r"label = None: this network is told one of 10 classes; pass e.g. label=0"),
        (10, ValueError, r"label = 10: classes are 0 to 9"),
        (torch.tensor([0, -1]), ValueError, r"label = \[0, -1\]: classes are 0 to 9"),
        (torch.zeros(1, 1).long(), ValueError, r"label has shape \[1, 1\]: it must be a number or \[B\]"),
        (1.5, TypeError, r"label is torch.float32: classes are whole numbers"),
        ("cat", TypeError, r"label is str: classes are whole numbers"),
    ):
        with pytest.raises(kind, match=words):
            adapters.from_diffusers(tmp_path, label=label)
    with pytest.raises(ValueError, match=r"label has shape \[2\], x 3 rows: pass one label per row"):
        adapters.from_diffusers(tmp_path, label=torch.tensor([0, 1]))(x, 0.5)
    with pytest.raises(ValueError, match="label = 3: this network knows no classes; leave label out"):
        adapters.from_diffusers(saved(tmp_path / "none"), label=3)


def test_learned_steps_are_whole(tmp_path):
    """Between two steps the nearest in log sigma is told, with x scaled for sigma itself"""
    model = unet(time_embedding_type="learned", num_train_timesteps=1000)
    score = adapters.from_diffusers(saved(tmp_path, model))
    x = torch.rand(3, 1, 8, 8, generator=seeded())
    (a, at_step), (b, _) = by_hand(model, 2 * x - 1, 300), by_hand(model, 2 * x - 1, 301)
    assert torch.allclose(score(x, a / 2), 2 * at_step, rtol=1e-4, atol=1e-4)
    sigma = a**0.6 * b**0.4
    alpha = (1 + sigma**2) ** -0.5
    with torch.no_grad():
        nearest = -model(alpha * (2 * x - 1), 300).sample / sigma
    assert torch.allclose(score(x, sigma / 2), 2 * nearest, rtol=1e-4, atol=1e-4)
    small = saved(tmp_path / "small", unet(time_embedding_type="learned", num_train_timesteps=500))
    with pytest.raises(ValueError, match=r"num_train_timesteps = 500, its schedule 1000 steps"):
        adapters.from_diffusers(small)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32, F64])
def test_a_unet_computes_in_its_own_dtype(tmp_path, dtype, weights):
    """x of any dtype comes back in it, and is what the network says of it in its own, to the rounding of the coarser one"""
    score = adapters.from_diffusers(saved(tmp_path)).to(weights)
    x = torch.rand(3, 1, 8, 8, generator=seeded()).to(dtype)
    sigma, exact = by_hand(unet(), 2 * x.float() - 1, 300)
    found = score(x, sigma / 2).detach()
    assert found.dtype == dtype
    coarse = max(torch.finfo(dtype).eps, torch.finfo(weights).eps, torch.finfo(torch.float32).eps)
    assert float((found.double() - 2 * exact).norm() / (2 * exact).norm()) < 20 * coarse


def test_variants_are_read(tmp_path):
    """Weights that are there in half precision alone; beside full ones these are taken"""
    half = adapters.from_diffusers(saved(tmp_path / "half", unet().half(), variant="fp16"))
    assert {w.dtype for w in half.parameters()} == {torch.float32}
    assert all(torch.equal(a, b.half().float()) for a, b in zip(half.parameters(), unet().parameters(), strict=True))
    both = saved(saved(tmp_path / "both"), unet().half(), variant="fp16")
    full = adapters.from_diffusers(both)
    assert all(torch.equal(a, b) for a, b in zip(full.parameters(), unet().parameters(), strict=True))


@pytest.mark.parametrize("kind", ["", "Attn", "Skip", "ResnetDownsample"])
def test_sides_that_a_unet_cannot_take_are_refused_by_name(tmp_path, kind):
    """Three levels: what the network itself takes is taken, what it does not is refused with sides that it does"""
    down, up = (
        (kind + "Block2D", "ResnetUpsampleBlock2D") if "Down" in kind else (kind + "DownBlock2D", kind + "UpBlock2D")
    )
    model = unet(3, in_channels=3, block_out_channels=(8, 8, 8), down_block_types=(down,) * 3, up_block_types=(up,) * 3)
    score = adapters.from_diffusers(saved(tmp_path, model))
    for side in (2, 3, 4, 6, 8, 9, 12):
        x = torch.rand(1, 3, side, 8)
        try:
            with torch.no_grad():
                model(x, 1)
        except RuntimeError:
            with pytest.raises(
                ValueError, match=r"takes sides that are multiples of 4; pad or resize to (\d+) x 8"
            ) as caught:
                score(x, 0.5)
            larger = int(str(caught.value).split("resize to ")[1].split()[0])
            assert side < larger < side + 4
            score(torch.rand(1, 3, larger, 8), 0.5)
        else:
            assert score(x, 0.5).shape == x.shape
    for x in (torch.rand(1, 2, 8, 8), torch.rand(1, 3 * 64)):
        with pytest.raises(ValueError, match=r"this network takes \[B, 3, H, W\]; reshape it"):
            score(x, 0.5)


@pytest.mark.parametrize(
    ("model", "schedule", "words"),
    [
        ({"class_embed_type": "timestep"}, {}, "class_embed_type = timestep: its labels are no classes"),
        ({"time_embedding_type": "fourier"}, {}, "time_embedding_type = fourier: it divides by t"),
        ({"in_channels": 2}, {}, "in_channels = 2, out_channels = 1: they must be equal"),
        ({}, {"timestep_type": "continuous"}, "timestep_type = continuous: its steps are not DDPM's"),
        ({}, {"use_flow_sigmas": True}, "use_flow_sigmas = True: its steps are not DDPM's"),
        ({}, {"snr_shift_scale": 3.0}, "snr_shift_scale = 3.0: its steps are not DDPM's"),
    ],
)
def test_unets_with_other_inputs_or_steps_are_refused(tmp_path, model, schedule, words):
    saved(tmp_path, unet(**model))
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | schedule))
    with pytest.raises(ValueError, match=words):
        adapters.from_diffusers(tmp_path)


def test_the_remedies_for_other_unets_work(tmp_path):
    """What messages advise is done: labels that are numbers, and a network of sigma whose output is a score"""
    x = torch.rand(2, 1, 8, 8, generator=seeded())
    network, labels = unet(class_embed_type="timestep"), torch.tensor([3.0, 5.0])
    clock = ddpm_clock(diffusers.DDPMScheduler().alphas_cumprod)
    score = from_epsilon(lambda x, t: network(x, t, labels).sample, clock)
    sigma, exact = by_hand(network, x, 300, labels)
    assert torch.allclose(score(x, sigma), exact, rtol=1e-4, atol=1e-4)
    network = unet(time_embedding_type="fourier")
    score = from_epsilon(lambda x, sigma: -sigma[:, None, None, None] * network(x, sigma).sample, sigma_clock())
    assert torch.allclose(score(x, 0.5), network(x, torch.full((2,), 0.5)).sample, rtol=1e-5)


def test_a_pipeline_that_is_no_folder_of_a_unet_is_named(tmp_path):
    with pytest.raises(TypeError, match="path is UNet2DModel: it must be a folder; pass the one that save_pretrained"):
        adapters.from_diffusers(unet())
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DiTPipeline"}))
    with pytest.raises(ValueError, match="holds a DiTPipeline without a unet: only UNet2DModel is read"):
        adapters.from_diffusers(tmp_path)


def test_a_network_on_another_device_than_x_is_named():
    score = from_epsilon(nn.Bilinear(2, 1, 2).to("meta"), sigma_clock())
    with pytest.raises(ValueError, match=r"x is on cpu, the network on meta: move x with x.to\('meta'\)"):
        score(torch.zeros(3, 2), 0.5)


def test_a_predicted_variance_is_left_out(tmp_path):
    unet(out_channels=2).save_pretrained(tmp_path)
    diffusers.DDPMScheduler().save_pretrained(tmp_path)
    x = torch.rand(3, 1, 8, 8, generator=seeded())
    assert adapters.from_diffusers(tmp_path)(x, 0.5).shape == x.shape


def test_what_is_no_unet_is_refused(tmp_path):
    def refused(words):
        with pytest.raises(ValueError, match=words):
            adapters.from_diffusers(tmp_path)

    refused(r"config.json cannot be read \(No such file")
    model, scheduler = unet(), diffusers.DDPMScheduler()
    model.save_pretrained(tmp_path)
    refused(r"scheduler_config.json cannot be read")
    scheduler.save_pretrained(tmp_path)
    adapters.from_diffusers(tmp_path)
    config, steps = (json.loads((tmp_path / n).read_text()) for n in ("config.json", "scheduler_config.json"))
    (tmp_path / "scheduler_config.json").write_text(json.dumps(steps | {"prediction_type": "flow"}))
    refused(r"prediction_type = flow: it must be one of epsilon, v_prediction, sample")
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": "ScoreSdeVeScheduler"}))
    refused(r"is of a ScoreSdeVeScheduler: its steps are not DDPM's")
    (tmp_path / "scheduler_config.json").write_text(json.dumps(steps | {"beta_schedule": "strange"}))
    refused(r"no model that diffusers can read: strange")
    (tmp_path / "scheduler_config.json").write_text(json.dumps(steps))
    (tmp_path / "config.json").write_text(json.dumps(config | {"_class_name": "UNet2DConditionModel"}))
    refused(r"describes a UNet2DConditionModel: only UNet2DModel")
    (tmp_path / "config.json").write_text("{")
    refused(r"config.json cannot be read")
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(r"no model that diffusers can read")
    weights.rename(tmp_path / "diffusion_pytorch_model.bin")
    refused(r"holds no .safetensors file: pickled weights can run code")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ddpm_clock(torch.tensor(0.5)), r"alpha_bars has shape \[\]: it must be \[N\]"),
        (
            lambda: ddpm_clock(torch.tensor([0.5, 0.9])),
            r"alpha_bars\[1\] = 0.9 after 0.5: they must decrease strictly within \(0, 1\)",
        ),
        (lambda: ddpm_clock(torch.tensor([1.0, 0.9])), r"has 1 steps with noise and signal: it must have at least two"),
        (lambda: ddpm_clock(torch.tensor([1.0, 1.0, 0.9])), r"alpha_bars\[1\] = 1: they must decrease strictly"),
        (lambda: ddpm_clock(torch.tensor([0.9, 0.5]).half()), r"alpha_bars is torch.float16: too few digits"),
        (
            lambda: from_epsilon(network("epsilon"), ddpm_clock(ALPHA_BARS))(torch.zeros(2, 2, dtype=F64), 500.0),
            r"sigma = 500: the network was trained from 0.01000\d* to 157.\d*",
        ),
        (
            lambda: from_epsilon(lambda x, t: x[:, :1], sigma_clock())(torch.zeros(2, 2), 1.0),
            r"the network returned shape \[2, 1\] for x of shape \[2, 2\]",
        ),
        (lambda: from_epsilon(lambda x, t: (x,), sigma_clock())(torch.zeros(2, 2), 1.0), r"the network returned tuple"),
        (lambda: from_epsilon(lambda x, t: x, sigma_clock())(torch.zeros(2, 2), 0.0), r"sigma"),
        (lambda: rescaled(P.score, -1.0, 0.0), r"factor = -1"),
        (lambda: rescaled(P.score, 1.0, "a"), r"shift = a: it must be finite"),
        (lambda: sigma_clock(5.0, 1.0), r"sigma_min = 5.0, sigma_max = 1.0: they must be 0 <= sigma_min < sigma_max"),
        (lambda: rescaled(P.score, 1.0, math.nan), r"shift = nan: it must be finite"),
        (lambda: calibrate(P.score, P, [1.0, 2.0]), r"sigmas must decrease"),
        (lambda: calibrate(P.score, P, [2.0, 1.0], n=63), r"n = 63: it must be at least 64"),
    ],
)
def test_what_cannot_be_adapted_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="network is str: it must be callable"):
        from_epsilon("net", sigma_clock())
    with pytest.raises(TypeError, match=r"clock is NoneType: it must be a Clock; pass ddpm_clock"):
        from_epsilon(lambda x, t: x, None)
    with pytest.raises(TypeError, match="score"):
        rescaled(3, 1.0, 0.0)


def test_an_adapter_carries_its_network():
    """Weights are found, moved and trained through it"""
    wrapped = rescaled(from_epsilon(nn.Bilinear(2, 1, 2), sigma_clock()), 2.0, -1.0)
    assert len(list(wrapped.parameters())) == 2
    assert next(wrapped.double().parameters()).dtype == F64
