"""Whether samples have the distribution they should, as p-values whose false alarms are known.

P-values of a Gaussian are exact (chi-squared, Kolmogorov); those of bins and of means hold for thousands of rows. Several are combined by
Bonferroni, and NaN is as unlikely as can be. A check that falls below ALPHA is made once more with four times the rows and another seed: a
correct sampler fails about once in 1e12, and a wrong one is seen better the second time.
"""

import math

import numpy as np
import torch
from scipy import stats

from helpers import F64

ALPHA = 1e-6


def smallest(*values):
    """One p-value of many, whatever their dependence."""
    values = [float(v) for v in values]
    return 0.0 if any(map(math.isnan, values)) else min(1.0, len(values) * min(values))


def p_mean(values, expected):
    """Two-sided, of independent numbers [n] of finite variance with this mean; by the central limit theorem, so n is in the thousands."""
    values = np.asarray(values, dtype=np.float64)
    statistic = (values.mean() - float(expected)) / (values.std(ddof=1) / np.sqrt(len(values)))
    return smallest(2 * stats.t.sf(abs(statistic), len(values) - 1))


def p_gaussian(x, mean, covariance):
    """Of rows [n, D] that are independent draws of N(mean, covariance): mean, spread along 2 D² - D directions, shape of each axis."""
    if not bool(torch.isfinite(x).all()):
        return 0.0
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(factor, (x.to(F64) - mean).T, upper=False).T.numpy()
    n, dim = white.shape
    axes = np.eye(dim)
    pairs = [(axes[i] + sign * axes[j]) / np.sqrt(2) for i in range(dim) for j in range(i) for sign in (1, -1)]
    squares = [stats.chi2.cdf(np.square(white @ axis).sum(), n) for axis in [*axes, *pairs]]
    return smallest(
        stats.chi2.sf(n * np.square(white.mean(0)).sum(), dim),
        *(2 * min(q, 1 - q) for q in squares),
        *(stats.kstest(white[:, i], "norm").pvalue for i in range(dim)),
    )


def p_uniform(u, n_bins=40):
    """Of numbers [n] that are independent and uniform on [0, 1]: by their largest excess, and bin by bin."""
    u = np.asarray(u, dtype=np.float64)
    if not np.isfinite(u).all():
        return 0.0
    counts = np.histogram(u, n_bins, (0, 1))[0]
    return smallest(stats.kstest(u, "uniform").pvalue, stats.chisquare(counts).pvalue)


def confirmed(p_value, n, seed):
    """``p_value(n, seed)``, or where that is an alarm, of a second look."""
    p = p_value(n, seed)
    if p < ALPHA:
        p = p_value(4 * n, seed + 1)
    assert p >= ALPHA, (
        f"p = {p:.2g} at n = {4 * n} (seeds {seed} and {seed + 1}): these samples have another distribution"
    )
    return p
