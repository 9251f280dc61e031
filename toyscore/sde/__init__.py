r"""Diffusions: one score function, every process.

A linear stochastic differential equation :math:`dx = f(t)\, x\, dt + g(t)\, dw` carries data at t = 0 to noise at t = 1, so that

.. math:: x_t = \alpha_t x_0 + s_t \epsilon, \qquad \epsilon \sim N(0, I),

``marginal(t)`` being :math:`(\alpha_t, s_t)`. Three are in use (song2021, Appendix B):

============  ===============================  ========================  ========================================
process       alpha_t                          s_t                       g(t)²
============  ===============================  ========================  ========================================
``VE``        1                                sigma_min ratio^t         2 log(ratio) s_t²
``VP``        exp(-½ int beta)                 sqrt(1 - alpha_t²)        beta(t)
``SubVP``     exp(-½ int beta)                 1 - alpha_t²              beta(t) (1 - alpha_t⁴)
============  ===============================  ========================  ========================================

**Divided by alpha they are one process.** :math:`y = x_t / \alpha_t = x_0 + \sigma \epsilon` with :math:`\sigma = s_t / \alpha_t` is data
plus noise, whatever the process; so any ``score(x, sigma)`` serves all of them through one identity (:func:`time_score`),

.. math:: \nabla \log p_t(x) = \frac{1}{\alpha_t}\, \mathrm{score}\!\left(\frac{x}{\alpha_t}, \frac{s_t}{\alpha_t}\right).

In particular the probability flow of every process is the same curve, :math:`dy = -\sigma\, \mathrm{score}(y, \sigma)\, d\sigma`, and
:math:`d\sigma^2/dt = g^2 / \alpha^2`. What differs between processes is the clock (:meth:`time`), which decides where steps of equal
length go and which law of sigma "uniform in time" is (:func:`uniform_in_time`).

DDPM with its N betas is ``VP`` at the times ``VP().time(ddpm_levels(betas))``, NCSN's ladder is ``VE`` at ``VE().time(sigmas)``: exact
discretisations need no class of their own.

References: song2021, ho2020, karras2022.
"""

from toyscore.sde.identity import (
    law_at,
    likelihood_weight,
    noise_level,
    reverse_drift,
    sigma_score,
    time_score,
    transition,
    uniform_in_time,
)
from toyscore.sde.processes import SDE, VE, VP, SubVP, Time, check_process
from toyscore.sde.solver import flow, integrate
from toyscore.sde.times import check_times, geometric_times, karras_times, level_times, uniform_times

__all__ = [
    "SDE",
    "VE",
    "VP",
    "SubVP",
    "Time",
    "check_process",
    "check_times",
    "flow",
    "geometric_times",
    "integrate",
    "karras_times",
    "law_at",
    "level_times",
    "likelihood_weight",
    "noise_level",
    "reverse_drift",
    "sigma_score",
    "time_score",
    "transition",
    "uniform_in_time",
    "uniform_times",
]
