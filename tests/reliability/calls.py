"""One valid call of every public function and class, small and fast: what the tests of purity and of bad input go through.

An entry's name is where its function stands, ``module.function`` or ``module.Class.method``, and may go on in brackets. Its arguments are
made in a ``World``: points, mixtures, networks and a generator of one dtype, with no symmetry that could hide a mistake.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, partial
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import nn

import toyscore
from helpers import F64, seeded
from toyscore import config, data, diagnostics, models, plotting, samplers, widgets
from toyscore import operators as ops
from toyscore.distributions import Empirical, GaussianMixture, asymmetric, empirical
from toyscore.losses import denoising_score_matching, implicit_score_matching
from toyscore.models import adapters
from toyscore.noise import levels
from toyscore.sde import VE, VP, SubVP

F32 = torch.float32
LADDER = [2.0, 1.0, 0.5]
TIMES = [1.0, 0.6, 0.3, 0.1]


class World:
    """What functions are called with, in one dtype: B = 5 rows of D = 3 numbers."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu") -> None:
        self.dtype, self.device = dtype, torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(0)

    def tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, dtype=F64, device="cpu").to(self.device, self.dtype)

    def normal(self, *shape: int, seed: int = 0) -> torch.Tensor:
        return torch.randn(shape, dtype=F64, generator=seeded(seed), device="cpu").to(self.device, self.dtype)

    @cached_property
    def x(self) -> torch.Tensor:
        return 2 * self.normal(5, 3, seed=1)

    @cached_property
    def y(self) -> torch.Tensor:
        return self.normal(7, 3, seed=2) + 1

    @cached_property
    def plane(self) -> torch.Tensor:
        return 2 * self.normal(5, 2, seed=3)

    @cached_property
    def sigma(self) -> torch.Tensor:
        return self.tensor([0.3, 0.5, 0.8, 1.0, 2.0])

    @cached_property
    def sigmas(self) -> torch.Tensor:
        return self.tensor(LADDER)

    @cached_property
    def directions(self) -> torch.Tensor:
        return self.normal(2, 5, 3, seed=4)

    @cached_property
    def p(self) -> GaussianMixture:
        """D = 3, K = 2, tilted, unequal."""
        full = [
            [[2.0, 0.5, 0.1], [0.5, 0.6, -0.2], [0.1, -0.2, 0.9]],
            [[0.7, -0.1, 0.0], [-0.1, 1.5, 0.3], [0.0, 0.3, 0.4]],
        ]
        means = self.tensor([[1.0, -2.0, 0.5], [-1.5, 0.5, 1.0]])
        return GaussianMixture(means, self.tensor(full), self.tensor([0.7, 0.3]))

    @cached_property
    def gaussian(self) -> GaussianMixture:
        return GaussianMixture(self.p.means[:1], self.p.covariances[:1])

    @cached_property
    def flat(self) -> GaussianMixture:
        """D = 2, K = 3."""
        return asymmetric().to(self.device, self.dtype)

    @cached_property
    def line(self) -> GaussianMixture:
        """D = 1, K = 2, of two widths."""
        return GaussianMixture(self.tensor([[-1.5], [2.0]]), self.tensor([0.5, 1.0]), self.tensor([0.3, 0.7]))

    @cached_property
    def pair(self) -> GaussianMixture:
        """D = 2, K = 2 of one covariance."""
        return GaussianMixture(self.tensor([[1.5, 1.0], [-1.0, -1.5]]), 1.0, self.tensor([0.7, 0.3]))

    @cached_property
    def points(self) -> Empirical:
        return empirical(self.y)

    @cached_property
    def start(self) -> diagnostics.Cloud:
        return diagnostics.uniform_cloud(-3.0, 4.0, 1, 40)

    @cached_property
    def law(self) -> diagnostics.Law:
        return diagnostics.last_laws(self.line, self.start, [diagnostics.Stage(0.5, 0.2, 2)])[0]

    @cached_property
    def moments(self) -> diagnostics.Moments:
        mean, covariance = self.gaussian.mean, self.gaussian.covariance
        return diagnostics.Moments(*(t.cpu().to(F64) for t in (mean, covariance)))

    @cached_property
    def images(self) -> torch.Tensor:
        return self.normal(5, 1, 8, 8, seed=5).sigmoid()

    @cached_property
    def bytes(self) -> np.ndarray:
        return (torch.rand(6, 1, 8, 8, generator=seeded(6), device="cpu") * 255).byte().numpy()

    @cached_property
    def labelled(self) -> data.Images:
        return data.Images(self.bytes, np.array([0, 1, 1, 0, 1, 0]))

    def built(self, make: Callable[[], nn.Module]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return make().to(self.device, self.dtype)

    @cached_property
    def net(self) -> nn.Module:
        return self.built(lambda: models.MLP(3, 6, 2, LADDER, data_variance=2.0))

    @cached_property
    def plain(self) -> nn.Module:
        return self.built(lambda: models.MLP(2, 6, 2))

    @cached_property
    def image_net(self) -> nn.Module:
        return self.built(lambda: models.ContinuousNCSN(1, 8, 2, LADDER)).eval()

    @cached_property
    def classifier(self) -> nn.Module:
        return self.built(lambda: models.NoiseClassifier((3,), 3, LADDER, width=6))

    @cached_property
    def ax(self) -> Any:
        return plotting.canvas()[1]

    @cached_property
    def toy_run(self) -> config.Config:
        return config.Config(
            data=config.Data(name="toy"),
            network=config.Network(kind="mlp", width=4, depth=1),
            noise=config.Noise(sigma_max=4.0, sigma_min=0.5, n_levels=3),
            sampling=config.Sampling(n_steps_each=2),
        )

    @cached_property
    def facts(self) -> dict[str, Any]:
        return {"event": [2], "mean": 0.5, "variance": 3.0}


@dataclass(frozen=True)
class Call:
    """How a function is called, and what it promises of what comes back.

    ``shape`` is that of every tensor, or a list with one for each; ``dtype`` that of every floating-point tensor, None for the
    inputs'. ``then`` uses what was returned, where that is a function; ``default`` says that tensors are made of nothing, on
    torch's default device, or that a network draws its weights from torch's default generator, as all of torch does;
    ``changes`` names arguments that are to change.
    """

    arguments: Callable[[World], dict[str, Any]]
    shape: Any = None
    dtype: torch.dtype | None = None
    then: Callable[[Any, World], Any] = lambda result, w: result
    function: Callable[..., Any] | None = None
    default: bool = False
    changes: tuple[str, ...] = ()


B, BD = (5,), (5, 3)
two_times = {"t": 0.6, "s": 0.3}


def _chain(w: World, **more: Any) -> dict[str, Any]:
    return {"sde": VP(), "score": w.p.score, "x": w.x, "times": TIMES, **more}


def _step(w: World, **more: Any) -> dict[str, Any]:
    return {"sde": VP(), "score": w.p.score, "x": w.x, **two_times, "generator": w.generator, **more}


def _anneal(w: World, **more: Any) -> dict[str, Any]:
    given = {"score": w.p.score, "x": w.x, "sigmas": LADDER, "step_size": 0.1, "n_steps_each": 2}
    return {**given, "generator": w.generator, **more}


def _loss(w: World, **more: Any) -> dict[str, Any]:
    return {"score": w.net, "x": w.x, "sigma": w.sigma, "generator": w.generator, **more}


def _drawn(law: Any, w: World) -> torch.Tensor:
    return law(5, generator=w.generator)


def _scored(score: Any, w: World) -> torch.Tensor:
    return score(w.x, w.sigma)


def _picture(w: World, **more: Any) -> dict[str, Any]:
    return {"ax": w.ax, "sigma": 0.5, "box": 6.0, "n": 6, **more}


def _adapt(make: Any, w: World) -> torch.Tensor:
    return make(w.x, w.sigma)


def _network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return 0.3 * x + 0.1 * t.to(x)[:, None]


def _panel(w: World, **more: Any) -> dict[str, Any]:
    return {"figure": w.ax.figure, "draw": lambda **_: None, "a": widgets.Slider(0.0, 1.0, 0.5), "play": "a", **more}


OPERATORS = {
    "check_batch": Call(lambda w: {"x": w.x}),
    "check_finite": Call(lambda w: {"x": w.x}),
    "check_score": Call(lambda w: {"score": w.p.score}),
    "check_count": Call(lambda w: {"value": 3, "name": "n"}),
    "check_positive": Call(lambda w: {"value": 0.5, "name": "step"}),
    "check_sigma": Call(lambda w: {"sigma": w.sigma, "x": w.x}),
    "looks": Call(lambda w: {"value": w.sigma}),
    "expand": Call(lambda w: {"sigma": w.sigma, "x": w.x}, (5, 1)),
    "flatten": Call(lambda w: {"x": w.images}, (5, 64)),
    "unflatten": Call(lambda w: {"flat": w.images.reshape(5, 64), "x": w.images}, (5, 1, 8, 8)),
    "sum_event": Call(lambda w: {"x": w.images}, B),
    "dot": Call(lambda w: {"a": w.x, "b": w.x + 1}, B),
    "per_example": Call(lambda w: {"x": w.sigma, "like": w.images}, (5, 1, 1, 1)),
    "squared_distances": Call(lambda w: {"a": w.x, "b": w.y}, (5, 7)),
    "nearest": Call(lambda w: {"a": w.x, "b": w.y}, [B, B]),
    "pieces": Call(lambda w: {"n": 5, "width": 3}),
    "source": Call(lambda w: {"generator": w.generator, "like": w.x}),
    "normal_like": Call(lambda w: {"x": w.x, "generator": w.generator}, BD),
    "uniform": Call(lambda w: {"shape": (5,), "like": w.x, "generator": w.generator}, B),
    "rademacher_like": Call(lambda w: {"x": w.x, "generator": w.generator}, BD),
    "sphere_like": Call(lambda w: {"x": w.directions, "generator": w.generator}, (2, 5, 3)),
    "evaluate": Call(lambda w: {"score": w.p.score, "x": w.x, "sigma": w.sigma}, BD),
    "quadratic_form": Call(lambda w: {"score": w.p.score, "x": w.x, "sigma": w.sigma, "v": w.directions}, [BD, (2, 5)]),
    "gradient": Call(lambda w: {"function": w.p.log_prob, "x": w.x}, [B, BD]),
    "vector_jacobian": Call(
        lambda w: {"score": w.p.score, "x": w.x, "sigma": w.sigma, "v": w.directions}, [BD, (2, 5, 3)]
    ),
    "jacobian_trace": Call(lambda w: {"score": w.p.score, "x": w.x, "sigma": w.sigma}, [BD, B]),
    "jacobian_trace (a network's tangents)": Call(lambda w: {"score": w.net, "x": w.x, "sigma": w.sigma}, [BD, B]),
}


def _fitted() -> SklearnMixture:
    return SklearnMixture(2, random_state=0).fit(np.random.default_rng(0).normal(size=(30, 3)))


DISTRIBUTIONS = {
    "GaussianMixture": Call(lambda w: {"means": w.p.means, "covariances": w.p.covariances, "weights": w.p.weights}),
    "GaussianMixture (variances)": Call(lambda w: {"means": w.p.means, "covariances": 0.5}),
    "GaussianMixture.to": Call(lambda w: {"self": w.p, "dtype": F64}, dtype=F64),
    "GaussianMixture.log_prob": Call(lambda w: {"self": w.p, "x": w.x, "sigma": w.sigma}, B),
    "GaussianMixture.log_prob (clean)": Call(lambda w: {"self": w.p, "x": w.x, "sigma": 0.5}, B),
    "GaussianMixture.score": Call(lambda w: {"self": w.p, "x": w.x, "sigma": w.sigma}, BD),
    "GaussianMixture.score (one level)": Call(lambda w: {"self": w.p, "x": w.x, "sigma": 0.5}, BD),
    "GaussianMixture.responsibilities": Call(lambda w: {"self": w.p, "x": w.x, "sigma": w.sigma}, (5, 2)),
    "GaussianMixture.log_responsibilities": Call(lambda w: {"self": w.p, "x": w.x, "sigma": w.sigma}, (5, 2)),
    "GaussianMixture.jacobian": Call(lambda w: {"self": w.p, "x": w.x, "sigma": w.sigma}, (5, 3, 3)),
    "GaussianMixture.sample": Call(lambda w: {"self": w.p, "n": 5, "generator": w.generator}, BD),
    "GaussianMixture.sample_labelled": Call(lambda w: {"self": w.p, "n": 5, "generator": w.generator}, [BD, B]),
    "GaussianMixture.perturb": Call(lambda w: {"self": w.p, "sigma": 0.5}),
    "GaussianMixture.scaled": Call(lambda w: {"self": w.p, "factor": 0.5}),
    "GaussianMixture.from_sklearn": Call(lambda w: {"fitted": _fitted()}, dtype=F64),
    "GaussianMixture.from_torch": Call(lambda w: {"mixture": w.p.to_torch()}),
    "GaussianMixture.to_torch": Call(lambda w: {"self": w.p}),
    "GaussianMixture.marginal": Call(lambda w: {"self": w.p, "dims": [2, 0]}),
    "GaussianMixture.condition": Call(lambda w: {"self": w.p, "dims": [1], "values": w.tensor([0.5])}),
    "GaussianMixture.observe": Call(
        lambda w: {"self": w.p, "operator": w.tensor([[1.0, 2.0, 0.0]]), "values": w.tensor([0.5]), "noise_std": 0.3}
    ),
    "GaussianMixture.measure": Call(lambda w: {"self": w.p, "operator": w.tensor([[1.0, 2.0, 0.0]]), "noise_std": 0.3}),
    "Empirical": Call(lambda w: {"points": w.y}),
    "empirical": Call(lambda w: {"points": w.y}),
    "Empirical.sample": Call(lambda w: {"self": w.points, "n": 5, "generator": w.generator}, BD),
    "Empirical.log_prob": Call(lambda w: {"self": w.points, "x": w.x, "sigma": w.sigma}, B),
    "Empirical.score": Call(lambda w: {"self": w.points, "x": w.x, "sigma": w.sigma}, BD),
    "Empirical.responsibilities": Call(lambda w: {"self": w.points, "x": w.x, "sigma": w.sigma}, (5, 7)),
    "Empirical.nearest": Call(lambda w: {"self": w.points, "x": w.x}, B),
    "SampledToy.sample": Call(
        lambda w: {"self": toyscore.distributions.TOYS["rings"](), "n": 5, "generator": w.generator}, (5, 2), F32
    ),
    "SampledToy.sample (moons)": Call(
        lambda w: {"self": toyscore.distributions.TOYS["moons"](), "n": 5, "generator": w.generator},
        (5, 2),
        F32,
        default=True,
    ),
    "SampledToy.sample (circle)": Call(
        lambda w: {"self": toyscore.distributions.tilted_circle(3), "n": 5, "generator": w.generator}, BD, F32
    ),
    "two_modes": Call(lambda w: {}, dtype=F32, default=True),
    "eight_gaussians": Call(lambda w: {}, dtype=F32, default=True),
    "grid": Call(lambda w: {}, dtype=F32, default=True),
    "asymmetric": Call(lambda w: {}, dtype=F32, default=True),
    "tilted_line": Call(lambda w: {"dim": 3}, dtype=F32, default=True),
    "tilted_circle": Call(lambda w: {"dim": 3, "radius": 2.0}),
}

NOISE = {
    "check_sigmas": Call(lambda w: {"sigmas": w.sigmas}, (3,)),
    "check_range": Call(lambda w: {"low": 0.5, "high": 2.0}),
    "geometric": Call(lambda w: {"sigma_max": 2.0, "sigma_min": 0.5, "n_levels": 3}, (3,), F32, default=True),
    "karras": Call(lambda w: {"sigma_max": 2.0, "sigma_min": 0.5, "n_levels": 3, "rho": 7.0}, (3,), F32, default=True),
    "ddpm_levels": Call(lambda w: {"betas": w.tensor([0.1, 0.2, 0.3])}, (3,)),
    "annealed_steps": Call(lambda w: {"sigmas": w.sigmas, "step_size": 0.1}),
    "linear_betas": Call(lambda w: {"beta_min": 1e-4, "beta_max": 0.02, "n_steps": 5}, B, F32, default=True),
    "levels": Call(lambda w: {"sigmas": w.sigmas}, B, then=_drawn),
    "log_uniform": Call(lambda w: {"sigma_min": 0.1, "sigma_max": 2.0}, B, F32, _drawn),
    "log_normal": Call(
        lambda w: {"sigma_min": 0.1, "sigma_max": 2.0, "log_mean": -1.2, "log_std": 1.2}, B, F32, _drawn
    ),
}

LOSSES = {
    "explicit_score_matching": Call(lambda w: _loss(w, target=w.p.score), B),
    "implicit_score_matching": Call(_loss, B),
    "implicit_score_matching (autograd)": Call(lambda w: _loss(w, score=w.p.score), B),
    "sliced_score_matching": Call(lambda w: _loss(w, n_slices=2), B),
    "sliced_score_matching (gaussian)": Call(
        lambda w: _loss(w, score=w.p.score, n_slices=2, slices="gaussian", variance_reduced=False), B
    ),
    "sliced_score_matching (sphere)": Call(lambda w: _loss(w, slices="sphere"), B),
    "finite_difference_score_matching": Call(lambda w: _loss(w, step=0.01), B),
    "finite_difference_score_matching (its own step)": Call(_loss, B),
    "denoising_score_matching": Call(_loss, B),
    "noisy_cross_entropy": Call(
        lambda w: {
            "classifier": w.classifier,
            "x": torch.cat([w.x, w.tensor([[0.0], [1.0], [2.0], [1.0], [0.0]])], 1),
            "sigma": w.sigma,
            "generator": w.generator,
        },
        B,
    ),
    "perturbed": Call(
        lambda w: {"loss": implicit_score_matching},
        B,
        then=lambda loss, w: loss(w.net, w.x, w.sigma, generator=w.generator),
    ),
    "at_random_sigma": Call(
        lambda w: {"loss": denoising_score_matching, "draw": levels(w.sigmas)},
        B,
        then=lambda loss, w: loss(w.net, w.x, generator=w.generator),
    ),
}

SDES = {"VE": lambda: VE(0.1, 10.0), "VP": VP, "SubVP": SubVP}
PROCESSES = {
    f"{name}.{method}": call
    for name, make in SDES.items()
    for method, call in {
        "marginal": Call(lambda w, make=make: {"self": make(), "t": w.tensor([0.1, 0.3, 0.5, 0.9, 1.0])}, B),
        "marginal (one time)": Call(lambda w, make=make: {"self": make(), "t": 0.5}),
        "drift": Call(lambda w, make=make: {"self": make(), "x": w.x, "t": w.tensor([0.1, 0.3, 0.5, 0.9, 1.0])}, BD),
        "drift (one time)": Call(lambda w, make=make: {"self": make(), "x": w.x, "t": 0.5}, BD),
        "diffusion": Call(lambda w, make=make: {"self": make(), "t": w.tensor([0.1, 0.3, 0.5, 0.9, 1.0])}, B),
        "diffusion (one time)": Call(lambda w, make=make: {"self": make(), "t": 0.5}),
        "time": Call(lambda w, make=make: {"self": make(), "sigma": w.sigma}, B),
        "time (one level)": Call(lambda w, make=make: {"self": make(), "sigma": 0.5}),
        "prior_sample": Call(lambda w, make=make: {"self": make(), "shape": (5, 3), "generator": w.generator}, BD, F32),
    }.items()
}
SDE = {
    "VE": Call(lambda w: {"sigma_min": 0.1, "sigma_max": 10.0}),
    "VP": Call(lambda w: {"beta_min": 0.1, "beta_max": 20.0}),
    "SubVP": Call(lambda w: {"beta_min": 0.1, "beta_max": 20.0}),
    **PROCESSES,
    "check_process": Call(lambda w: {"sde": VP()}),
    "check_times": Call(lambda w: {"times": w.tensor(TIMES), "ascending": False}),
    "flow": Call(lambda w: {"score": w.p.score, "y": w.x, "sigmas": [1.0, 0.5], "rtol": 1e-3, "atol": 1e-3}, BD),
    "integrate": Call(
        lambda w: {
            "rate": partial(ops.jacobian_trace, w.p.score),
            "y": w.x,
            "sigmas": [1.0, 0.5],
            "rtol": 1e-3,
            "atol": 1e-3,
        },
        [BD, B, BD, B],
    ),
    "geometric_times": Call(lambda w: {"sde": VP(), "n_steps": 4, "t_min": 0.1, "t_max": 1.0}, B, F32, default=True),
    "karras_times": Call(
        lambda w: {"sde": VP(), "n_steps": 4, "t_min": 0.1, "t_max": 1.0, "rho": 7.0}, B, F32, default=True
    ),
    "uniform_times": Call(lambda w: {"n_steps": 4, "t_min": 0.1, "t_max": 1.0}, B, F32, default=True),
    "level_times": Call(lambda w: {"sde": VP(), "sigmas": w.sigmas}, (3,)),
    "law_at": Call(lambda w: {"sde": VP(), "mixture": w.p, "t": 0.5}),
    "likelihood_weight": Call(lambda w: {"sde": VP()}, B, then=lambda weight, w: weight(w.sigma)),
    "noise_level": Call(lambda w: {"sde": VP(), "t": w.tensor([0.1, 0.3, 0.5, 0.9, 1.0])}, B),
    "noise_level (one time)": Call(lambda w: {"sde": VP(), "t": 0.5}),
    "reverse_drift": Call(lambda w: {"sde": VP(), "score": w.p.score, "x": w.x, "t": 0.5, "noise": 0.5}, BD),
    "reverse_drift (times)": Call(
        lambda w: {"sde": VP(), "score": w.p.score, "x": w.x, "t": w.tensor([0.1, 0.3, 0.5, 0.9, 1.0])}, BD
    ),
    "sigma_score": Call(lambda w: {"sde": VP(), "score": lambda x, t: -x}, BD, then=_scored),
    "time_score": Call(lambda w: {"sde": VP(), "score": w.p.score}, BD, then=lambda score, w: score(w.x, 0.5)),
    "transition": Call(lambda w: {"sde": VP(), "s": 0.3, "t": 0.6}),
    "uniform_in_time": Call(lambda w: {"sde": VP(), "t_min": 1e-3}, B, F32, _drawn),
}

OPERATOR = [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
SAMPLERS = {
    "langevin": Call(
        lambda w: {
            "score": w.p.score,
            "x": w.x,
            "step_size": 0.1,
            "n_steps": 3,
            "sigma": w.sigma,
            "generator": w.generator,
        },
        BD,
    ),
    "langevin (one level)": Call(
        lambda w: {
            "score": w.p.score,
            "x": w.x,
            "step_size": 0.1,
            "n_steps": 3,
            "sigma": 0.5,
            "generator": w.generator,
        },
        BD,
    ),
    "langevin_step": Call(lambda w: {"x": w.x, "grad": -w.x, "step_size": 0.1, "generator": w.generator}, BD),
    "langevin_step (a step for each row)": Call(
        lambda w: {"x": w.x, "grad": -w.x, "step_size": w.sigma[:, None], "generator": w.generator}, BD
    ),
    "metropolis_langevin": Call(
        lambda w: {
            "log_prob": w.p.log_prob,
            "score": w.p.score,
            "x": w.x,
            "step_size": 0.1,
            "n_steps": 3,
            "sigma": 0.5,
            "generator": w.generator,
        },
        BD,
    ),
    "annealed_langevin": Call(lambda w: _anneal(w, denoise=True, clamp=(-9.0, 9.0)), BD),
    "annealed_langevin (a network)": Call(lambda w: _anneal(w, score=w.net, sigmas=w.sigmas), BD),
    "inpaint": Call(
        lambda w: _anneal(w, known=w.x[0], mask=torch.tensor([True, False, True], device=w.device), denoise=True), BD
    ),
    "between": Call(lambda w: {"n": 5}, BD, then=lambda noise, w: noise(w.x, w.generator)),
    "interpolate": Call(lambda w: {"a": w.x[0], "b": w.x[1], "n": 5}, BD),
    "tweedie": Call(lambda w: {"score": w.p.score, "x": w.x, "sigma": w.sigma}, BD),
    "final": Call(lambda w: {"chain": [w.x, w.x + 1]}, BD),
    "diffuse": Call(lambda w: {"sde": VP(), "x": w.x, "times": [0.0, 0.5, 1.0], "generator": w.generator}, BD),
    "reverse_sde": Call(lambda w: _chain(w, noise=0.5, generator=w.generator), BD),
    "reverse_diffusion": Call(lambda w: _chain(w, generator=w.generator), BD),
    "ancestral": Call(lambda w: _chain(w, generator=w.generator), BD),
    "ddim": Call(lambda w: _chain(w, eta=0.5, generator=w.generator), BD),
    "ddim (sub-VP, a network)": Call(lambda w: _chain(w, sde=SubVP(), score=w.net), BD),
    "probability_flow": Call(lambda w: _chain(w, sde=VE(0.1, 10.0)), BD),
    "adaptive_flow": Call(lambda w: _chain(w, times=w.tensor([1.0, 0.5]), rtol=1e-3, atol=1e-3), BD),
    "predictor_corrector": Call(lambda w: _chain(w, snr=0.1, n_corrector_steps=2, generator=w.generator), BD),
    "predictor_corrector (no predictor)": Call(
        lambda w: _chain(w, predictor=None, snr=0.1, width=samplers.batch_norms, generator=w.generator), BD
    ),
    "posterior_mean": Call(lambda w: {"sde": VP(), "score": w.p.score, "x": w.x, "t": 0.5}, BD),
    "matched_norms": Call(lambda w: {"grad": w.x, "z": w.x + 1, "std": 0.5}, B),
    "batch_norms": Call(lambda w: {"grad": w.x, "z": w.x + 1, "std": 0.5}, ()),
    "noise_std": Call(lambda w: {"grad": w.x, "z": w.x + 1, "std": 0.5}),
    "ancestral_step": Call(_step, BD),
    "ddim_step": Call(lambda w: _step(w, eta=0.5), BD),
    "euler_maruyama_step": Call(lambda w: _step(w, noise=0.5), BD),
    "reverse_diffusion_step": Call(_step, BD),
    "heun_step": Call(_step, BD),
    "corrected_step": Call(lambda w: _step(w, snr=0.1), BD),
    "corrector_step": Call(
        lambda w: {
            "sde": VP(),
            "score": w.p.score,
            "x": w.x,
            "t": 0.5,
            "factor": 0.04,
            "width": samplers.noise_std,
            "generator": w.generator,
        },
        BD,
    ),
    "guided": Call(
        lambda w: {"score": w.p.score, "log_likelihood": samplers.of_class(w.classifier, 1), "strength": 2.0},
        BD,
        then=_scored,
    ),
    "of_class": Call(lambda w: {"classifier": w.classifier, "label": 1}, B, then=_scored),
    "of_class (a class for each row)": Call(
        lambda w: {"classifier": w.classifier, "label": torch.tensor([0, 1, 2, 1, 0], device=w.device)},
        B,
        then=_scored,
    ),
    "mixture_classes": Call(lambda w: {"mixture": w.p}, (5, 2), then=_scored),
    "of_mixture": Call(
        lambda w: {"mixture": w.p, "operator": w.tensor(OPERATOR), "y": w.tensor([0.5, -0.5]), "noise_std": 0.3},
        B,
        then=_scored,
    ),
    "of_measurement": Call(
        lambda w: {"score": w.p.score, "operator": w.tensor(OPERATOR), "y": w.tensor([0.5, -0.5]), "noise_std": 0.3},
        B,
        then=_scored,
    ),
    "of_measurement (a variance)": Call(
        lambda w: {
            "score": w.p.score,
            "operator": w.tensor(OPERATOR),
            "y": w.normal(5, 2),
            "noise_std": 0.3,
            "data_variance": 2.0,
        },
        B,
        then=_scored,
    ),
    "rows_of": Call(lambda w: {"mask": torch.tensor([True, False, True], device=w.device)}, (2, 3), F32, default=True),
    "grey": Call(lambda w: {"event": (3, 2, 2)}, (4, 12), F32, default=True),
}

LIKELIHOOD = {
    "log_likelihood": Call(
        lambda w: {"sde": VP(), "score": w.p.score, "x": w.x, "t_min": 0.1, "rtol": 1e-3, "atol": 1e-3}, B
    ),
    "log_likelihood (estimated)": Call(
        lambda w: {
            "sde": VE(0.1, 10.0),
            "score": w.net,
            "x": w.x,
            "prior": w.p.perturb(10.0),
            "t_min": 0.5,
            "rtol": 1e-3,
            "atol": 1e-3,
            "exact_trace": False,
            "generator": w.generator,
        },
        B,
    ),
    "bits_per_dimension": Call(lambda w: {"log_prob": w.sigma, "dim": 3, "n_levels": 17}, B),
}

OURS = {"one": diagnostics.Objective(denoising_score_matching, 1, -1)}
DIAGNOSTICS = {
    "affine_law": Call(
        lambda w: {
            "step": samplers.reverse_diffusion_step,
            "sde": VP(),
            "gaussian": w.gaussian,
            "times": w.tensor([0.5, 0.4]),
            "start": w.moments,
        },
        [(3,), (3, 3)],
        F64,
    ),
    "gaussian_divergence": Call(lambda w: {"p": w.moments, "q": w.gaussian.perturb(0.5)}),
    "annealed_stages": Call(lambda w: {"sigmas": w.sigmas, "step_size": 0.1, "n_steps_each": 2}),
    "check_stable": Call(lambda w: {"variance": w.sigma, "step_size": 0.1}),
    "design_ladder": Call(
        lambda w: {"sigma_max": 2.0, "sigma_min": 0.5, "dim": 3, "n_steps_each": 5, "n_levels": 3}, (3,), F32
    ),
    "design_ladder (its own levels)": Call(
        lambda w: {"sigma_max": 2.0, "sigma_min": 0.5, "dim": 9, "n_steps_each": 5, "overlap": 0.5}, dtype=F32
    ),
    "design_levels": Call(lambda w: {"points": w.x, "sigma_min": 0.5, "n_steps_each": 5, "overlap": 0.3}, dtype=F32),
    "design_levels (a quantile)": Call(lambda w: {"points": w.x, "sigma_min": 0.5, "quantile": 0.7}, dtype=F32),
    "distance_quantile": Call(lambda w: {"points": w.x, "quantile": 0.7}),
    "largest_distance": Call(lambda w: {"points": w.x}),
    "divergences": Call(
        lambda w: {
            "p": w.line,
            "q": GaussianMixture(w.line.means, 1.0, w.line.weights),
            "sigma": 0.5,
            "nodes_per_std": 10.0,
        }
    ),
    "weight_blindness": Call(lambda w: {"mixture": w.line, "weights": [0.6, 0.4], "sigmas": [0.0, 1.0]}, (2,), F64),
    "epsilon_from_eta": Call(lambda w: {"eta": 0.1}),
    "eta_from_epsilon": Call(lambda w: {"step_size": 0.1}),
    "exact_fisher": Call(
        lambda w: {"score": w.gaussian.score, "mixture": w.p, "sigma": 0.5, "n": 20, "generator": w.generator}
    ),
    "exact_fisher (by quadrature)": Call(
        lambda w: {"score": lambda x, sigma: -x, "mixture": w.line, "sigma": 0.5, "n": 20}
    ),
    "eyring_kramers": Call(lambda w: {"mixture": w.pair, "sigma": 0.1}),
    "spectral_gap": Call(lambda w: {"distribution": w.line, "sigma": 0.5, "nodes_per_std": 8.0}),
    "spectral_gap (of a log density)": Call(
        lambda w: {"distribution": lambda x: -x.square().sum(1), "bounds": [(-4.0, 4.0)], "n_nodes": 201}
    ),
    "slow_modes (of a log density)": Call(
        lambda w: {"distribution": lambda x: -x.square().sum(1), "n_modes": 1, "bounds": [(-4.0, 4.0)], "n_nodes": 201},
        dtype=F64,
    ),
    "slow_modes": Call(lambda w: {"distribution": w.line, "sigma": 0.5, "n_modes": 2, "nodes_per_std": 8.0}, dtype=F64),
    "hop_rate": Call(
        lambda w: {
            "chain": [w.plane, w.plane + 0.1, -w.plane],
            "mixture": w.pair,
            "step_size": 0.1,
            "sigma": 0.5,
            "core": 0.68,
            "n_discard": 0,
        }
    ),
    "turning_width": Call(lambda w: {"mixture": w.p}),
    "separates": Call(lambda w: {"mixture": w.pair}),
    "reduce": Call(lambda w: {"mixture": w.pair}, dtype=F64),
    "uniform_cloud": Call(lambda w: {"low": -3.0, "high": 4.0, "dim": 2, "n": 4}, [(16, 2), (16,)], F64),
    "quadrature": Call(lambda w: {"mixture": w.line, "sigma": 0.5, "nodes_per_std": 10.0}, dtype=F64),
    "propagate": Call(
        lambda w: {"mixture": w.line, "start": w.start, "schedule": [diagnostics.Stage(0.5, 0.2, 2)]}, dtype=F64
    ),
    "last_laws": Call(
        lambda w: {"mixture": w.line, "start": w.start, "schedule": [diagnostics.Stage(0.5, 0.2, 2)]}, dtype=F64
    ),
    "Stage": Call(lambda w: {"sigma": 0.5, "step_size": 0.2, "n_steps": 2}),
    "Law.refined": Call(lambda w: {"self": w.law, "spacing": 0.1}, dtype=F64),
    "Law.total_variation": Call(lambda w: {"self": w.law, "mixture": w.line, "sigma": 0.5}),
    "Law.mode_weights": Call(lambda w: {"self": w.law, "mixture": w.line}, (2,), F64),
    "freeze_out": Call(
        lambda w: {
            "mixture": w.line,
            "start": w.start,
            "schedule": [diagnostics.Stage(1.0, 0.4, 2), diagnostics.Stage(0.5, 0.2, 2)],
            "n_modes": 1,
        },
        dtype=F64,
    ),
    "gradient_variance": Call(
        lambda w: {
            "model": w.net,
            "loss": denoising_score_matching,
            "distribution": w.p,
            "sigma": 0.5,
            "batch_size": 4,
            "n_batches": 3,
            "generator": w.generator,
        }
    ),
    "intrinsic_dimension": Call(lambda w: {"score": w.p.score, "x": w.x, "sigma": w.sigma, "generator": w.generator}),
    "least_normal_loss": Call(lambda w: {"codimension": 2, "noise_std": 0.5}),
    "normal_loss": Call(lambda w: {"stiffness": 2.0, "codimension": 2, "noise_std": 0.5}),
    "level_overlap": Call(lambda w: {"dim": 3, "ratio": 1.5}),
    "level_ratio": Call(lambda w: {"dim": 9, "overlap": 0.5}),
    "tuned_step": Call(lambda w: {"ratio": 1.5, "sigma_min": 0.5, "n_steps_each": 5}),
    "library_objectives": Call(lambda w: {"mixture": w.p}),
    "matched_norms_law": Call(
        lambda w: {"mixture": w.line, "sigma": 0.5, "n_empty": 1, "nodes_per_std": 10.0}, dtype=F64
    ),
    "measured_variance": Call(lambda w: {"chain": [w.x, w.x + 0.1, -w.x], "n_discard": 1}, (3,), F64),
    "objective_identities": Call(
        lambda w: {
            "score": w.gaussian.score,
            "mixture": w.p,
            "sigma": 0.5,
            "n": 20,
            "objectives": OURS,
            "generator": w.generator,
        }
    ),
    "relaxed_variance": Call(lambda w: {"start": 2.0, "variance": w.sigma, "step_size": 0.1, "n_steps": 3}, B, F64),
    "stationary_variance": Call(lambda w: {"variance": w.sigma, "step_size": 0.1}, B, F64),
    "stability_bound": Call(lambda w: {"variance": w.sigma}),
    "signal_to_noise": Call(lambda w: {"score": w.p.score, "x": w.x, "sigma": w.sigma, "step_size": 0.1}),
    "stein_numbers": Call(
        lambda w: {"score": w.p.score, "x": w.x, "sigma": w.sigma, "step_size": 0.1, "centre": w.x[0]}, B, F64
    ),
}

METRICS = {
    "denoising_losses": Call(
        lambda w: {"score": w.p.score, "x": w.x, "sigmas": w.sigmas, "generator": w.generator}, (3,)
    ),
    "linear_losses": Call(lambda w: {"covariance": w.p.covariance, "sigmas": w.sigmas}, (3,)),
    "effective_sample_size": Call(lambda w: {"chains": w.normal(8, 5, 3)}, (3,)),
    "split_r_hat": Call(lambda w: {"chains": w.normal(8, 5, 3)}, (3,)),
    "rank_normalized_r_hat": Call(lambda w: {"chains": w.normal(8, 5, 3)}, (3,)),
    "energy_distance": Call(lambda w: {"x": w.x, "y": w.y}),
    "same_law": Call(lambda w: {"x": w.x, "y": w.y, "n_permutations": 60, "generator": w.generator}),
    "wasserstein2": Call(lambda w: {"x": w.x, "y": w.y}),
    "sliced_wasserstein2": Call(lambda w: {"x": w.x, "y": w.y[:5], "n_projections": 4, "generator": w.generator}),
    "sliced_wasserstein2 (of two sizes)": Call(
        lambda w: {"x": w.x, "y": w.y, "n_projections": 4, "generator": w.generator}
    ),
    "mmd2": Call(lambda w: {"x": w.x, "y": w.y, "bandwidth": 1.5}),
    "mmd2 (its own bandwidth)": Call(lambda w: {"x": w.x, "y": w.y}),
    "nearest": Call(lambda w: {"x": w.x, "data": w.y}, B),
    "overlap": Call(lambda w: {"samples": w.x, "data": w.y, "k": 2}),
    "expected_coverage": Call(lambda w: {"n_samples": 5, "n_data": 7, "k": 2}),
    "fisher_divergence": Call(lambda w: {"score": w.net, "distribution": w.p, "x": w.x, "sigma": w.sigma}),
    "fisher_divergence_by_region": Call(
        lambda w: {
            "score": w.net,
            "distribution": w.p,
            "x": w.x,
            "regions": (w.x[:, 0] > 0).long(),
            "sigma": w.sigma,
        },
        (2,),
    ),
    "relative_errors": Call(lambda w: {"score": w.net, "distribution": w.p, "x": w.x, "sigma": w.sigma}, B),
    "mode_weights": Call(lambda w: {"x": w.x, "mixture": w.p}, (2,)),
    "mode_weight_errors": Call(lambda w: {"x": w.x, "mixture": w.p}, (2,)),
    "frechet_distance": Call(lambda w: {"x": w.x, "y": w.y}),
    "kernel_distance": Call(lambda w: {"x": w.x, "y": w.y}),
    "fit_classifier": Call(lambda w: {"data": w.labelled, "seed": 0}),
    "fit_features": Call(
        lambda w: {"data": w.labelled, "n_features": 3, "n_steps": 1, "seed": 0}, default=True, dtype=F32
    ),
    "Features": Call(lambda w: {"event": (1, 8, 8), "n_features": 3, "n_classes": 2}, default=True, dtype=F32),
    "Features.forward": Call(lambda w: {"self": _features(w), "x": w.images}, (5, 4), F32),
    "Features.classes": Call(lambda w: {"self": _features(w), "x": w.images}, B),
}

MODELS = {
    "MLP": Call(
        lambda w: {"dim": 3, "width": 4, "depth": 2, "sigmas": w.sigmas, "data_variance": 2.0}, dtype=F32, default=True
    ),
    "MLP.forward": Call(lambda w: {"self": w.net, "x": w.x, "sigma": w.sigma}, BD),
    "MLP.forward (unconditional)": Call(lambda w: {"self": w.plain, "x": w.plane}, (5, 2)),
    "MLP.jvp": Call(lambda w: {"self": w.net, "x": w.x, "sigma": w.sigma, "tangents": w.directions}, [BD, (2, 5, 3)]),
    "NCSN": Call(lambda w: {"channels": 1, "image_size": 8, "width": 2, "sigmas": LADDER}, dtype=F32, default=True),
    "NCSN.forward": Call(
        lambda w: {
            "self": w.built(lambda: models.NCSN(1, 8, 2, LADDER)),
            "x": w.images,
            "sigma": w.tensor([2.0, 1.0, 0.5, 0.5, 2.0]),
        },
        (5, 1, 8, 8),
    ),
    "CompactNCSN": Call(
        lambda w: {"channels": 1, "image_size": 8, "width": 2, "sigmas": LADDER}, dtype=F32, default=True
    ),
    "CompactNCSN.forward": Call(
        lambda w: {"self": w.built(lambda: models.CompactNCSN(1, 8, 2, sigmas=LADDER)), "x": w.images, "sigma": 1.0},
        (5, 1, 8, 8),
    ),
    "ContinuousNCSN": Call(
        lambda w: {
            "channels": 1,
            "image_size": 8,
            "width": 2,
            "sigmas": LADDER,
            "data_mean": 0.5,
            "data_variance": 0.1,
        },
        dtype=F32,
        default=True,
    ),
    "ContinuousNCSN.forward": Call(lambda w: {"self": w.image_net, "x": w.images, "sigma": w.sigma}, (5, 1, 8, 8)),
    "NoiseClassifier": Call(
        lambda w: {
            "event": (3,),
            "n_classes": 3,
            "sigmas": LADDER,
            "width": 4,
            "depth": 1,
            "data_mean": 0.5,
            "data_variance": 2.0,
        },
        dtype=F32,
        default=True,
    ),
    "NoiseClassifier.forward": Call(lambda w: {"self": w.classifier, "x": w.x, "sigma": w.sigma}, (5, 3)),
    "EMA": Call(lambda w: {"model": w.net, "decay": 0.9}, default=True),
    "EMA.forward": Call(lambda w: {"self": models.EMA(w.net, 0.9), "x": w.x, "sigma": w.sigma}, BD),
    "EMA.update": Call(lambda w: {"self": models.EMA(w.net, 0.9)}, changes=("self",)),
    "EMA.train": Call(lambda w: {"self": models.EMA(w.net, 0.9)}, changes=("self",)),
    "calibrate": Call(
        lambda w: {"score": w.p.score, "data": w.p, "sigmas": [2.0, 1.0], "n": 64, "generator": w.generator},
        (2,),
        F64,
        lambda found, w: (found.size, found.agreement, found.floor),
    ),
    "adapters.ddpm_clock": Call(
        lambda w: {"alpha_bars": w.tensor([0.9, 0.5, 0.2])}, B, then=lambda clock, w: clock.time(w.sigma)
    ),
    "adapters.sigma_clock": Call(
        lambda w: {"sigma_min": 0.1, "sigma_max": 9.0}, B, then=lambda clock, w: clock.alpha(w.sigma)
    ),
    "adapters.sde_clock": Call(lambda w: {"sde": VP(), "factor": 999.0}, B, then=lambda clock, w: clock.time(w.sigma)),
    "adapters.from_epsilon": Call(lambda w: {"network": _network, "clock": adapters.sde_clock(VP())}, BD, then=_adapt),
    "adapters.from_v": Call(lambda w: {"network": _network, "clock": adapters.sigma_clock()}, BD, then=_adapt),
    "adapters.from_x0": Call(lambda w: {"network": _network, "clock": adapters.sigma_clock()}, BD, then=_adapt),
    "adapters.rescaled": Call(lambda w: {"score": w.p.score, "factor": 2.0, "shift": -1.0}, BD, then=_adapt),
    "adapters.epsilon_score": Call(lambda w: {"epsilon": w.x, "x": w.x, "std": w.sigma[:, None]}, BD),
    "adapters.v_score": Call(lambda w: {"v": w.x, "x": w.x, "std": w.sigma[:, None]}, BD),
    "adapters.x0_score": Call(lambda w: {"x0": w.x + 1, "x": w.x, "std": w.sigma[:, None]}, BD),
    "adapters.alpha_of": Call(lambda w: {"sigma": w.sigma}, B),
}

TRAIN = {
    "fit": Call(
        lambda w: {
            "model": w.plain,
            "data": w.flat,
            "loss": implicit_score_matching,
            "n_steps": 2,
            "batch_size": 4,
            "lr": 0.01,
            "seed": 3,
            "n_shards": 2,
            "clip": 1.0,
        },
        changes=("model",),
    ),
    "rate": Call(lambda w: {"step": 3, "n_steps": 9, "lr": 0.01}),
    "draw_seed": Call(lambda w: {"seed": 3, "step": 2, "shard": 1}),
}

DATA = {
    "Images": Call(lambda w: {"values": w.bytes, "n_levels": 256}),
    "Images.sample": Call(
        lambda w: {"self": data.Images(w.bytes, flip=True), "n": 5, "generator": w.generator}, (5, 1, 8, 8), F32
    ),
    "Images.sample_labelled": Call(
        lambda w: {"self": w.labelled, "n": 5, "generator": w.generator}, [(5, 1, 8, 8), B], F32
    ),
    "Images.tensor": Call(lambda w: {"self": w.labelled, "limit": 5}, (5, 1, 8, 8), F32),
    "Crops": Call(lambda w: {"photos": list(w.bytes), "size": 4}),
    "Crops.sample": Call(
        lambda w: {"self": data.Crops(list(w.bytes), 4), "n": 5, "generator": w.generator}, (5, 1, 4, 4), F32
    ),
    "Labelled": Call(lambda w: {"source": w.labelled}),
    "Labelled.sample": Call(
        lambda w: {"self": data.Labelled(w.p), "n": 5, "generator": w.generator},
        (5, 4),
    ),
    "images": Call(lambda w: {"x": w.images, "labels": torch.tensor([0, 1, 1, 0, 1], device=w.device)}),
    "digits": Call(lambda w: {"part": "held-out"}),
}

PLOTTING = {
    "grid": Call(lambda w: {"box": 6.0, "n": 4, "like": w.x}, (16, 2)),
    "arrow_scale": Call(lambda w: {"norms": w.sigma, "box": 6.0, "n": 4}),
    "mass_level": Call(lambda w: {"density": w.sigma, "cell": 0.5, "mass": 0.5}),
    "density": Call(lambda w: _picture(w, log_prob=w.flat.log_prob, like=w.x)),
    "vector_field": Call(lambda w: _picture(w, score=w.flat.score, scale=0.5, like=w.x)),
    "score_map": Call(lambda w: _picture(w, score=w.flat.score, n_arrows=3, limits=(0.01, 100.0), like=w.x)),
    "field_comparison": Call(
        lambda w: _picture(w, score=w.pair.score, target=w.flat.score, n=12, n_arrows=3, threshold=0.5, like=w.x)
    ),
    "frame": Call(lambda w: {"ax": w.ax, "box": 6.0}),
    "samples": Call(lambda w: {"ax": w.ax, "x": w.plane, "box": 6.0, "size": 7.0}),
    "chains": Call(lambda w: {"ax": w.ax, "states": w.normal(4, 5, 2), "box": 6.0}),
    "curves": Call(lambda w: {"ax": w.ax, "x": w.sigma, "values": {"plain": w.normal(2, 5).exp()}}),
    "history": Call(lambda w: {"ax": w.ax, "steps": w.sigma, "values": w.sigma.square(), "smooth": 3}),
    "mosaic": Call(lambda w: {"x": w.images, "n_columns": 3}),
    "canvas": Call(lambda w: {"n_rows": 1, "n_columns": 2, "size": 2.0}),
    "alt_text": Call(lambda w: {"figure": w.ax.figure}),
    "renderer": Call(lambda w: {"figure": plotting.canvas(size=1.0)[0]}, then=lambda render, w: render()),
    "animate": Call(
        lambda w: {
            "figure": plotting.canvas(size=1.0)[0],
            "update": lambda state: None,
            "states": [w.x, w.y],
            "every": 1,
        }
    ),
}

WIDGETS = {
    "Slider": Call(lambda w: {"low": 0.0, "high": 1.0, "value": 0.5, "step": 0.1}),
    "Slider.at": Call(lambda w: {"self": widgets.Slider(0.0, 1.0, 0.5), "n": 3}),
    "Slider.place": Call(lambda w: {"self": widgets.Slider(0.0, 1.0, 0.5), "value": 0.3}),
    "Slider.nearest": Call(lambda w: {"self": widgets.Slider(0.0, 1.0, 0.5), "value": 0.312}),
    "Slider.on_step": Call(lambda w: {"self": widgets.Slider(0.0, 1.0, 0.5), "value": 0.312}),
    "Slider.parse": Call(lambda w: {"self": widgets.Slider(0.0, 1.0, 0.5), "text": "0.3"}),
    "Choice": Call(lambda w: {"options": ("few", "many"), "value": "few"}),
    "Choice.parse": Call(lambda w: {"self": widgets.Choice(("few", "many"), "few"), "text": "many"}),
    "Toggle": Call(lambda w: {"value": True}),
    "Toggle.parse": Call(lambda w: {"self": widgets.Toggle(), "text": "True"}),
    "Seed": Call(lambda w: {"value": 3}),
    "Seed.parse": Call(lambda w: {"self": widgets.Seed(), "text": "3"}),
    "panel": Call(
        lambda w: _panel(w, interval=0.1), function=lambda figure, draw, **more: widgets.panel(figure, draw, **more)
    ),
}

CONFIG = {
    "Config.asdict": Call(lambda w: {"self": w.toy_run}),
    "Config.fromdict": Call(lambda w: {"values": w.toy_run.asdict()}),
    "suggestion": Call(lambda w: {"key": "sigma_mx", "known": ["sigma_max", "sigma_min"]}),
    "check": Call(lambda w: {"config": w.toy_run}),
    "check_used": Call(lambda w: {"values": w.toy_run}),
    "as_read": Call(lambda w: {"config": w.toy_run}),
}

BUILD = {
    "build_data": Call(lambda w: {"config": w.toy_run.data}, dtype=F32, default=True),
    "event_of": Call(lambda w: {"config": w.toy_run.data}, default=True),
    "build_levels": Call(lambda w: {"noise": w.toy_run.noise}, (3,), F32, default=True),
    "describe": Call(lambda w: {"data": w.labelled}),
    "check_facts": Call(lambda w: {"facts": w.facts}),
    "build_network": Call(lambda w: {"config": w.toy_run, "facts": w.facts}, dtype=F32, default=True),
    "quicken": Call(lambda w: {"network": w.net}),
    "build_loss": Call(
        lambda w: {"noise": w.toy_run.noise},
        B,
        then=lambda loss, w: loss(w.net, w.x, generator=w.generator),
        default=True,
    ),
    "sampling_plan": Call(lambda w: {"config": w.toy_run}, dtype=F32, default=True),
    "n_calls": Call(lambda w: {"config": w.toy_run}, default=True),
    "sampling_chain": Call(
        lambda w: {
            "score": w.built(lambda: models.MLP(2, 4, 1, LADDER)),
            "config": w.toy_run,
            "data": w.facts,
            "n": 5,
            "seed": 1,
        },
        (5, 2),
        default=True,
    ),
    "draw_samples": Call(
        lambda w: {
            "score": w.built(lambda: models.MLP(2, 4, 1, LADDER)),
            "config": w.toy_run,
            "data": w.facts,
            "n": 5,
            "seed": 1,
            "batch": 3,
        },
        (5, 2),
        default=True,
    ),
}


def _features(w: World) -> nn.Module:
    return w.built(lambda: toyscore.metrics.Features((1, 8, 8), 4, 2)).float().eval()


CALLS: dict[str, Call] = {
    f"{module}.{name}": call
    for module, calls in {
        "operators": OPERATORS,
        "distributions": DISTRIBUTIONS,
        "noise": NOISE,
        "losses": LOSSES,
        "sde": SDE,
        "samplers": SAMPLERS,
        "likelihood": LIKELIHOOD,
        "diagnostics": DIAGNOSTICS,
        "metrics": METRICS,
        "models": MODELS,
        "train": TRAIN,
        "data": DATA,
        "plotting": PLOTTING,
        "widgets": WIDGETS,
        "config": CONFIG,
        "build": BUILD,
    }.items()
    for name, call in calls.items()
}

_RESULT = "holds results, which a function of the table makes"
_TYPE = "says what something must look like; nothing is computed"
_FILES = "reads or writes files; see test_checkpoints, test_cli, test_data, test_plotting"
_FETCHED = "needs data or packages that are fetched; see test_data, test_image_metrics, test_adapters"
_PLAIN = "plain data, checked by config.check; see test_cli"
_SCREEN = "a control or a panel on the screen; see test_widgets"
EXEMPT = {
    "operators.check_event": "what scores check x with; they are called",
    **{
        f"config.{name}": _PLAIN
        for name in (
            *("ConfigError", "Data", "Network", "Noise", "Training", "Sampling", "Config"),
            *("check_count", "check_group", "check_seed", "check_types", "told"),
        )
    },
    **{f"data.{name}": _FETCHED for name in ("DownloadError", "cifar10", "mnist", "mnist5k", "photos")},
    "data.image_folder": _FILES,
    "data.Part": _TYPE,
    **{
        f"diagnostics.{name}": _RESULT
        for name in (
            *("Blindness", "Cloud", "Dimension", "Divergences", "Fisher", "FreezeOut", "HopRate", "Identity", "Law"),
            *("Moments", "NoiseDesign", "Objective", "SlowModes", "Variance"),
        )
    },
    "distributions.SampledToy": "made by its constructors, which the table has",
    "likelihood.Prior": _TYPE,
    "likelihood.Prior.log_prob": _TYPE,
    "losses.Classifier": _TYPE,
    "losses.Loss": _TYPE,
    **{f"metrics.{name}": _RESULT for name in ("Confidence", "InceptionScores", "Overlap")},
    **{f"metrics.Classifier{name}": _FETCHED for name in ("", ".probabilities", ".confidence")},
    "metrics.Scored": _TYPE,
    "metrics.Scored.score": _TYPE,
    "metrics.inception_scores": _FETCHED,
    "models.Calibration": _RESULT,
    "models.CalibrationWarning": _TYPE,
    "models.NCSN.load_official": "takes another's weights; see test_ncsn",
    "models.adapters.Clock": "made by its constructors, which the table has",
    **{f"models.adapters.{name}": "made by functions, which the table has" for name in ("Adapted", "Rescaled")},
    **{f"models.adapters.{name}.forward": "called by the table's functions" for name in ("Adapted", "Rescaled")},
    "models.adapters.from_diffusers": _FETCHED,
    "noise.Draw": _TYPE,
    **{f"operators.{name}": _TYPE for name in ("Score", "Distribution", "Distribution.sample", "DivergenceError")},
    **{f"plotting.{name}": _RESULT for name in ("FieldComparison", "Role")},
    **{f"plotting.{name}": _FILES for name in ("save", "save_gif", "save_mosaic")},
    **{f"pretrained.{name}": _FILES for name in ("Pretrained", "load", "export", "digits", "photos")},
    **{f"samplers.{name}": _TYPE for name in ("LogLikelihood", "Noise", "Step", "Width")},
    **{f"sde.SDE{name}": _TYPE for name in ("", ".marginal", ".drift", ".diffusion", ".time", ".prior_sample")},
    **{f"train.{name}": _RESULT for name in ("Checkpoint", "Step", "Step.state")},
    **{
        f"train.{name}": _FILES
        for name in ("CheckpointError", "latest_checkpoint", "list_checkpoints", "load_checkpoint", "save_checkpoint")
    },
    **{f"widgets.{kind}.widget": _SCREEN for kind in ("Slider", "Choice", "Toggle", "Seed")},
    "widgets.Slider.number": _SCREEN,
    **{
        f"widgets.Panel{name}": _SCREEN
        for name in ("", ".say", ".set", ".restore", ".reset", ".begin_here", ".step", ".play", ".stop", ".export")
    },
}


def public() -> Iterator[str]:
    """Every public function, class and method."""
    for name in [*toyscore.__all__, "models.adapters"]:
        module = importlib.import_module(f"toyscore.{name}")
        own = [k for k, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__]
        for key in getattr(module, "__all__", own):
            value = getattr(module, key)
            if key.startswith("_") or not callable(value) or isinstance(value, type(mpl)):
                continue
            yield f"{name}.{key}"
            if inspect.isclass(value):
                methods = [
                    k
                    for k, v in vars(value).items()
                    if not k.startswith("_") and (callable(v) or isinstance(v, classmethod))
                ]
                yield from (f"{name}.{key}.{method}" for method in methods)


def function_of(name: str) -> Callable[..., Any]:
    """The function of an entry."""
    call = CALLS[name]
    if call.function is not None:
        return call.function
    value: Any = toyscore
    for part in name.partition(" (")[0].split("."):
        value = getattr(value, part)
    return value


def run(name: str, w: World, arguments: dict[str, Any]) -> Any:
    """Call an entry, use what it returned, and take every state of a chain."""
    result = CALLS[name].then(function_of(name)(**arguments), w)
    return list(result) if isinstance(result, Iterator) else result


def leaves(value: Any) -> Iterator[Any]:
    """The tensors, arrays and numbers in a result, in order."""
    if isinstance(value, torch.Tensor | np.ndarray | int | float | str | bytes | torch.dtype) or value is None:
        yield value
    elif isinstance(value, nn.Module):
        yield from value.state_dict().values()
    elif isinstance(value, GaussianMixture):
        yield from (value.means, value.covariances, value.weights)
    elif isinstance(value, Empirical):
        yield value.points
    elif is_dataclass(value) and not isinstance(value, type):
        yield from leaves([getattr(value, field.name) for field in fields(value)])
    elif isinstance(value, Mapping):
        yield from leaves(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)


def tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in leaves(value) if isinstance(leaf, torch.Tensor)]
