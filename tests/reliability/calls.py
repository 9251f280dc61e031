"""One valid call of every public function and class, small and fast: for tests of purity, precision, devices and bad input.

A line of the table is ``names | arguments | shape | flags | use``; what returns no tensors and is called by the names of its parameters
alone has none. A name is that of a function in its module, and may go on in brackets. Arguments are Python, evaluated in a ``World``; a
parameter that is not listed has its value from ``BY_NAME`` (``self``: by its class) where it needs one. ``shape`` is that of every tensor
that is returned, or a list with one for each, where B = 5 and D = 3. Flags: ``F32`` or ``F64``, the dtype of floating-point results where
it is not the inputs'; ``default``, tensors are made of nothing, on torch's default device, or weights are drawn from torch's default
generator; ``made``, both; ``changes``, the first argument is to change. ``use`` is what is done with ``result``.
"""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, partial
from typing import Any, get_origin

import matplotlib as mpl
import numpy as np
import torch
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import nn

import toyscore
from helpers import F64, seeded
from toyscore import diagnostics, distributions, losses, noise, sde
from toyscore.distributions import Empirical, GaussianMixture

F32 = torch.float32

# What arguments are made of: no symmetry that could hide a mistake. p is tilted and unequal (D = 3, K = 2), flat has D = 2 and K = 3.
VALUES = """
generator = torch.Generator(device).manual_seed(0)
x = 2 * normal(5, 3, seed=1)
y = normal(7, 3, seed=2) + 1
plane = 2 * normal(5, 2, seed=3)
sigma = tensor([0.3, 0.5, 0.8, 1.0, 2.0])
sigmas = tensor(LEVELS)
ts = tensor([0.1, 0.3, 0.5, 0.9, 1.0])
directions = normal(2, 5, 3, seed=4)
mask = torch.tensor([True, False, True], device=device)
labels = torch.tensor([0, 1, 2, 1, 0], device=device)
tilted = tensor([[[2.0, 0.5, 0.1], [0.5, 0.6, -0.2], [0.1, -0.2, 0.9]], [[0.7, -0.1, 0.0], [-0.1, 1.5, 0.3], [0.0, 0.3, 0.4]]])
p = GaussianMixture(tensor([[1.0, -2.0, 0.5], [-1.5, 0.5, 1.0]]), tilted, tensor([0.7, 0.3]))
gaussian = GaussianMixture(p.means[:1], p.covariances[:1])
flat = asymmetric().to(device, dtype)
line = GaussianMixture(tensor([[-1.5], [2.0]]), tensor([0.5, 1.0]), tensor([0.3, 0.7]))
pair = GaussianMixture(tensor([[1.5, 1.0], [-1.0, -1.5]]), 1.0, tensor([0.7, 0.3]))
points = empirical(y)
cloud = diagnostics.uniform_cloud(-3.0, 4.0, 1, 40)
schedule = [diagnostics.Stage(1.0, 0.4, 2), diagnostics.Stage(0.5, 0.2, 2)]
law = diagnostics.last_laws(line, cloud, schedule[1:])[0]
moments = diagnostics.Moments(gaussian.mean.cpu().to(F64), gaussian.covariance.cpu().to(F64))
images = normal(*IMAGES, seed=5).sigmoid()
bytes = (torch.rand(6, 1, 8, 8, generator=seeded(6), device="cpu") * 255).byte().numpy()
labelled = data.Images(bytes, np.array([0, 1, 1, 0, 1, 0]))
net = built(lambda: models.MLP(3, 6, 2, LEVELS, data_variance=2.0))
plain = built(lambda: models.MLP(2, 6, 2))
narrow = built(lambda: models.MLP(2, 4, 1, LEVELS))
image_net = built(lambda: models.ContinuousNCSN(1, 8, 2, LEVELS))
features = built(lambda: metrics.Features((1, 8, 8), 4, 2)).float()
classifier = built(lambda: models.NoiseClassifier((3,), 3, LEVELS, width=6))
slider = widgets.Slider(0.0, 1.0, 0.5)
ax = plotting.canvas()[1]
toy = {"data": config.Data(name="toy"), "network": config.Network(kind="mlp", width=4, depth=1)}
toy_run = config.Config(**toy, noise=config.Noise(sigma_max=4.0, sigma_min=0.5, n_levels=3), sampling=config.Sampling(n_steps_each=2))
facts = {"event": [2], "mean": 0.5, "variance": 3.0}
"""

# What a parameter is given where a call does not list it, and of a method its self: always, or only where it has no default
ALWAYS = "generator = generator; sigma = sigma; n = 5; n_steps = 4; rtol = 1e-3; atol = 1e-3; t_min = 0.1"
BY_NAME = """
x = x; y = y; sigmas = sigmas; a = x; b = y; z = x + 1; v = directions; grad = -x; points = x; like = x; std = 0.5; variance = sigma
score = p.score; log_prob = p.log_prob; mixture = p; distribution = p; model = net; network = network; classifier = classifier
sde = VP(); times = [1.0, 0.6, 0.3, 0.1]; t = 0.6; s = 0.3; step_size = 0.1; n_steps_each = 2; snr = 0.1
sigma_max = 2.0; sigma_min = 0.5; n_levels = 3; dim = 3; codimension = 2; seed = 3; value = 0.3; low = -3.0; high = 4.0
operator = tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]); mask = mask; chains = normal(8, 5, 3); data = labelled; facts = facts
event = (1, 8, 8); image_size = 8; channels = 1; width = 2; config = toy_run; ax = ax; figure = plotting.canvas(size=1.0)[0]; box = 6.0
GaussianMixture = p; Empirical = points; VE = VE(0.1, 10.0); VP = VP(); SubVP = SubVP(); Law = law; MLP = net; Features = features
NoiseClassifier = classifier; EMA = models.EMA(net, 0.9); Config = toy_run; Images = labelled; Labelled = data.Labelled(p)
Slider = slider; Toggle = widgets.Toggle(); Seed = widgets.Seed(); Choice = widgets.Choice(("few", "many"), "few")
"""

TABLE = """
operators:
check_count | value=3, name='n'
check_positive | value=0.5, name='step'
looks | value=sigma
expand | | (5, 1)
flatten | x=images | (5, 64)
unflatten | flat=images.reshape(5, 64), x=images | IMAGES
sum_event | x=images | B
dot | b=x + 1 | B
per_example | x=sigma, like=images | (5, 1, 1, 1)
squared_distances | | (5, 7)
nearest | | [B, B]
pieces | width=3
normal_like, rademacher_like, evaluate | | BD
uniform | shape=(5,) | B
sphere_like | x=directions | (2, 5, 3)
quadratic_form | | [BD, (2, 5)]
gradient | function=p.log_prob | [B, BD]
vector_jacobian | | [BD, (2, 5, 3)]
jacobian_trace | | [BD, B]
jacobian_trace (a network's tangents) | score=net | [BD, B]
distributions:
GaussianMixture | means=p.means, covariances=p.covariances, weights=p.weights
GaussianMixture (variances) | means=p.means, covariances=0.5
GaussianMixture.to | dtype=F64 | | F64
GaussianMixture.log_prob, Empirical.log_prob | | B
GaussianMixture.log_prob (clean) | sigma=0.5 | B
GaussianMixture.score, Empirical.score, GaussianMixture.sample, Empirical.sample | | BD
GaussianMixture.score (one level) | sigma=0.5 | BD
GaussianMixture.responsibilities, GaussianMixture.log_responsibilities | | (5, 2)
GaussianMixture.jacobian | | (5, 3, 3)
GaussianMixture.sample_labelled | | [BD, B]
GaussianMixture.perturb | sigma=0.5
GaussianMixture.scaled | factor=0.5
GaussianMixture.from_sklearn | fitted=fitted() | | F64
GaussianMixture.from_torch | mixture=p.to_torch()
GaussianMixture.marginal | dims=[2, 0]
GaussianMixture.condition | dims=[1], values=tensor([0.5])
GaussianMixture.observe | operator=tensor([[1.0, 2.0, 0.0]]), values=tensor([0.5]), noise_std=0.3
GaussianMixture.measure | operator=tensor([[1.0, 2.0, 0.0]]), noise_std=0.3
Empirical, empirical | points=y
Empirical.responsibilities | | (5, 7)
Empirical.nearest | | B
SampledToy.sample | self=TOYS['rings']() | (5, 2) | F32
SampledToy.sample (moons) | self=TOYS['moons']() | (5, 2) | made
SampledToy.sample (circle) | self=tilted_circle(3) | BD | F32
two_modes, eight_gaussians, grid, asymmetric | | | made
tilted_line | dim=3 | | made
tilted_circle | dim=3
noise:
check_sigmas | | (3,)
check_range | low=0.5, high=2.0
geometric, karras | | (3,) | made
ddpm_levels | betas=tensor([0.1, 0.2, 0.3]) | (3,)
linear_betas | | (4,) | made
levels | | B | | result(5, generator=generator)
log_uniform, log_normal | | B | F32 | result(5, generator=generator)
losses:
explicit_score_matching | score=net, target=p.score | B
implicit_score_matching, denoising_score_matching | score=net | B
implicit_score_matching (autograd) | | B
sliced_score_matching | score=net, n_slices=2 | B
sliced_score_matching (gaussian) | n_slices=2, slices='gaussian', variance_reduced=False | B
sliced_score_matching (sphere) | score=net, slices='sphere' | B
finite_difference_score_matching | score=net, step=0.01 | B
finite_difference_score_matching (its own step) | score=net | B
noisy_cross_entropy | x=torch.cat([x, labels[:, None].to(x)], 1) | B
perturbed | loss=implicit_score_matching | B | | result(net, x, sigma, generator=generator)
at_random_sigma | loss=denoising_score_matching, draw=levels(sigmas) | B | | result(net, x, generator=generator)
sde:
VE.marginal, VP.marginal, SubVP.marginal, VE.diffusion, VP.diffusion, SubVP.diffusion, noise_level | t=ts | B
VE.drift, VP.drift, SubVP.drift, reverse_drift (times) | t=ts | BD
VE.time, VP.time, SubVP.time | | B
VE.prior_sample, VP.prior_sample, SubVP.prior_sample | shape=(5, 3) | BD | F32
VE.marginal (one time), VP.marginal (one time), SubVP.marginal (one time), noise_level (one time)
VE.drift (one time), VP.drift (one time), SubVP.drift (one time) | | BD
VE.diffusion (one time), VP.diffusion (one time), SubVP.diffusion (one time)
VE.time (one level), VP.time (one level), SubVP.time (one level) | sigma=0.5
check_times | times=tensor([1.0, 0.6, 0.3, 0.1]), ascending=False
flow | y=x, sigmas=[1.0, 0.5] | BD
integrate | rate=partial(operators.jacobian_trace, p.score), y=x, sigmas=[1.0, 0.5] | [BD, B, BD, B]
geometric_times, karras_times, uniform_times | | B | made
level_times | | (3,)
likelihood_weight | | B | | result(sigma)
reverse_drift | noise=0.5 | BD
sigma_score | score=lambda x, t: -x | BD | | result(x, sigma)
time_score | | BD | | result(x, 0.5)
uniform_in_time | | B | F32 | result(5, generator=generator)
samplers:
langevin, langevin_step, tweedie, reverse_diffusion, ancestral, posterior_mean | | BD
ancestral_step, reverse_diffusion_step, heun_step, predictor_corrector, corrected_step | | BD
langevin (one level), metropolis_langevin | sigma=0.5 | BD
langevin_step (a step for each row) | step_size=sigma[:, None] | BD
annealed_langevin | sigmas=LEVELS, denoise=True, clamp=(-9.0, 9.0) | BD
annealed_langevin (a network) | score=net | BD
inpaint | sigmas=LEVELS, known=x[0], denoise=True | BD
between | | BD | | result(x, generator)
interpolate | a=x[0], b=x[1] | BD
final | chain=[x, x + 1] | BD
diffuse | times=[0.0, 0.5, 1.0] | BD
reverse_sde, euler_maruyama_step | noise=0.5 | BD
ddim, ddim_step | eta=0.5 | BD
ddim (sub-VP, a network) | sde=SubVP(), score=net, generator=None | BD
probability_flow | sde=VE(0.1, 10.0) | BD
adaptive_flow | times=tensor([1.0, 0.5]) | BD
predictor_corrector (no predictor) | predictor=None, width=samplers.batch_norms | BD
matched_norms | | B
batch_norms | | ()
corrector_step | factor=0.04, width=samplers.noise_std | BD
guided | log_likelihood=samplers.of_class(classifier, 1), strength=2.0 | BD | | result(x, sigma)
of_class | label=1 | B | | result(x, sigma)
of_class (a class for each row) | label=labels | B | | result(x, sigma)
mixture_classes | | (5, 2) | | result(x, sigma)
of_mixture, of_measurement | y=tensor([0.5, -0.5]), noise_std=0.3 | B | | result(x, sigma)
of_measurement (a variance) | y=normal(5, 2), noise_std=0.3, data_variance=2.0 | B | | result(x, sigma)
rows_of | | (2, 3) | made
grey | event=(3, 2, 2) | (4, 12) | made
likelihood:
log_likelihood | generator=None | B
log_likelihood (estimated) | sde=VE(0.1, 10.0), score=net, prior=p.perturb(10.0), t_min=0.5, exact_trace=False | B
bits_per_dimension | log_prob=sigma, n_levels=17 | B
diagnostics:
affine_law | step=samplers.reverse_diffusion_step, gaussian=gaussian, times=ts[2:4].flip(0), start=moments | [(3,), (3, 3)] | F64
gaussian_divergence | p=moments, q=gaussian.perturb(0.5)
design_ladder | n_levels=3 | (3,) | F32
design_ladder (its own levels) | dim=9 | | F32
design_levels | sigma_min=0.5, overlap=0.3 | | F32
design_levels (a quantile) | sigma_min=0.5, quantile=0.7 | | F32
distance_quantile | quantile=0.7
divergences | p=line, q=GaussianMixture(line.means, 1.0, line.weights), sigma=0.5, nodes_per_std=10.0
weight_blindness | mixture=line, weights=[0.6, 0.4], sigmas=[0.0, 1.0] | (2,) | F64
epsilon_from_eta | eta=0.1
exact_fisher | score=gaussian.score, sigma=0.5, n=20
exact_fisher (by quadrature) | score=lambda x, sigma: -x, mixture=line, sigma=0.5, generator=None
eyring_kramers | mixture=pair, sigma=0.1
spectral_gap | distribution=line, sigma=0.5, nodes_per_std=8.0
spectral_gap (of a log density) | distribution=lambda x: -x.square().sum(1), sigma=0.0, bounds=[(-4.0, 4.0)], n_nodes=201
slow_modes | distribution=line, sigma=0.5, n_modes=2, nodes_per_std=8.0 | | F64
slow_modes (of a log density) | distribution=lambda x: -x.square().sum(1), sigma=0.0, bounds=[(-4.0, 4.0)], n_nodes=201 | | F64
hop_rate | chain=[plane, plane + 0.1, -plane], mixture=pair, sigma=0.5
separates | mixture=pair
reduce | mixture=pair | | F64
uniform_cloud | dim=2, n=4 | [(16, 2), (16,)] | F64
quadrature | mixture=line, sigma=0.5, nodes_per_std=10.0 | | F64
matched_norms_law | mixture=line, sigma=0.5, n_empty=1, nodes_per_std=10.0 | | F64
propagate, last_laws | mixture=line, start=cloud, schedule=schedule[1:] | | F64
Stage | sigma=0.5, step_size=0.2
Law.refined | spacing=0.1 | | F64
Law.total_variation | mixture=line, sigma=0.5
Law.mode_weights | mixture=line | (2,) | F64
freeze_out | mixture=line, start=cloud, schedule=schedule, n_modes=1 | | F64
gradient_variance | loss=denoising_score_matching, sigma=0.5, batch_size=4, n_batches=3
least_normal_loss | noise_std=0.5
normal_loss | stiffness=2.0, noise_std=0.5
level_overlap | ratio=1.5
level_ratio | dim=9
tuned_step | ratio=1.5
measured_variance | chain=[x, x + 0.1, -x], n_discard=1 | (3,) | F64
objective_identities | score=gaussian.score, sigma=0.5, n=20, objectives=OBJECTIVES
relaxed_variance | start=2.0 | B | F64
stationary_variance | | B | F64
stein_numbers | step_size=0.1, centre=x[0] | B | F64
metrics:
denoising_losses | | (3,)
linear_losses | covariance=p.covariance | (3,)
effective_sample_size, split_r_hat, rank_normalized_r_hat | | (3,)
mmd2 (its own bandwidth)
same_law | n_permutations=60
sliced_wasserstein2 | y=y[:5], n_projections=4
sliced_wasserstein2 (of two sizes) | n_projections=4
mmd2 | bandwidth=1.5
nearest | data=y | B
overlap | samples=x, data=y, k=2
expected_coverage | n_samples=5, n_data=7, k=2
fisher_divergence | score=net
fisher_divergence_by_region | score=net, regions=(x[:, 0] > 0).long() | (2,)
relative_errors | score=net | B
mode_weights, mode_weight_errors | | (2,)
fit_classifier | seed=0
fit_features | n_features=3, n_steps=1, seed=0 | | made
Features | n_features=3, n_classes=2 | | made
Features.forward | x=images | (5, 4) | F32
Features.classes | x=images | B
models:
MLP | dim=3, width=4, depth=2, sigmas=sigmas, data_variance=2.0 | | made
MLP.forward | | BD
EMA.forward | x=x, sigma=sigma | BD
MLP.forward (unconditional) | self=plain, x=plane, sigma=0.0 | (5, 2)
MLP.jvp | tangents=directions | [BD, (2, 5, 3)]
NCSN, CompactNCSN | sigmas=LEVELS | | made
NCSN.forward | self=built(lambda: models.NCSN(1, 8, 2, LEVELS)), x=images, sigma=tensor([2.0, 1.0, 0.5, 0.5, 2.0]) | IMAGES
CompactNCSN.forward | self=built(lambda: models.CompactNCSN(1, 8, 2, sigmas=LEVELS)), x=images, sigma=1.0 | IMAGES
ContinuousNCSN | sigmas=LEVELS, data_mean=0.5, data_variance=0.1 | | made
ContinuousNCSN.forward | self=image_net, x=images | IMAGES
NoiseClassifier | event=(3,), n_classes=3, sigmas=LEVELS, width=4, depth=1, data_mean=0.5, data_variance=2.0 | | made
NoiseClassifier.forward | | BD
EMA | decay=0.9 | | default
EMA.update, EMA.train | | | changes
calibrate | data=p, sigmas=[2.0, 1.0], n=64 | (2,) | F64 | (result.size, result.agreement, result.floor)
adapters.ddpm_clock | alpha_bars=tensor([0.9, 0.5, 0.2]) | B | | result.time(sigma)
adapters.sigma_clock | sigma_min=0.1, sigma_max=9.0 | B | | result.alpha(sigma)
adapters.sde_clock | factor=999.0 | B | | result.time(sigma)
adapters.from_epsilon | clock=models.adapters.sde_clock(VP()) | BD | | result(x, sigma)
adapters.from_v, adapters.from_x0 | clock=models.adapters.sigma_clock() | BD | | result(x, sigma)
adapters.rescaled | factor=2.0, shift=-1.0 | BD | | result(x, sigma)
adapters.epsilon_score | epsilon=x, std=sigma[:, None] | BD
adapters.v_score | v=x, std=sigma[:, None] | BD
adapters.x0_score | x0=x + 1, std=sigma[:, None] | BD
adapters.alpha_of | | B
train:
fit | model=plain, data=flat, loss=implicit_score_matching, n_steps=2, batch_size=4, n_shards=2, clip=1.0 | | changes
rate | step=3, n_steps=9, lr=0.01
draw_seed | step=2, shard=1
data:
Images | values=bytes
Images.sample | self=data.Images(bytes, flip=True) | IMAGES | F32
Images.sample_labelled | | [IMAGES, B] | F32
Images.tensor | limit=5 | IMAGES | F32
Crops | photos=list(bytes), size=4
Crops.sample | self=data.Crops(list(bytes), 4) | (5, 1, 4, 4) | F32
Labelled | source=labelled
Labelled.sample | | (5, 4)
images | x=images, labels=labels
digits | part='held-out'
plotting:
grid | like=x | (25, 2)
arrow_scale | norms=sigma
mass_level | density=sigma, cell=0.5, mass=0.5
density | log_prob=flat.log_prob, sigma=0.5, like=x
vector_field | score=flat.score, sigma=0.5, like=x, scale=0.5
score_map | score=flat.score, sigma=0.5, like=x, n_arrows=3, limits=(0.01, 100.0)
field_comparison | score=pair.score, target=flat.score, sigma=0.5, like=x, n=12, n_arrows=3
samples | x=plane
chains | states=normal(4, 5, 2)
curves | x=sigma, values={'plain': normal(2, 5).exp()}
history | steps=sigma, values=sigma.square(), smooth=3
mosaic | x=images, n_columns=3
canvas | n_columns=2, size=2.0
renderer | | | | result()
animate | update=lambda state: None, states=[x, y]
widgets:
Slider | low=0.0, high=1.0, value=0.5, step=0.1
Slider.at | n=3
Slider.parse | text='0.3'
Choice | options=('few', 'many'), value='few'
Choice.parse | text='many'
Toggle | value=True
Toggle.parse | text='True'
Seed | value=3
Seed.parse | text='3'
panel | draw=lambda **_: None, a=slider, play='a', interval=0.1
config:
Config.fromdict | values=toy_run.asdict()
suggestion | key='sigma_mx', known=['sigma_max', 'sigma_min']
check_used | values=toy_run
build:
build_data | config=toy_run.data | | made
event_of | config=toy_run.data | | default
build_levels | noise=toy_run.noise | (3,) | made
build_network, sampling_plan | | | made
quicken | network=net
build_loss | noise=toy_run.noise | B | default | result(net, x, generator=generator)
n_calls | | | default
sampling_chain | score=narrow, data=facts | (5, 2) | default
draw_samples | score=narrow, data=facts, batch=3 | (5, 2) | default
"""

# reason: names of what is not called
EXEMPT_TABLE = """
operators: what scores check x with; they are called: check_event
config: plain data, checked by config.check; see test_cli: Data, Network, Noise, Training, Sampling, Config
config: parts of config.check; see test_cli: check_count, check_group, check_seed, check_types, told
data: needs data or packages that are fetched; see test_data: cifar10, mnist, mnist5k, photos
data: reads files; see test_data: image_folder
metrics: needs what is fetched; see test_image_metrics: Classifier.probabilities, Classifier.confidence, inception_scores
models: takes another's weights; see test_ncsn: NCSN.load_official
models.adapters: made by functions, which the table has: Adapted, Rescaled, Adapted.forward, Rescaled.forward
models.adapters: needs packages that are fetched; see test_adapters: from_diffusers
plotting: writes files; see test_plotting: save, save_gif, save_mosaic
pretrained: reads or writes files; see test_checkpoints: load, export, digits, photos
train: holds results, made by functions of the table: Step.state
train: reads or writes files; see test_checkpoints: latest_checkpoint, list_checkpoints, load_checkpoint
train: writes files; see test_checkpoints: save_checkpoint
widgets: a control on the screen; see test_widgets: Slider.widget, Choice.widget, Toggle.widget, Seed.widget, Slider.number
widgets: a panel on the screen; see test_widgets: Panel, Panel.say, Panel.set, Panel.restore, Panel.reset, Panel.begin_here
widgets: a panel on the screen; see test_widgets: Panel.step, Panel.play, Panel.stop, Panel.export
"""


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return 0.3 * x + 0.1 * t.to(x)[:, None]


def fitted() -> SklearnMixture:
    return SklearnMixture(2, random_state=0).fit(np.random.default_rng(0).normal(size=(30, 3)))


def _pairs(text: str) -> dict[str, str]:
    return dict(part.split(" = ", 1) for line in text.strip().splitlines() for part in line.split("; "))


VALUES_OF, ALWAYS_OF = _pairs(VALUES), _pairs(ALWAYS)
BY_NAME_OF = ALWAYS_OF | _pairs(BY_NAME)
EXEMPT = {
    f"{module}.{name}": reason
    for module, reason, names in (line.split(": ") for line in EXEMPT_TABLE.strip().splitlines())
    for name in names.split(", ")
}
NAMESPACE = {
    **{name: value for module in (distributions, losses, noise, sde) for name, value in vars(module).items()},
    **{name: importlib.import_module(f"toyscore.{name}") for name in [*toyscore.__all__, "operators"]},
    "torch": torch,
    "np": np,
    "F64": F64,
    "seeded": seeded,
    "partial": partial,
    "network": network,
    "fitted": fitted,
    "B": (5,),
    "BD": (5, 3),
    "IMAGES": (5, 1, 8, 8),
    "LEVELS": [2.0, 1.0, 0.5],
    "OBJECTIVES": {"one": diagnostics.Objective(losses.denoising_score_matching, 1, -1)},
}


class World(dict[str, Any]):
    """What functions are called with, in one dtype and on one device: each of ``VALUES``, made when it is asked for."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu") -> None:
        place = torch.device(device)

        def tensor(values: Any) -> torch.Tensor:
            return torch.tensor(values, dtype=F64, device="cpu").to(place, dtype)

        def normal(*shape: int, seed: int = 0) -> torch.Tensor:
            return torch.randn(shape, dtype=F64, generator=seeded(seed), device="cpu").to(place, dtype)

        def built(make: Any) -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                return make().to(place, dtype).eval()

        super().__init__(dtype=dtype, device=place, tensor=tensor, normal=normal, built=built)

    def __missing__(self, key: str) -> Any:
        self[key] = self.evaluate(VALUES_OF[key])
        return self[key]

    def evaluate(self, text: str, **more: Any) -> Any:
        return eval(text, NAMESPACE | more, self)


@dataclass(frozen=True)
class Call:
    """A line of the table."""

    name: str
    given: str = ""
    promise: str = ""
    flags: str = ""
    use: str = ""

    @property
    def function(self) -> Any:
        value: Any = toyscore
        for part in self.name.partition(" (")[0].split("."):
            value = getattr(value, part)
        return value

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    def shapes(self, n: int) -> list[tuple[int, ...]]:
        """Of ``n`` tensors that are returned."""
        shape = eval(self.promise, NAMESPACE)
        return shape if isinstance(shape, list) else [shape] * max(1, n)

    @property
    def dtype(self) -> torch.dtype | None:
        """Of floating-point results; None for the inputs'."""
        return F64 if "F64" in self.flags else F32 if "F32" in self.flags or self.flags == "made" else None

    @property
    def default(self) -> bool:
        return self.flags in ("default", "made")

    @property
    def changes(self) -> tuple[str, ...]:
        return tuple(self.parameters)[:1] if self.flags == "changes" else ()

    def arguments(self, w: World) -> dict[str, Any]:
        found = w.evaluate(f"dict({self.given})")
        for key, p in self.parameters.items():
            source = self.name.split(".")[-2] if key == "self" else key
            needed = p.default is p.empty and not p.kind.name.startswith("VAR_")
            if key not in found and (needed or source in ALWAYS_OF):
                found[key] = w.evaluate(BY_NAME_OF[source])
        return found


def _calls() -> Iterator[Call]:
    module = ""
    for line in filter(None, TABLE.splitlines()):
        if line.endswith(":"):
            module = line[:-1]
            continue
        names, *rest = (part.strip() for part in line.split("|"))
        for name in re.split(r", (?![^(]*\))", names):
            yield Call(f"{module}.{name}", *rest)


def public() -> Iterator[str]:
    """Every public function, class and method, except protocols, aliases of types, exceptions and what only holds values."""
    for name in [*toyscore.__all__, "models.adapters"]:
        module = importlib.import_module(f"toyscore.{name}")
        own = [k for k, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__]
        for key in getattr(module, "__all__", own):
            value = getattr(module, key)
            if key.startswith("_") or not callable(value) or isinstance(value, type(mpl)):
                continue
            if get_origin(value) or getattr(value, "_is_protocol", False):
                continue  # says what something must look like
            if inspect.isclass(value) and issubclass(value, Exception):
                continue
            if not (is_dataclass(value) or hasattr(value, "_fields")) or hasattr(value, "__post_init__"):
                yield f"{name}.{key}"
            if inspect.isclass(value):
                for method, v in vars(value).items():
                    if not method.startswith("_") and (callable(v) or isinstance(v, classmethod)):
                        yield f"{name}.{key}.{method}"


def _all_calls() -> dict[str, Call]:
    """Those of the table, and of each module those that need no line."""
    table, names = list(_calls()), list(public())
    listed = {call.name.partition(" (")[0] for call in table} | EXEMPT.keys()
    return {call.name: call for call in (*table, *(Call(name) for name in names if name not in listed))}


CALLS = _all_calls()


def run(name: str, w: World, arguments: dict[str, Any]) -> Any:
    """Call an entry, use what it returned, and take every state of a chain."""
    call, named = CALLS[name], dict(arguments)
    first = [named.pop(key) for key, p in call.parameters.items() if p.kind is p.POSITIONAL_ONLY and key in named]
    result = call.function(*first, **named)
    if call.use:
        result = w.evaluate(call.use, result=result)
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
