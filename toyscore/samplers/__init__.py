r"""Samples from a score alone: Langevin dynamics, diffusions run backwards, and control of both.

**Langevin dynamics** at one noise level,

.. math:: x_{t+1} = x_t + \frac{\epsilon}{2} \nabla \log p(x_t) + \sqrt{\epsilon}\, z_t, \qquad z_t \sim N(0, I),

is Euler's scheme for :math:`dX = \frac12 \nabla \log p\, dt + dW`, whose stationary law is p. Three facts rule its use:

- *It is biased.* On N(0, v) the chain is linear with factor :math:`1 - \epsilon / 2v`: it is stable only while
  :math:`\epsilon < 4v`, and settles at variance :math:`v / (1 - \epsilon / 4v)`, not v. A Metropolis test removes the
  bias (:func:`metropolis_langevin`).
- *It forgets weights.* Between modes far apart it almost never hops, so each mode keeps the chains that started near it.
- *Annealing helps.* With noise levels :math:`\sigma_1 > \dots > \sigma_L` and steps :math:`\alpha_i = \epsilon
  \sigma_i^2 / \sigma_L^2` (Algorithm 1) the first levels mix freely, and the ratio of drift to noise is alike at each.

**Diffusions** (``toyscore.sde``) are run backwards along given times: with noise (:func:`reverse_sde`, :func:`reverse_diffusion`,
:func:`ancestral`), without (:func:`probability_flow`, :func:`ddim`, :func:`adaptive_flow`), or with Langevin steps between
(:func:`predictor_corrector`). All take the same ``score(x, sigma)``.

**Control**: a score is :func:`guided` by the likelihood of a class or a measurement, and then sampled like any other; what is known can be
held (:func:`inpaint`); noise shared by chains leads from one sample to another (:func:`between`), among latents :func:`interpolate`.

Samplers are generators of states, the start excluded: slice one for a trajectory, wrap it in ``tqdm``, break out of it, or
take its :func:`final` state. Yielded tensors are never modified later. Arguments are checked at the call, not at the first
state. A chain whose values leave ``1e9 * max(1, |x_0|, sigma_1)`` stops with :class:`DivergenceError`, looked for every 16
states and at the last.

Step sizes are the paper's epsilon. Much published code writes eta and ``sqrt(2 eta)``: epsilon = 2 eta.

References: song2019, song2021, roberts1996.
"""

from toyscore.samplers.annealed import annealed_langevin, between, inpaint, interpolate, tweedie
from toyscore.samplers.chains import final
from toyscore.samplers.diffusions import (
    Width,
    adaptive_flow,
    ancestral,
    batch_norms,
    corrected_step,
    corrector_step,
    ddim,
    diffuse,
    matched_norms,
    noise_std,
    posterior_mean,
    predictor_corrector,
    probability_flow,
    reverse_diffusion,
    reverse_sde,
)
from toyscore.samplers.guidance import (
    LogLikelihood,
    grey,
    guided,
    mixture_classes,
    of_class,
    of_measurement,
    of_mixture,
    rows_of,
)
from toyscore.samplers.langevin import Noise, langevin, langevin_step
from toyscore.samplers.metropolis import metropolis_langevin
from toyscore.samplers.steps import (
    Step,
    ancestral_step,
    ddim_step,
    euler_maruyama_step,
    heun_step,
    reverse_diffusion_step,
)

__all__ = [
    "LogLikelihood",
    "Noise",
    "Step",
    "Width",
    "adaptive_flow",
    "ancestral",
    "ancestral_step",
    "annealed_langevin",
    "batch_norms",
    "between",
    "corrected_step",
    "corrector_step",
    "ddim",
    "ddim_step",
    "diffuse",
    "euler_maruyama_step",
    "final",
    "grey",
    "guided",
    "heun_step",
    "inpaint",
    "interpolate",
    "langevin",
    "langevin_step",
    "matched_norms",
    "metropolis_langevin",
    "mixture_classes",
    "noise_std",
    "of_class",
    "of_measurement",
    "of_mixture",
    "posterior_mean",
    "predictor_corrector",
    "probability_flow",
    "reverse_diffusion",
    "reverse_diffusion_step",
    "reverse_sde",
    "rows_of",
    "tweedie",
]
