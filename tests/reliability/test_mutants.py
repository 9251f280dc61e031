"""The tests have teeth: mistakes that people make in this field are planted, and each must turn a test red.

A mutant is the package with one line changed. It is imported afresh in a forked process, where the named tests run; the
same tests pass on the package as it is.
"""

import importlib
import multiprocessing
import os
import pkgutil
import shutil
import sys
from pathlib import Path

import pytest

import toyscore

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow

# id: (module, what stands there, what is planted, the tests that must notice)
MUTANTS = {
    "score without its sign": (
        "distributions/components.py",
        "return -self._unwhitened(r[:, None] * whitened, level).sum(0)",
        "return self._unwhitened(r[:, None] * whitened, level).sum(0)",
        "test_distributions.py::test_score_is_the_gradient_of_log_prob",
    ),
    "sigma for sigma squared": (
        "distributions/components.py",
        "self._make_level(number * number, number)",
        "self._make_level(number, number)",
        "test_distributions.py::test_sigma_convolves",
    ),
    "replaced for convolved": (
        "distributions/components.py",
        "variances = self._counted[:, :, None] + sigma2",
        "variances = self._counted[:, :, None] * 0 + sigma2",
        "test_distributions.py::test_sigma_convolves",
    ),
    "a density off by a factor of its dimension": (
        "distributions/components.py",
        "(variances.log() + math.log(2 * math.pi)).sum(1)",
        "(variances.log() + math.log(2 * math.pi)).mean(1)",
        "test_distributions.py::test_density_integrates_to_one",
    ),
    "transposed axes": (
        "distributions/components.py",
        "else self.bases.mT @ differences",
        "else self.bases @ differences",
        "test_distributions.py::test_log_prob_and_score_against_mpmath",
    ),
    "weights forgotten in the responsibilities": (
        "distributions/components.py",
        "log_norm = self.weights.log()[:, None] - 0.5",
        "log_norm = -0.5",
        "test_distributions.py::test_log_prob_is_the_textbook_formula",
    ),
    "standard deviations for variances in samples": (
        "distributions/mixture.py",
        "self._parts.variances[index].sqrt()",
        "self._parts.variances[index]",
        "test_distributions.py::test_samples_have_the_mixtures_moments",
    ),
    "the smoothed data set divided by sigma": (
        "distributions/points.py",
        "@ self._flat - x) / variance",
        "@ self._flat - x) / variance.sqrt()",
        "test_empirical.py::test_score_is_the_gradient_of_log_prob",
    ),
    "points ruled out for coming second": (
        "distributions/points.py",
        "keepdim=True) - slack)",
        "keepdim=True))",
        "test_empirical.py::test_close_points_are_told_apart",
    ),
    "points ruled out by rounding": (
        "distributions/points.py",
        "slack = 5 * dim * eps * self._largest + variance",
        "slack = variance",
        "test_empirical.py::test_rounding_rules_no_point_out",
    ),
    "the trace without its partner's half": (
        "losses.py",
        "return 0.5 * ops.dot(s, s) + trace  # Eq. (1)",
        "return ops.dot(s, s) + trace  # Eq. (1)",
        "test_losses.py::test_implicit_is_fisher_plus_its_constant",
    ),
    "the trace with the wrong sign": (
        "losses.py",
        "return 0.5 * ops.dot(s, s) + trace  # Eq. (1)",
        "return 0.5 * ops.dot(s, s) - trace  # Eq. (1)",
        "test_losses.py::test_implicit_is_fisher_plus_its_constant",
    ),
    "unit projections": (
        "operators.py",
        "x[0, 0].numel() ** 0.5 / norms",
        "1 / norms",
        "test_losses.py::test_sliced_is_unbiased",
    ),
    "slices summed instead of averaged": (
        "losses.py",
        "+ forms.mean(0)  # Eq. (3)",
        "+ forms.sum(0)  # Eq. (3)",
        "test_losses.py::test_sliced_is_unbiased",
    ),
    "a one-sided difference's denominator": (
        "losses.py",
        "/ (2 * h)",
        "/ h",
        "test_losses.py::test_finite_differences_approach_the_sliced_objective",
    ),
    "the denoising target with the wrong sign": (
        "losses.py",
        "residual = std * ops.evaluate(score, x + std * z, sigma) + z",
        "residual = std * ops.evaluate(score, x + std * z, sigma) - z",
        "test_losses.py::test_denoising_is_fisher_plus_its_constant",
    ),
    "noise of variance sigma": (
        "losses.py",
        "ops.evaluate(score, x + std * z, sigma) + z",
        "ops.evaluate(score, x + std**0.5 * z, sigma) + z",
        "test_losses.py::test_denoising_is_fisher_plus_its_constant",
    ),
    "the denoising target over sigma squared": (
        "losses.py",
        "residual = std * ops.evaluate",
        "residual = std * std * ops.evaluate",
        "test_losses.py::test_denoising_is_fisher_plus_its_constant",
    ),
    "a drift without its half": (
        "samplers/langevin.py",
        "torch.add(x, grad, alpha=step_size / 2)",
        "torch.add(x, grad, alpha=step_size)",
        "test_samplers.py::test_langevin_follows_its_recursion_on_a_gaussian",
    ),
    "noise without its root": (
        "samplers/langevin.py",
        ".add_(z, alpha=step_size**0.5",
        ".add_(z, alpha=step_size",
        "test_samplers.py::test_langevin_follows_its_recursion_on_a_gaussian",
    ),
    "a step size per row without its half": (
        "samplers/langevin.py",
        "x + step_size / 2 * grad",
        "x + step_size * grad",
        "test_samplers.py::test_a_step_is_the_formula_and_differentiable",
    ),
    "a precision forgotten where it is one number": (
        "distributions/components.py",
        "beta=-level.scale, alpha=level.scale",
        "beta=-1.0",
        "test_distributions.py::test_score_is_the_gradient_of_log_prob",
    ),
    "logits without the precision": (
        "distributions/components.py",
        "ut, alpha=level.scale)",
        "ut)",
        "test_distributions.py::test_score_is_the_gradient_of_log_prob",
    ),
    "annealing by sigma": (
        "noise.py",
        "step_size * (sigma / levels[-1]) ** 2",
        "step_size * (sigma / levels[-1])",
        "test_samplers.py::test_annealed_langevin_follows_its_recursion_on_a_gaussian",
    ),
    "annealing against the first level": (
        "noise.py",
        "step_size * (sigma / levels[-1]) ** 2",
        "step_size * (sigma / levels[0]) ** 2",
        "test_samplers.py::test_annealed_langevin_follows_its_recursion_on_a_gaussian",
    ),
    "tweedie with sigma": (
        "samplers/annealed.py",
        "x + std * std * ops",
        "x + std * ops",
        "test_samplers.py::test_denoising_appends_the_posterior_mean",
    ),
    "known numbers held without noise": (
        "samplers/annealed.py",
        "held = known + sigma * ops",
        "held = known + 0 * sigma * ops",
        "test_samplers.py::test_inpainting_follows_its_recursion_on_a_gaussian",
    ),
    "the unknown held for the known": (
        "samplers/annealed.py",
        "x, n = torch.where(mask, held, x), n + 1",
        "x, n = torch.where(mask, x, held), n + 1",
        "test_samplers.py::test_inpainting_follows_its_recursion_on_a_gaussian",
    ),
    "noise mixed in a straight line": (
        "samplers/annealed.py",
        "torch.stack([angles.cos(), angles.sin()], 1)",
        "torch.stack([1 - angles * 2 / math.pi, angles * 2 / math.pi], 1)",
        "test_samplers.py::test_noise_between_two_chains",
    ),
    "epsilon read without its sign": (
        "models/adapters.py",
        "return -epsilon / std",
        "return epsilon / std",
        "test_adapters.py::test_a_perfect_network_of_each_kind_is_the_exact_score",
    ),
    "v without its share of x": (
        "models/adapters.py",
        "alpha * std * (alpha * x)",
        "alpha * std * x",
        "test_adapters.py::test_a_perfect_network_of_each_kind_is_the_exact_score",
    ),
    "x0 over sigma": (
        "models/adapters.py",
        "(x0 - x) / (std * std)",
        "(x0 - x) / std",
        "test_adapters.py::test_a_perfect_network_of_each_kind_is_the_exact_score",
    ),
    "a network given x for x_t": (
        "models/adapters.py",
        "out = self.network((ops.per_example(self.clock.alpha(exact), x) * x).to(like.dtype), self.clock.time(exact))",
        "out = self.network(x.to(like.dtype), self.clock.time(exact))",
        "test_adapters.py::test_a_perfect_network_of_each_kind_is_the_exact_score",
    ),
    "a clock in sigma squared": (
        "models/adapters.py",
        "logs = 0.5 * ((1 - exact) / exact).log()",
        "logs = ((1 - exact) / exact).log()",
        "test_adapters.py::test_the_clock_reads_ddpms_steps",
    ),
    "other units without the outer factor": (
        "models/adapters.py",
        "self.factor * self.score(",
        "self.score(",
        "test_adapters.py::test_rescaled_is_the_score_in_other_units",
    ),
    "a floor without the data's variance": (
        "models/calibration.py",
        "(levels.square() + float(x0.var()))",
        "(levels.square() + float(x0.std()))",
        "test_adapters.py::test_an_exact_score_calibrates",
    ),
    "a kernel's diagonal counted": (
        "metrics/clouds.py",
        " - float(own.diagonal().sum())",
        "",
        "test_image_metrics.py::test_kernel_distance_is_unbiased_and_what_it_says",
    ),
    "pairs of a piece counted twice": (
        "metrics/clouds.py",
        "total += 2 * float(values.sum()) - float(own.sum())",
        "total += 2 * float(values.sum())",
        "test_image_metrics.py::test_kernel_distance_is_unbiased_and_what_it_says",
    ),
    "pairs met twice": (
        "metrics/clouds.py",
        "points[rows.start :]",
        "points",
        "test_image_metrics.py::test_pieces_change_nothing",
    ),
    "balls one neighbour too small": (
        "metrics/coverage.py",
        "kthvalue(k + 1)",
        "kthvalue(k)",
        "test_image_metrics.py::test_overlap_by_hand",
    ),
    "precision by the balls of the samples": (
        "metrics/coverage.py",
        "precise.append(inside.any(1))",
        "precise.append((across <= of_samples[rows, None]).any(1))",
        "test_image_metrics.py::test_overlap_by_hand",
    ),
    "coverage and recall confused": (
        "metrics/coverage.py",
        "covered.append(inside.any(0))",
        "covered.append((across <= of_samples[rows, None]).any(0))",
        "test_image_metrics.py::test_coverage_of_the_same_law_is_known_in_any_dimension",
    ),
    "a loss with its half": (
        "metrics/levels.py",
        "2 / x[0].numel() * denoising",
        "1 / x[0].numel() * denoising",
        "test_image_metrics.py::test_the_loss_left_by_an_exact_score",
    ),
    "metropolis without its proposal": (
        "samplers/metropolis.py",
        "log_p_new - log_p + back - there",
        "log_p_new - log_p",
        "test_samplers.py::test_metropolis_keeps_the_law_that_langevin_does_not",
    ),
    "a batch accepted as one": (
        "samplers/metropolis.py",
        "ops.uniform((len(x),), log_p, generator)",
        "ops.uniform((1,), log_p, generator).expand(len(x))",
        "test_samplers.py::test_metropolis_finds_the_law_from_elsewhere",
    ),
    "tangents without the activation's slope": (
        "models/mlp.py",
        "t = torch.sigmoid(a) * (",
        "t = torch.tanh(a) * (",
        "test_losses.py::test_hand_carried_tangents_equal_autograd",
    ),
    "a network not divided by sigma": (
        "models/mlp.py",
        "in_factor, 1 / std",
        "in_factor, torch.ones_like(std)",
        "test_models.py::test_the_output_is_divided_by_sigma_and_the_input_stays_small",
    ),
    "a divergence without its half": (
        "losses.py",
        "return 0.5 * ops.dot(difference, difference)",
        "return ops.dot(difference, difference)",
        "test_metrics.py::test_fisher_divergence_is_half_the_mean_square",
    ),
    "equal squares that do not cancel": (
        "distributions/components.py",
        "(squares - squares.amin(0))",
        "squares",
        "test_distributions.py::test_components_that_share_a_covariance_are_told_apart_far_away",
    ),
    "products where they lose digits": (
        "distributions/components.py",
        "PRODUCT_LIMIT = 100.0",
        "PRODUCT_LIMIT = 1e30",
        "test_distributions.py::test_close_modes_far_from_the_centre_are_told_apart",
    ),
    "a law pushed by the whole score": (
        "diagnostics/propagation.py",
        "ends = points + stage.step_size / 2 * drift",
        "ends = points + stage.step_size * drift",
        "test_diagnostics.py::test_a_law_on_a_gaussian_follows_its_recursion",
    ),
    "a law blurred by the step size": (
        "diagnostics/propagation.py",
        "z = (axis[0] + h * near - ends[:, d : d + 1]) / root",
        "z = (axis[0] + h * near - ends[:, d : d + 1]) / stage.step_size",
        "test_diagnostics.py::test_a_law_on_a_gaussian_follows_its_recursion",
    ),
    "stages of one step size": (
        "diagnostics/propagation.py",
        "Stage(sigma, alpha, n_steps_each)",
        "Stage(sigma, step_size, n_steps_each)",
        "test_diagnostics.py::test_predicted_weights_are_those_of_twenty_thousand_chains",
    ),
    "a subspace that forgets the covariance": (
        "diagnostics/propagation.py",
        "basis.append(vectors @ left[:, size > rounding * differences.norm()])",
        "basis.append(vectors @ left[:, size > 0.5 * differences.norm()])",
        "test_diagnostics.py::test_where_modes_differ_is_enough_to_tell_them_apart",
    ),
    "a settled variance without its correction": (
        "diagnostics/steps.py",
        'return _like(v / (1 - _positive(step_size, "step_size") / (4 * v)), variance, step_size)',
        'return _like(v / (1 - _positive(step_size, "step_size") / (2 * v)), variance, step_size)',
        "test_theory.py::test_variances_follow_the_recursion_of_a_step",
    ),
    "relaxation once instead of twice": (
        "diagnostics/steps.py",
        "factor ** (2 * n_steps)",
        "factor ** n_steps",
        "test_theory.py::test_variances_follow_the_recursion_of_a_step",
    ),
    "a bound of twice the variance": (
        "diagnostics/steps.py",
        "return 4 * float(_positive(variance",
        "return 8 * float(_positive(variance",
        "test_theory.py::test_the_bound_is_where_chains_run_away",
    ),
    "signal against all of the noise": (
        "diagnostics/steps.py",
        "return float(step_size / 4 * ops.flatten(s)",
        "return float(step_size / 2 * ops.flatten(s)",
        "test_theory.py::test_signal_to_noise_is_alike_at_each_level",
    ),
    "a Stein number without the step": (
        "diagnostics/steps.py",
        "step_size / 4 * s.square().sum(1)",
        "step_size / 2 * s.square().sum(1)",
        "test_theory.py::test_stein_numbers_of_a_chain_are_one_at_any_step",
    ),
    "eta for epsilon": (
        "diagnostics/steps.py",
        "return 2 * eta",
        "return eta",
        "test_theory.py::test_the_two_conventions_make_the_same_step",
    ),
    "a shell of one deviation": (
        "diagnostics/levels.py",
        "stats.norm.cdf(shift + 3 * ratio) - stats.norm.cdf(shift - 3 * ratio)",
        "stats.norm.cdf(shift + ratio) - stats.norm.cdf(shift - ratio)",
        "test_theory.py::test_published_configurations",
    ),
    "a shell of the lower level": (
        "diagnostics/levels.py",
        "radius.cdf(ratio * high) - radius.cdf(ratio * low)",
        "radius.cdf(high / ratio) - radius.cdf(low / ratio)",
        "test_theory.py::test_overlaps_are_chances",
    ),
    "each pair twice": (
        "diagnostics/levels.py",
        "own.masked_fill_(torch.ones_like(own, dtype=torch.bool).tril(), -1)",
        "own.masked_fill_(torch.eye(*own.shape).bool(), -1)",
        "test_theory.py::test_distances_are_those_of_all_pairs",
    ),
    "blocks dropped too soon": (
        "diagnostics/levels.py",
        "(radii[start] + radii >= math.sqrt(max(least[0], 0)) * (1 - 1e-6)).sum()",
        "(radii[start] + radii >= 1.2 * math.sqrt(max(least[0], 0))).sum()",
        "test_theory.py::test_distances_are_those_of_all_pairs",
    ),
    "a ladder that inherits nothing": (
        "diagnostics/levels.py",
        "relaxed_variance(ratio**2 * inherited, 1.0",
        "relaxed_variance(ratio**2, 1.0",
        "test_theory.py::test_a_design_does_to_chains_what_it_says",
    ),
    "a step tuned in the other convention": (
        "diagnostics/levels.py",
        "return math.exp(float(found.x)) * sigma_min**2",
        "return 0.5 * math.exp(float(found.x)) * sigma_min**2",
        "test_theory.py::test_the_tuned_step_is_the_best",
    ),
    "outliers unnoticed": (
        "diagnostics/levels.py",
        "if largest > _OUTLIER_RATIO * without",
        "if largest > 1e3 * without",
        "test_theory.py::test_an_outlier_is_called_one",
    ),
    "a Fisher divergence without its half": (
        "diagnostics/blindness.py",
        "0.5 * apart.square()",
        "apart.square()",
        "test_theory.py::test_kl_is_all_of_the_weighted_fisher_divergence",
    ),
    "a divergence the other way round": (
        "diagnostics/blindness.py",
        "torch.stack(parts) * logs[0].exp()",
        "torch.stack(parts) * logs[1].exp()",
        "test_theory.py::test_divergences_of_gaussians_are_closed_forms",
    ),
    "a mesh that follows one of two densities": (
        "diagnostics/grids.py",
        "[*_shapes(p, sigma), *_shapes(q, sigma)]",
        "_shapes(p, sigma)",
        "test_theory.py::test_divergences_follow_both_densities",
    ),
    "errors that no cube adds to": (
        "diagnostics/grids.py",
        "errors += gaps[done].sum(0)",
        "errors += 0 * gaps[done].sum(0)",
        "test_theory.py::test_the_error_of_a_divergence_is_a_bound",
    ),
    "weighted by sigma": (
        "diagnostics/blindness.py",
        "levels**2 * fisher)",
        "levels * fisher)",
        "test_theory.py::test_kl_is_all_of_the_weighted_fisher_divergence",
    ),
    "frozen by the clock of steps": (
        "diagnostics/freezing.py",
        "time = stage.step_size * stage.n_steps",
        "time = 0.5 * stage.step_size * stage.n_steps",
        "test_theory.py::test_the_ladder_freezes_where_its_gap_is_spent",
    ),
    "a slow mode that is not handed on": (
        "diagnostics/freezing.py",
        "masses = density * (1 + amounts @ read(points))",
        "masses = density",
        "test_theory.py::test_slow_modes_tell_the_weights_where_steps_are_small",
    ),
    "shares read off a coarse grid": (
        "diagnostics/propagation.py",
        "fine = self.refined(1.5 * turning_width(p))",
        "fine = self",
        "test_theory.py::test_shares_do_not_depend_on_the_grid",
    ),
    "the slowest mode left in the others": (
        "diagnostics/spectrum.py",
        "for _ in range(2):  # the slowest",
        "for _ in range(1):  # the slowest",
        "test_theory.py::test_slower_modes_are_found_beside_a_gap_below_rounding",
    ),
    "a constant of the wrong sign": (
        "diagnostics/identities.py",
        '"denoising": Objective(_unit_denoising, 1, -1)',
        '"denoising": Objective(_unit_denoising, 1, 1)',
        "test_theory.py::test_each_objective_is_fisher_plus_its_constant",
    ),
    "noise of one coordinate": (
        "diagnostics/identities.py",
        "noise = dim / (2 * sigma**2)",
        "noise = 1 / (2 * sigma**2)",
        "test_theory.py::test_each_objective_is_fisher_plus_its_constant",
    ),
    "gradients averaged over the batch": (
        "diagnostics/identities.py",
        "between * batch_size",
        "between",
        "test_theory.py::test_gradients_agree_in_the_mean_and_differ_in_noise",
    ),
    "stiffness paid once": (
        "diagnostics/manifold.py",
        "stiffness**2 * noise_std**2 / 2 - stiffness",
        "stiffness**2 * noise_std**2 - stiffness",
        "test_theory.py::test_the_loss_of_stiff_normals_is_the_losss",
    ),
    "a dimension without the noise told": (
        "diagnostics/manifold.py",
        "told = std * ops.evaluate",
        "told = ops.evaluate",
        "test_theory.py::test_the_score_tells_the_dimension",
    ),
    "a generator without its half": (
        "diagnostics/spectrum.py",
        "edges.append(0.5 * h **",
        "edges.append(1.0 * h **",
        "test_diagnostics.py::test_a_gaussians_rates_are_those_of_its_axes",
    ),
    "a conductance of one end": (
        "diagnostics/spectrum.py",
        "np.exp(0.5 * (low + high))",
        "np.exp(low)",
        "test_diagnostics.py::test_the_gap_is_that_of_the_mean_passage_times",
    ),
    "grids that are not extrapolated": (
        "diagnostics/spectrum.py",
        "(4 * rates - rough) / 3",
        "rough",
        "test_diagnostics.py::test_the_gap_is_that_of_the_mean_passage_times",
    ),
    "a star that is no mesh": (
        "diagnostics/network.py",
        "row[first] * (row[second] / self.sums[k])",
        "row[first] * row[second]",
        "test_diagnostics.py::test_a_network_is_solved",
    ),
    "a pass of a whole potential": (
        "diagnostics/spectrum.py",
        "rate += float(-downhill[0] / (2 * math.pi)",
        "rate += float(-downhill[0] / math.pi",
        "test_diagnostics.py::test_the_pass_between_gaussians_is_no_parabola",
    ),
    "hops counted one way": (
        "diagnostics/spectrum.py",
        "unit = float(2 * mixture.weights.prod()) * time",
        "unit = float(mixture.weights.prod()) * time",
        "test_diagnostics.py::test_hops_are_counted_at_the_rate_of_the_gap",
    ),
    "r-hat without its root": (
        "metrics/mixing.py",
        "+ between) / within).sqrt()",
        "+ between) / within)",
        "test_metrics.py::test_split_r_hat_by_hand",
    ),
    "folded states that are not folded": (
        "metrics/mixing.py",
        "_r_hat(_normal_scores(folded))",
        "_r_hat(_normal_scores(halves))",
        "test_metrics.py::test_rank_normalized_r_hat_is_the_papers",
    ),
    "ranks without their offset": (
        "metrics/mixing.py",
        "(ranks - 0.375) / (len(flat) + 0.25)",
        "ranks / (len(flat) + 1)",
        "test_metrics.py::test_rank_normalized_r_hat_is_the_papers",
    ),
    "levels drawn behind the seed's back": (
        "losses.py",
        "draw(len(x), generator=generator)",
        "draw(len(x))",
        "test_losses.py::test_conditional_objectives_draw_from_the_generator_alone",
    ),
    "draws that forget the step": (
        "train/loop.py",
        'f"{seed},{step},{shard}"',
        'f"{seed},{shard}"',
        "test_train.py::test_draw_seeds_are_unrelated_and_fit_a_generator",
    ),
    "moments forgotten on resume": (
        "train/loop.py",
        "optimizer.state[parameter] = {name: value.to(parameter.device, copy=True) for name, value in moments.items()}",
        "pass",
        "test_train.py::test_resuming_gives_the_same_bits",
    ),
    "moments in an order of their own": (
        "train/loop.py",
        "        _align(optimizer)\n",
        "",
        "reliability/test_resuming.py::test_going_on_in_any_layout_gives_the_same_bits[transposed]",
    ),
    "dropout drawn as the noise is": (
        "train/loop.py",
        'draw_seed(recipe["seed"], step, n_shards + shard)',
        'draw_seed(recipe["seed"], step, shard + 0)',
        "test_train.py::test_what_a_network_draws_is_of_the_seed_and_the_step",
    ),
    "running means of the last shard": (
        "train/loop.py",
        "            _move(network, before, moved, n_shards)\n",
        "            pass\n",
        "test_train.py::test_every_shard_finds_the_buffers_of_the_step_and_leaves_their_mean",
    ),
    "an average with dropout": (
        "models/ema.py",
        "        self.average.eval()\n",
        "",
        "test_train.py::test_an_average_is_never_in_training_mode",
    ),
    "a shared generator for every shard": (
        "train/loop.py",
        'draw_seed(recipe["seed"], step, shard)',
        'draw_seed(recipe["seed"], step, 0)',
        "test_train.py::test_shards_are_drawn_apart_and_accumulated",
    ),
    "a clip before the sum over processes": (
        "train/loop.py",
        "    _add_up([total, *gradients, *moved], group)",
        "    pass",
        "reliability/test_sharing.py::test_two_processes_give_the_bits_of_one[toy]",
    ),
    "a clip that lengthens": (
        "train/loop.py",
        'clip_grads_with_norm_(parameters, recipe["clip"], norm)',
        'clip_grads_with_norm_(parameters, recipe["clip"], norm.clamp(max=0.5))',
        "test_train_images.py::test_a_long_gradient_is_shortened_to_the_clip",
    ),
    "an average the wrong way round": (
        "models/ema.py",
        "share = 1 - min(self.decay, (1 + t) / (10 + t))",
        "share = min(self.decay, (1 + t) / (10 + t))",
        "test_ncsn.py::test_an_average_follows_its_recursion_and_is_what_is_called",
    ),
    "an average nobody calls": (
        "models/ema.py",
        "return self.average(x, sigma, *args, **kwargs)",
        "return self.model(x, sigma, *args, **kwargs)",
        "test_ncsn.py::test_an_average_follows_its_recursion_and_is_what_is_called",
    ),
    "channel means standardised with the biased variance": (
        "models/refinenet.py",
        "/ (h.shape[1] - 1)",
        "/ h.shape[1]",
        "test_ncsn.py::test_the_norm_is_its_formula",
    ),
    "channel means that gamma forgets": (
        "models/refinenet.py",
        "gamma * alpha[0], centred",
        "alpha[0], centred",
        "test_ncsn.py::test_the_norm_is_its_formula",
    ),
    "a dilation wider than the image": (
        "models/ncsn.py",
        "min(dilation, half // 2) for dilation in (2, 4)",
        "dilation for dilation in (2, 4)",
        "test_ncsn.py::test_no_tap_of_a_convolution_is_outside_every_image",
    ),
    "a Gaussian without the noise's variance": (
        "models/ncsn.py",
        "total = (std * std + self.data_variance).sqrt()",
        "total = (std * 0 + self.data_variance).sqrt()",
        "test_ncsn.py::test_without_correction_the_continuous_network_is_a_gaussian",
    ),
    "a correction divided by the variance": (
        "models/ncsn.py",
        "(self.data_variance.sqrt() / (std * total))",
        "(self.data_variance / (std * total))",
        "test_ncsn.py::test_the_correction_has_unit_size_at_every_level",
    ),
    "an output divided by sigma squared": (
        "models/ncsn.py",
        "out / ops.per_example(self.sigmas.to(out.dtype)[index], out)",
        "out / ops.per_example(self.sigmas.to(out.dtype)[index] ** 2, out)",
        "test_ncsn.py::test_the_compact_networks_output_is_divided_by_sigma",
    ),
    "a level rounded to the nearest": (
        "models/conditioning.py",
        "_NEAR = 0.01",
        "_NEAR = 10.0",
        "test_ncsn.py::test_a_network_indexed_by_level_knows_its_levels_only",
    ),
    "noise added to the level above": (
        "data/sets.py",
        "return (levels + offset) / self.n_levels if",
        "return (levels + offset + 0.5) / self.n_levels if",
        "test_data.py::test_dequantised_values_are_uniform_within_their_level",
    ),
    "images flipped upside down": (
        "data/sets.py",
        "x.flip(-1)",
        "x.flip(-2)",
        "test_data.py::test_a_flip_mirrors_half_of_the_images_left_to_right",
    ),
    "a variance that forgets dequantisation": (
        "data/sets.py",
        "1 / (12 * self.n_levels**2)",
        "0.01 / (12 * self.n_levels**2) - 0.01",
        "test_data.py::test_moments_are_those_of_the_samples",
    ),
    "a checkpoint written in place": (
        "train/checkpoints.py",
        'new, old = folder / f".{place.name}.tmp",',
        "new, old = place,",
        "reliability/test_kills.py::test_killed_before_each_of_its_calls_a_whole_checkpoint_is_left",
    ),
    "sums that nobody compares": (
        "train/checkpoints.py",
        "if files[_SUMS] == expected:",
        "if True:",
        "reliability/test_damage.py::test_damage_is_always_noticed",
    ),
    "the previous checkpoint thrown away": (
        "train/checkpoints.py",
        "_KEEP = 2",
        "_KEEP = 1",
        "test_checkpoints.py::test_the_previous_one_is_kept_and_older_ones_go",
    ),
    "a log-normal of the wrong base": (
        "noise.py",
        "(log_mean + log_std * ops.normal_like(like, generator)).exp()",
        "(log_mean + log_std * ops.normal_like(like, generator)).exp2()",
        "test_noise.py::test_log_normal_is_normal_in_the_logarithm",
    ),
    "the noise of VP squared": (
        "sde/processes.py",
        "return _exp(-0.5 * integral), _sqrt(-_expm1(-integral))",
        "return _exp(-0.5 * integral), -_expm1(-integral)",
        "test_sde.py::test_marginals_are_the_closed_forms",
    ),
    "the mean of a diffusion decaying twice as fast": (
        "sde/processes.py",
        "return -0.5 * ops.expand(_beta(sde, t), x) * x",
        "return -1.0 * ops.expand(_beta(sde, t), x) * x",
        "test_sde.py::test_marginals_solve_the_equations_of_mean_and_variance",
    ),
    "VE's diffusion without its 2": (
        "sde/processes.py",
        "math.sqrt(2 * self._log_ratio)",
        "math.sqrt(self._log_ratio)",
        "test_sde.py::test_marginals_solve_the_equations_of_mean_and_variance",
    ),
    "sub-VP's diffusion with one integral": (
        "sde/processes.py",
        "-_expm1(-2 * _integral(self, t))",
        "-_expm1(-_integral(self, t))",
        "test_sde.py::test_marginals_solve_the_equations_of_mean_and_variance",
    ),
    "the score of x for that of x over alpha": (
        "sde/identity.py",
        "return ops.evaluate(score, x / shrink, sigma) / shrink",
        "return ops.evaluate(score, x / shrink, sigma)",
        "test_sde.py::test_time_score_is_the_gradient_of_the_rescaled_mixture",
    ),
    "a forward step of the difference squared": (
        "sde/identity.py",
        "(high - low) * (high + low)",
        "(high - low) ** 2",
        "test_sde.py::test_forward_steps_compose_and_are_those_of_ddpm",
    ),
    "the reverse drift without its half": (
        "sde/identity.py",
        "0.5 * (1 + noise**2) * g**2",
        "(1 + noise**2) * g**2",
        "test_sde.py::test_the_reverse_drift_turns_the_flow_of_probability_round",
    ),
    "the likelihood's weight of alpha, not its square": (
        "sde/identity.py",
        "sde.marginal(t)[0] ** 2\n",
        "sde.marginal(t)[0]\n",
        "test_sde.py::test_the_likelihood_weight_is_the_rate_of_sigma_squared",
    ),
    "noise of the step, not of its root": (
        "samplers/steps.py",
        "sde.diffusion(t) * math.sqrt(t - s)",
        "sde.diffusion(t) * (t - s)",
        "test_diffusions.py::test_a_step_is_the_affine_map_of_its_formula",
    ),
    "the forward step inverted, not turned round": (
        "samplers/steps.py",
        "x_s = (2 - a) * x",
        "x_s = x / a",
        "test_diffusions.py::test_a_step_is_the_affine_map_of_its_formula",
    ),
    "noise added and none taken away": (
        "samplers/steps.py",
        "math.sqrt(max(sigma_s**2 - new**2, 0.0)) - sigma_t",
        "sigma_s - sigma_t",
        "test_diffusions.py::test_ddim_between_its_ends",
    ),
    "Heun's slopes added, not averaged": (
        "samplers/steps.py",
        "y + h / 2 * (slope",
        "y + h * (slope",
        "test_diffusions.py::test_heun_is_the_trapezoid_of_ddims_slope",
    ),
    "the corrector of the other convention": (
        "samplers/diffusions.py",
        "factor=4 * (a * snr) ** 2",
        "factor=2 * (a * snr) ** 2",
        "test_diffusions.py::test_the_correctors_step_is_the_papers_in_our_convention",
    ),
    "the corrector without alpha": (
        "samplers/diffusions.py",
        "factor=4 * (a * snr) ** 2",
        "factor=4 * snr**2",
        "test_diffusions.py::test_the_correctors_step_is_the_papers_in_our_convention",
    ),
    "norms the wrong way up": (
        "samplers/diffusions.py",
        "(ops.sum_event(z * z) / ops.sum_event(grad * grad)).sqrt()",
        "(ops.sum_event(grad * grad) / ops.sum_event(z * z)).sqrt()",
        "test_diffusions.py::test_the_correctors_step_is_the_papers_in_our_convention",
    ),
    "a likelihood that forgets alpha": (
        "likelihood.py",
        "x[0].numel() * math.log(alpha_1 / alpha)",
        "0 * math.log(alpha_1 / alpha)",
        "test_likelihood.py::test_with_the_exact_prior_it_is_the_density[VP-single]",
    ),
    "the divergence of another sign": (
        "likelihood.py",
        "math.log(alpha_1 / alpha) + divergence",
        "math.log(alpha_1 / alpha) - divergence",
        "test_likelihood.py::test_with_the_exact_prior_it_is_the_density[VP-single]",
    ),
    "a prior of variance for deviation": (
        "sde/identity.py",
        "/ (2 * std**2) - dim",
        "/ (2 * std) - dim",
        "test_likelihood.py::test_the_gaussian_prior_leaves_its_mismatch",
    ),
    "bits of other levels": (
        "likelihood.py",
        "(math.log(n_levels) - log_prob / dim)",
        "(-math.log(n_levels) - log_prob / dim)",
        "test_likelihood.py::test_bits_per_dimension_bound_those_of_whole_numbers",
    ),
    "a measurement's deviation for its variance": (
        "samplers/guidance.py",
        "spread = posterior[:, None] * lengths.to(x) + tau**2",
        "spread = posterior[:, None] * lengths.to(x) + tau",
        "test_guidance.py::test_a_gaussian_measured_is_exact",
    ),
    "the posterior as wide as the noise": (
        "samplers/guidance.py",
        "posterior = variance * data_variance / (variance + data_variance)",
        "posterior = variance",
        "test_guidance.py::test_a_gaussian_measured_is_exact",
    ),
    "guidance pushing away": (
        "samplers/guidance.py",
        "+ strength * pull",
        "- strength * pull",
        "test_guidance.py::test_the_score_of_a_class_is_that_of_its_component",
    ),
    "alpha bars that do not accumulate": (
        "noise.py",
        "torch.log1p(-exact).cumsum(0)",
        "torch.log1p(-exact)",
        "test_sde.py::test_ddpm_levels_are_those_of_alpha_bar",
    ),
    "latents on a straight line": (
        "samplers/annealed.py",
        "torch.stack([angles.cos(), angles.sin()], 1), torch.stack([a, b])",
        "torch.stack([1 - angles, angles], 1), torch.stack([a, b])",
        "test_diffusions.py::test_interpolation_of_latents_stays_among_latents",
    ),
    "half an energy distance": (
        "metrics/energy.py",
        "return unbiased_mmd2(",
        "return 0.5 * unbiased_mmd2(",
        "test_likelihood.py::test_the_probability_of_one_law",
    ),
    "a likelihood without its evidence": (
        "samplers/guidance.py",
        "- mixture.log_prob(x, sigma) + evidence",
        "- mixture.log_prob(x, sigma)",
        "test_guidance.py::test_the_value_of_a_likelihood",
    ),
    "a Gaussian without its determinant": (
        "samplers/guidance.py",
        "return -0.5 * white.square().sum(1) - logs - 0.5",
        "return -0.5 * white.square().sum(1) - 0.5",
        "test_guidance.py::test_the_value_of_a_likelihood",
    ),
    "the law of matched norms without its power": (
        "diagnostics/correctors.py",
        "power = dim / (dim + 2)",
        "power = 1.0",
        "test_diffusion_laws.py::test_the_law_of_matched_norms_widens_a_gaussian_by_a_known_factor",
    ),
    "the noise of an affine chain left out": (
        "diagnostics/affine.py",
        "a @ law.covariance @ a.mT + noise)",
        "a @ law.covariance @ a.mT)",
        "test_diffusion_laws.py::test_the_law_of_a_chain_is_that_of_its_samples",
    ),
    "times from the wrong end": (
        "sde/identity.py",
        "t_min + (1 - t_min) * ops.uniform((n,), like, generator)",
        "t_min + ops.uniform((n,), like, generator)",
        "test_sde.py::test_laws_of_sigma_uniform_in_time",
    ),
    "a state changed in place": (
        "samplers/langevin.py",
        "return torch.add(x, grad, alpha=step_size / 2)",
        "return x.add_(grad, alpha=step_size / 2)",
        "reliability/test_purity.py::test_a_call_changes_no_input_and_no_global_state[samplers.langevin_step]",
    ),
    "noise from the default generator": (
        "operators.py",
        "torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device)",
        "torch.randn(x.shape, dtype=x.dtype, device=device)",
        "reliability/test_purity.py::test_a_call_changes_no_input_and_no_global_state[samplers.langevin]",
    ),
    "noise in the default dtype": (
        "operators.py",
        "torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device)",
        "torch.randn(x.shape, generator=generator, device=device)",
        "reliability/test_purity.py::test_results_are_finite_and_have_the_dtype_and_shape_promised[operators.normal_like]",
    ),
    "any points compared": (
        "metrics/clouds.py",
        "ops.check_finite(cloud, name)",
        "pass",
        "reliability/test_bad_input.py::test_whatever_is_put_in_place_of_a_number_or_a_tensor_is_named_or_legitimate[metrics.energy_distance]",
    ),
    "a field compared with itself": (
        "plotting/plane.py",
        "error = ((score(points, sigma) - truth)",
        "error = ((target(points, sigma) - truth)",
        "test_plotting.py::test_comparison_measures_the_share_of_the_box",
    ),
    "an error relative to what was learned": (
        "plotting/plane.py",
        "/ truth.norm(dim=1)).view",
        "/ score(points, sigma).norm(dim=1)).view",
        "test_plotting.py::test_comparison_measures_the_share_of_the_box",
    ),
    "arrows compared, each to a scale of its own": (
        "plotting/plane.py",
        'role="learned", **options)',
        'role="learned", **{**options, "scale": None})',
        "test_plotting.py::test_comparison_measures_the_share_of_the_box",
    ),
    "a log density for a density": (
        "plotting/plane.py",
        "values = logs.exp().view(n, n).mT",
        "values = logs.view(n, n).mT",
        "test_plotting.py::test_density_has_its_maximum_where_the_density_has",
    ),
    "a map with its axes exchanged": (
        "plotting/plane.py",
        "values = logs.exp().view(n, n).mT",
        "values = logs.exp().view(n, n)",
        "test_plotting.py::test_density_has_its_maximum_where_the_density_has",
    ),
    "corners for centres of cells": (
        "plotting/plane.py",
        "device=like.device) + 0.5)",
        "device=like.device) + 0.0)",
        "test_plotting.py::test_a_grid_is_the_centres_of_its_cells",
    ),
    "arrows in units of the screen": (
        "plotting/plane.py",
        'scale_units="xy"',
        'scale_units="inches"',
        "test_plotting.py::test_arrows_are_the_score_at_their_points",
    ),
    "directions of the screen, not of the data": (
        "plotting/plane.py",
        'angles="xy"',
        'angles="uv"',
        "test_plotting.py::test_arrows_are_the_score_at_their_points",
    ),
    "colours stretched to each panel": (
        "plotting/plane.py",
        "LogNorm(*limits)",
        "LogNorm(float(norms.min()), float(norms.max()))",
        "test_plotting.py::test_score_map_shows_norms_and_directions",
    ),
    "the contour of the mass outside": (
        "plotting/plane.py",
        "* cell < mass",
        "* cell < 1 - mass",
        "test_plotting.py::test_the_level_that_holds_a_mass",
    ),
    "ends of chains marked at their starts": (
        "plotting/plane.py",
        "to_numpy(states[-1])\n    if update",
        "to_numpy(states[0])\n    if update",
        "test_plotting.py::test_samples_and_chains",
    ),
    "chains and steps exchanged": (
        "plotting/plane.py",
        "list(to_numpy(states.movedim(1, 0)))",
        "list(to_numpy(states))",
        "test_plotting.py::test_samples_and_chains",
    ),
    "an arithmetic mean on a logarithmic axis": (
        "plotting/curves.py",
        "y.log().mean(0).exp()",
        "y.mean(0)",
        "test_plotting.py::test_curves_are_geometric_means_between_the_extremes",
    ),
    "a Wasserstein distance squared": (
        "metrics/clouds.py",
        "return largest * math.sqrt(max(",
        "return largest * (max(",
        "test_metrics.py::test_wasserstein_of_gaussians_and_of_translates",
    ),
    "quantiles of the other cloud": (
        "metrics/clouds.py",
        "[:, (ends - 1) // n]",
        "[:, (ends - 1) // n // 2]",
        "test_metrics.py::test_sliced_wasserstein_of_sets_of_one_size_is_that_of_laws",
    ),
    "a Frechet distance of roots that are not turned": (
        "metrics/features.py",
        "(r - left @ right @ s)",
        "(r - s)",
        "test_image_metrics.py::test_frechet_distance_of_gaussians",
    ),
    "slices of any length": (
        "metrics/clouds.py",
        "directions / directions.norm(dim=0)",
        "directions",
        "test_metrics.py::test_sliced_wasserstein_is_the_root_mean_square_of_projections",
    ),
    "a kernel without its half": (
        "metrics/clouds.py",
        "torch.exp(-ops.squared_distances(p, q) / (2 * width**2))",
        "torch.exp(-ops.squared_distances(p, q) / width**2)",
        "test_metrics.py::test_mmd_by_hand",
    ),
    "a region's error over all points": (
        "metrics/fields.py",
        "index_add_(0, regions, errors) / counts",
        "index_add_(0, regions, errors) / len(x)",
        "test_metrics.py::test_regions_partition_the_divergence",
    ),
    "the error of a share without its root": (
        "metrics/fields.py",
        ".std(0) / math.sqrt(len(x))",
        ".std(0) / len(x)",
        "test_metrics.py::test_mode_weight_errors_by_hand",
    ),
    "a relative error with the half of the divergence": (
        "metrics/fields.py",
        "(2 * _squared_errors",
        "(_squared_errors",
        "test_metrics.py::test_fisher_divergence_is_half_the_mean_square",
    ),
    "nats for bits": (
        "likelihood.py",
        "log_prob / dim) / math.log(2)",
        "log_prob / dim)",
        "test_likelihood.py::test_bits_per_dimension_bound_those_of_whole_numbers",
    ),
    "a trace along unit directions": (
        "likelihood.py",
        "else ops.rademacher_like(x, generator)[None]",
        "else ops.sphere_like(x, generator)[None]",
        "test_likelihood.py::test_the_estimated_trace_is_unbiased",
    ),
    "sums of one file": (
        "train/checkpoints.py",
        "for name in (_TENSORS, _ABOUT)).encode()",
        "for name in (_TENSORS,)).encode()",
        "test_checkpoints.py::test_sums_are_those_of_the_usual_tool",
    ),
    "moments in the order of their names": (
        "train/checkpoints.py",
        "for i in sorted(moments)]",
        "for i in sorted(moments, key=str)]",
        "test_checkpoints.py::test_moments_of_many_parameters_stay_with_theirs",
    ),
    "steps in the order of their names": (
        "train/checkpoints.py",
        "p for p in aside} | found).items())",
        "p for p in aside} | found).items(), key=lambda kept: kept[1].name)",
        "test_checkpoints.py::test_steps_of_nine_digits_come_after_those_of_eight",
    ),
    "an average that is not saved": (
        "train/loop.py",
        'for name, value in model.state_dict().items()},\n            "optimizer"',
        'for name, value in network.state_dict().items()},\n            "optimizer"',
        "test_checkpoints.py::test_going_on_from_disk_gives_the_same_bits",
    ),
    "labels of other images": (
        "data/sets.py",
        "self.labels[index.cpu().numpy()]",
        "self.labels[: len(index)]",
        "test_data.py::test_labels_go_with_their_images",
    ),
    "the Jacobian weighed by sigma squared": (
        "samplers/guidance.py",
        "* variance[:, None, None] ** 2",
        "* variance[:, None, None]",
        "test_guidance.py::test_a_gaussian_measured_is_exact",
    ),
    "what is known returned with its noise": (
        "samplers/annealed.py",
        "torch.where(mask, known, tweedie(",
        "torch.where(mask, x, tweedie(",
        "test_samplers.py::test_inpainting_follows_its_recursion_on_a_gaussian",
    ),
    "a clamp that hides infinity": (
        "samplers/annealed.py",
        "x.clamp(*clamp).add_(x, alpha=0)",
        "x.clamp(*clamp)",
        "reliability/test_divergence.py::test_a_score_that_is_not_finite_stops_a_chain[annealed_langevin, clamped-7]",
    ),
    "a difference's step by the root of the rounding": (
        "losses.py",
        "eps ** (1 / 3)",
        "eps ** (1 / 2)",
        "test_losses.py::test_the_default_step_of_a_finite_difference",
    ),
    "Karras's exponent forgotten": (
        "sde/times.py",
        "n_steps + 1, rho=rho)",
        "n_steps + 1)",
        "test_sde.py::test_grids_of_times",
    ),
    "coverage with one point too many": (
        "metrics/coverage.py",
        "1 - comb(n_data - 1, k) / comb(n_samples + n_data - 1, k)",
        "1 - comb(n_data, k) / comb(n_samples + n_data, k)",
        "test_image_metrics.py::test_the_expected_coverage_of_a_few_points_by_hand",
    ),
    "pairs of autocorrelations that may rise": (
        "metrics/mixing.py",
        "torch.cummin(pairs.clamp(min=0), 0).values",
        "pairs.clamp(min=0)",
        "test_metrics.py::test_effective_sample_size_caps_each_pair_by_the_one_before",
    ),
    "halves of unequal length": (
        "metrics/mixing.py",
        "chains[len(chains) - half :]",
        "chains[half:]",
        "test_metrics.py::test_of_an_odd_number_of_states_the_middle_one_is_left_out",
    ),
    "a count's upper end one hop short": (
        "diagnostics/spectrum.py",
        "2 * n_hops + 2)) / 2",
        "2 * n_hops)) / 2",
        "test_diagnostics.py::test_the_interval_of_a_count_is_that_of_poisson",
    ),
    "a count's lower end at five percent": (
        "diagnostics/spectrum.py",
        "stats.chi2.ppf(0.025, 2 * n_hops)",
        "stats.chi2.ppf(0.05, 2 * n_hops)",
        "test_diagnostics.py::test_the_interval_of_a_count_is_that_of_poisson",
    ),
    "rates without their errors": (
        "diagnostics/spectrum.py",
        "np.abs(rates - rough) / 3",
        "np.abs(rates - rough) * 0",
        "test_diagnostics.py::test_the_error_of_a_rate_is_what_extrapolation_takes_off",
    ),
    "a grid for the law before it is widened": (
        "diagnostics/correctors.py",
        "p.means, p.covariances / power",
        "p.means, p.covariances",
        "test_diffusion_laws.py::test_the_grid_of_matched_norms_holds_what_the_power_widens",
    ),
    "a law's error halved": (
        "diagnostics/propagation.py",
        "error = 0.5 * float",
        "error = 0.25 * float",
        "test_diagnostics.py::test_the_error_of_a_law_is_the_total_variation_to_a_coarser_grids",
    ),
    "a box's cloud at its lower edges": (
        "diagnostics/propagation.py",
        " + 0.5) * ((high",
        " + 0.0) * ((high",
        "test_diagnostics.py::test_a_uniform_cloud_lies_at_midpoints",
    ),
    "odds a quarter of the way": (
        "diagnostics/propagation.py",
        "halves = 0.5 * (p.means",
        "halves = 0.25 * (p.means",
        "test_diagnostics.py::test_the_turning_width_is_that_of_the_odds",
    ),
    "levels that fill half of their range": (
        "models/conditioning.py",
        "u = (2 * std.log() - (low + high)) / (high - low)",
        "u = (2 * std.log() - (low + high)) / 2 / (high - low)",
        "test_models.py::test_features_are_of_the_position_in_the_range_of_the_levels",
    ),
    "a last step for nothing": (
        "train/loop.py",
        "position, top = (step - 0.5) / n_steps, _WARMUP",
        "position, top = step / n_steps, _WARMUP",
        "test_train.py::test_a_step_takes_the_rate_of_its_middle",
    ),
}


HEAVY = [
    *(
        "hypothesis.strategies",
        "matplotlib.backends.backend_agg",
        "matplotlib.pyplot",
        "mpmath",
        "ot",
        "sklearn.datasets",
    ),
    *("scipy.integrate", "scipy.linalg", "scipy.ndimage", "scipy.optimize", "scipy.sparse.linalg", "scipy.spatial"),
    *("scipy.special", "scipy.stats", "torch.distributed", "torchdiffeq", "yaml"),
]


def identity(name: str) -> str:
    """Of a mutant among the tests."""
    return name.replace(" ", "-")


class Killer:
    """Writes down the first test that fails."""

    def __init__(self, note: Path):
        self.note = note

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.note.exists():
            self.note.write_text(report.nodeid)


def run(package_parent: Path, tests: list[str]) -> None:
    """In a forked process: forget the package, import the copy, run the tests, exit with pytest's code."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.split(".")[0] == "toyscore" or file.startswith(str(ROOT / "tests")):
            del sys.modules[name]
    sys.path.insert(0, str(package_parent))
    devnull = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(devnull, stream)
    options = [
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:cov",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-o",
        "addopts=--import-mode=importlib",
        "--rootdir",
    ]
    killer = Killer(package_parent / "killer")
    os._exit(int(pytest.main([*options, str(ROOT), *(str(ROOT / "tests" / t) for t in tests)], plugins=[killer])))


def outcome(package_parent: Path, tests: list[str], seconds: float = 120) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=run, args=(package_parent, tests))
    process.start()
    process.join(seconds)
    process.kill()  # where it still runs
    return process.exitcode


@pytest.fixture(scope="module", autouse=True)
def _imported():
    """What the tests import besides the package, which every forked process then has: an import costs more than most tests."""
    for module in (m.name for m in pkgutil.walk_packages(toyscore.__path__, "toyscore.") if "__main__" not in m.name):
        importlib.import_module(module)
    for module in HEAVY:
        importlib.import_module(module)


def copied(folder: Path) -> None:
    shutil.copytree(ROOT / "toyscore", folder / "toyscore", ignore=shutil.ignore_patterns("__pycache__", "weights"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=identity)
def test_mutant_is_killed(mutant, tmp_path, measured):
    """By a test that passes on the copy without the mistake, as the next one sees to."""
    module, right, wrong, test = MUTANTS[mutant]
    copied(tmp_path)
    path = tmp_path / "toyscore" / module
    source = path.read_text()
    assert source.count(right) == 1, f"{right!r} stands {source.count(right)} times in {module}"
    path.write_text(source.replace(right, wrong))
    assert outcome(tmp_path, [test]) == 1, f"{test} does not notice: {mutant}"
    killer = (tmp_path / "killer").read_text()
    assert test.partition("::")[0] in killer, killer
    measured.count("mistakes planted, all found")
    measured.killed_by(killer.removeprefix("tests/"))


def test_nothing_is_killed_where_nothing_is_planted(tmp_path):
    copied(tmp_path)
    tests = sorted({test for *_, test in MUTANTS.values()})
    assert outcome(tmp_path, tests, seconds=900) == 0, (tmp_path / "killer").read_text()
