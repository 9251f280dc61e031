r"""Networks of others as score functions.

Diffusion models are trained to predict the noise, the clean data or a mixture of the two, at a time t and in coordinates

.. math:: x_t = \alpha x, \qquad \alpha = \frac{1}{\sqrt{1 + \sigma^2}}, \qquad x = x_0 + \sigma \epsilon,

which keep the variance of data of unit variance (DDPM's :math:`\alpha^2` is :math:`\bar\alpha_t`). With the deviation
:math:`s_t = \alpha \sigma` of the noise in :math:`x_t` each prediction is the score in other words:

.. math:: \nabla \log q_\sigma(x) = -\frac{\epsilon}{\sigma} = \frac{x_0 - x}{\sigma^2}, \qquad
          \epsilon = \alpha v + s_t x_t \quad (v = \alpha \epsilon - s_t x_0).

So an adapter is three things: a *reading* of the output (:func:`from_epsilon`, :func:`from_v`, :func:`from_x0`), a *clock* that says
which t has which sigma and whether the network sees x or :math:`\alpha x` (:func:`ddpm_clock`, :func:`sde_clock`,
:func:`sigma_clock`), and the range of the data (:func:`rescaled`). Whether they were the right ones,
:func:`toyscore.models.calibrate` asks of data. Networks must already be in evaluation mode.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toyscore import operators as ops
from toyscore._extras import missing
from toyscore.operators import Score, Sigma, looks
from toyscore.sde import SDE, noise_level

_NEAR = 0.01  # of a level: how far beyond a clock's ends rounding may lead


@dataclass(frozen=True)
class Clock:
    """What a network is given for ``x`` and ``sigma``: ``alpha(sigma) * x`` and ``time(sigma)``, both of sigma [B].

    ``sigma_min`` and ``sigma_max`` are the ends of what it was trained on.
    """

    alpha: Callable[[Tensor], Tensor]
    time: Callable[[Tensor], Tensor]
    sigma_min: float = 0.0
    sigma_max: float = math.inf


def ddpm_clock(alpha_bars: Tensor, *, whole: bool = False) -> Clock:
    r"""Steps :math:`t = 0, \dots, N - 1` with :math:`\sigma_t = \sqrt{(1 - \bar\alpha_t) / \bar\alpha_t}`. Source: ho2020, Eq. (4).

    Of alpha bar 0.9, 0.5, 0.1, step 1 has sigma² = 0.5 / 0.5, and step 2 has 0.9 / 0.1:

    >>> import torch
    >>> from toyscore.models.adapters import ddpm_clock
    >>> clock = ddpm_clock(torch.tensor([0.9, 0.5, 0.1]))
    >>> [round(t, 3) for t in clock.time(torch.tensor([1.0, 3.0])).tolist()]
    [1.0, 2.0]

    Args:
        alpha_bars: :math:`\bar\alpha_t` [N], strictly decreasing within (0, 1): ``torch.cumprod(1 - betas.double(), 0)``. A first 1
            (no noise) and a last 0 (no signal, as in schedules of zero terminal SNR) have no score: those two steps are left out,
            the others keep their numbers.
        whole: round t to the step that is nearest in log sigma, for a network that looks its step up in a table; otherwise a sigma
            between two steps has a t between them, linear in log sigma.

    Raises:
        ValueError: not [N], fewer than two steps with noise and signal, not within (0, 1), not decreasing, or in half precision.
    """
    alpha_bars = torch.as_tensor(alpha_bars)
    remedy = "pass torch.cumprod(1 - betas.double(), 0) of at least two betas within (0, 1)"
    if alpha_bars.ndim != 1:
        raise ValueError(f"alpha_bars has shape {list(alpha_bars.shape)}: it must be [N] with N >= 2; {remedy}")
    if alpha_bars.is_floating_point() and alpha_bars.element_size() < 4:
        raise ValueError(f"alpha_bars is {alpha_bars.dtype}: too few digits are left of 1 - alpha_bar; {remedy}")
    exact = alpha_bars.detach().cpu().double()
    first = int(bool((exact[:1] == 1).any()))
    exact = exact[first : len(exact) - int(bool((exact[-1:] == 0).any()))]
    bad = ~((exact > 0) & (exact < 1))
    bad[1:] |= exact[1:] >= exact[:-1]
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        before = f" after {float(exact[i - 1]):.6g}" if i else ""
        raise ValueError(
            f"alpha_bars[{first + i}] = {float(exact[i]):.6g}{before}: they must decrease strictly within (0, 1); {remedy}"
        )
    if len(exact) < 2:
        raise ValueError(
            f"alpha_bars has {len(exact)} steps with noise and signal: it must have at least two; {remedy}"
        )
    logs = 0.5 * ((1 - exact) / exact).log()  # of sigma, increasing

    def time(sigma: Tensor) -> Tensor:
        table = logs.to(sigma)
        at = sigma.log().clamp(table[0], table[-1])
        right = torch.searchsorted(table, at).clamp(1, len(table) - 1)
        low, high = table[right - 1], table[right]
        t = first + right - 1 + (at - low) / (high - low)
        return t.round().long() if whole else t

    return Clock(alpha_of, time, math.exp(float(logs[0])), math.exp(float(logs[-1])))


def sigma_clock(sigma_min: float = 0.0, sigma_max: float = math.inf) -> Clock:
    """For a network that takes x as it is and sigma itself, as variance-exploding ones and denoisers D(x, sigma) do.

    Raises:
        ValueError: not 0 <= sigma_min < sigma_max.
    """
    if not 0 <= sigma_min < sigma_max:
        low = sigma_min if 0 <= sigma_min < math.inf else 0.0
        high = sigma_max if low < sigma_max else math.inf
        remedy = "swap them" if 0 <= sigma_max < sigma_min else f"pass e.g. sigma_min={low}, sigma_max={high}"
        raise ValueError(
            f"sigma_min = {sigma_min}, sigma_max = {sigma_max}: they must be 0 <= sigma_min < sigma_max; {remedy}"
        )
    return Clock(torch.ones_like, lambda sigma: sigma, sigma_min, sigma_max)


def sde_clock(sde: SDE, *, factor: float = 1.0) -> Clock:
    """For a network of the score-SDE kind, which takes x_t = alpha_t x and t in (0, 1]. Source: song2021, Appendix C.

    (The authors' networks for VE take sigma itself: ``sigma_clock``.)

    Args:
        sde: the process it was trained on.
        factor: what t is multiplied by before the network sees it; 999 for the authors' VP and sub-VP networks.

    Raises:
        ValueError: a factor that is not positive.
    """
    ops.check_positive(factor, "factor")
    least = noise_level(sde, 1e-5)
    return Clock(
        lambda sigma: sde.marginal(sde.time(sigma))[0],
        lambda sigma: factor * sde.time(sigma),
        least,
        noise_level(sde, 1.0),
    )


class Adapted(nn.Module):
    """A score function made of a network, a clock and a reading; made by :func:`from_epsilon`, :func:`from_v`, :func:`from_x0`.

    A module computes in the dtype of its weights, whatever that of x.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Any],
        clock: Clock,
        reading: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__()
        if not callable(network):
            raise TypeError(
                f"network is {type(network).__name__}: it must be callable as network(x_t, t); pass a module"
            )
        if not isinstance(clock, Clock):
            raise TypeError(
                f"clock is {type(clock).__name__}: it must be a Clock; pass ddpm_clock(alpha_bars) or sigma_clock()"
            )
        self.network, self.clock, self.reading = network, clock, reading

    def forward(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The score at ``x`` [B, *event] for ``sigma`` float | 0-d | [B], positive and within the clock -> like x.

        Raises:
            TypeError, ValueError: x or sigma is not what it must be; x on another device than the network's weights; a sigma beyond the
                clock (on an accelerator its rows are NaN instead); an output of another shape than x.
        """
        ops.check_batch(x)
        if looks(sigma):
            ops.check_sigma(sigma, x, positive=True)
        std = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        low, high = self.clock.sigma_min * (1 - _NEAR), self.clock.sigma_max * (1 + _NEAR)
        beyond = ~((std >= low) & (std <= high))
        if looks(sigma) and bool(beyond.any()):
            raise ValueError(
                f"sigma = {float(std[beyond][0]):.6g}: the network was trained from {self.clock.sigma_min:.6g} to "
                f"{self.clock.sigma_max:.6g} and knows nothing beyond; choose levels within"
            )
        like = self._weights(x)
        exact = std.to(
            torch.promote_types(like.dtype, torch.float32)
        )  # in half precision steps coincide and squares overflow
        out = self.network((ops.per_example(self.clock.alpha(exact), x) * x).to(like.dtype), self.clock.time(exact))
        out = getattr(out, "sample", out)  # diffusers wraps what it returns
        if not isinstance(out, Tensor) or out.shape != x.shape:
            kind, remedy = type(out).__name__, "return the prediction alone"
            if isinstance(out, Tensor):
                doubled = out.ndim == x.ndim and out.shape[1] == 2 * x.shape[1]
                kind = f"shape {list(out.shape)}"
                remedy = "if it also predicts a variance, keep its first half" if doubled else "check its last layer"
            raise ValueError(
                f"the network returned {kind} for x of shape {list(x.shape)}: a prediction is shaped like x; {remedy}"
            )
        score = self.reading(out.to(x.dtype), x, ops.per_example(std, x))
        return score if looks(sigma) else torch.where(ops.per_example(beyond, x), torch.nan, score)

    def _weights(self, x: Tensor) -> Tensor:
        """What the network's input must be like: its first weights, or x where it has none."""
        weights = self.network.parameters() if isinstance(self.network, nn.Module) else iter(())
        like = next((w for w in weights if w.is_floating_point()), x)
        if like.device != x.device:
            raise ValueError(
                f"x is on {x.device}, the network on {like.device}: move x with x.to({str(like.device)!r})"
            )
        return like


def from_epsilon(network: Callable[[Tensor, Tensor], Any], clock: Clock) -> Adapted:
    """The score of a network that predicts the noise. Source: ho2020, Sec. 3.2.

    Of a network that always predicts 3 it is -3 / sigma:

    >>> import torch
    >>> from toyscore.models.adapters import from_epsilon, sigma_clock
    >>> score = from_epsilon(lambda x, sigma: torch.full_like(x, 3.0), sigma_clock())
    >>> score(torch.zeros(1, 2), 0.5).tolist()
    [[-6.0, -6.0]]

    Args:
        network: ``network(x_t, t)``, x_t [B, *event] and t [B], -> like x_t, or an object with ``.sample``.
        clock: which t and which alpha belong to sigma.
    """
    return Adapted(network, clock, epsilon_score)


def from_v(network: Callable[[Tensor, Tensor], Any], clock: Clock) -> Adapted:
    """The score of a network that predicts v = alpha epsilon - s_t x_0. Source: salimans2022, Sec. 4. Args: as ``from_epsilon``.

    v is that of alpha² + s_t² = 1, whether the network sees alpha x (``ddpm_clock``) or x (``sigma_clock``).

    Raises:
        ValueError: a clock of another alpha, such as sub-VP's.
    """
    if isinstance(clock, Clock):
        sigma = torch.tensor([max(clock.sigma_min, min(1.0, clock.sigma_max))], dtype=torch.float64, device="cpu")
        alpha = clock.alpha(sigma)
        if not (torch.allclose(alpha, alpha_of(sigma), rtol=1e-6) or bool(alpha == 1)):
            raise ValueError(
                f"the clock has alpha = {float(alpha):.6g} at sigma = {float(sigma):.6g}: v is defined where alpha² (1 + sigma²) = 1, as "
                "ddpm_clock and sde_clock(VP()) have it; pass one of those"
            )
    return Adapted(network, clock, v_score)


def from_x0(network: Callable[[Tensor, Tensor], Any], clock: Clock) -> Adapted:
    """The score of a network that predicts the clean data. Source: karras2022, Eq. (3). Args: as ``from_epsilon``."""
    return Adapted(network, clock, x0_score)


def epsilon_score(epsilon: Tensor, x: Tensor, std: Tensor) -> Tensor:
    """-epsilon / sigma. ``std`` is sigma, shaped to spread over the events of ``x``."""
    return -epsilon / std


def v_score(v: Tensor, x: Tensor, std: Tensor) -> Tensor:
    """-(alpha v + s_t x_t) / sigma, with x_t = alpha x and s_t = alpha sigma."""
    alpha = alpha_of(std.to(torch.promote_types(std.dtype, torch.float32))).to(
        std
    )  # squares overflow in half precision
    return -(alpha * v + alpha * std * (alpha * x)) / std


def x0_score(x0: Tensor, x: Tensor, std: Tensor) -> Tensor:
    """(x_0 - x) / sigma². Source: karras2022, Eq. (3)."""
    return (x0 - x) / (std * std)  # Eq. (3)


class Rescaled(nn.Module):
    """The score in other units of the data; made by :func:`rescaled`."""

    def __init__(self, score: Score, factor: float, shift: float) -> None:
        super().__init__()
        self.score, self.factor, self.shift = score, factor, shift

    def forward(self, x: Tensor, sigma: Sigma, *args: Any, **kwargs: Any) -> Tensor:
        """The score at ``x`` [B, *event] for ``sigma`` float | 0-d | [B], both in the new units -> like x; labels and more are passed on.

        Raises:
            TypeError, ValueError: as the score does, in units of its own.
        """
        try:
            return self.factor * self.score(self.factor * x + self.shift, self.factor * sigma, *args, **kwargs)
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            units = f"{self.factor:g} sigma and {self.factor:g} x {self.shift:+g}"
            raise ValueError(f"{error} (in the units of the score that is rescaled, which sees {units})") from error


def rescaled(score: Score, factor: float, shift: float) -> Rescaled:
    r"""The score of x where ``score`` is that of :math:`y = a x + b`: :math:`a\, s(a x + b, a \sigma)`.

    ``rescaled(score, 2.0, -1.0)`` brings a network of data in [-1, 1] to data in [0, 1].

    Raises:
        TypeError, ValueError: score cannot be called; factor not positive; shift not finite.
    """
    ops.check_score(score)
    ops.check_positive(factor, "factor")
    if not isinstance(shift, int | float) or not math.isfinite(shift):
        raise ValueError(f"shift = {shift}: it must be finite; pass b of y = a x + b")
    return Rescaled(score, factor, shift)


def from_diffusers(path: str | Path, *, label: int | Tensor | None = None) -> Adapted | Rescaled:
    """The score of a UNet2DModel that diffusers saved on this disk; nothing is fetched, nothing unpickled.

    x [B, C, H, W] are pictures in [0, 1], which the network sees in [-1, 1]. In a pipeline with a ``vqvae`` or ``vae`` they are its
    latents, as the network sees them; a warning says so. H and W are multiples of 2 for each halving of the network.

    The schedule is that of the training: what a scheduler does when it samples (clipping, thresholding, spacing) is no part of a score. A
    step without signal (``rescale_betas_zero_snr``) is left out. A sigma between two steps has a t between them; a network
    with ``time_embedding_type="learned"`` knows whole steps only and is told the nearest, see :func:`ddpm_clock`.

    Args:
        path: a pipeline's folder (``unet/`` and ``scheduler/``), or one that holds both ``config.json`` and ``scheduler_config.json``.
            Weights of a variant (fp16) are read where there are no others, and as float32; any dtype of x is taken, and given back.
        label: of a network with ``num_class_embeds``: one class for every row, or [B] whole numbers.

    Raises:
        ImportError: diffusers is not installed.
        TypeError: a path or a label of another type.
        ValueError: no such folder, a network of another class or with further inputs, weights that are no safetensors, a prediction or a
            schedule of no known kind; a label that is missing, no class, or of no use. At the call, an x that the network cannot take.
    """
    try:
        from diffusers import DDPMScheduler, UNet2DModel
    except ImportError as error:
        raise missing("from_diffusers", "diffusers", "diffusers") from error
    if not isinstance(path, str | Path):
        raise TypeError(f"path is {type(path).__name__}: it must be a folder; pass the one that save_pretrained wrote")
    path = Path(path)
    unet, scheduler = (path / name if (path / name).is_dir() else path for name in ("unet", "scheduler"))
    index = path / "model_index.json"
    parts = _read(index) if index.is_file() else {}
    encoder = next((n for n in ("vqvae", "vae", "movq") if (path / n).is_dir() or any(parts.get(n) or ())), None)
    if parts and not unet.joinpath("config.json").is_file():
        raise ValueError(
            f"{path} holds a {parts.get('_class_name')} without a unet: only UNet2DModel is read; wrap its network with {_BY_HAND}"
        )
    config = _read(unet / "config.json")
    _check_unet(config, unet / "config.json")
    schedule = _read(scheduler / "scheduler_config.json")
    reading = _reading(schedule, scheduler / "scheduler_config.json")
    weights = sorted(file.name for file in unet.glob("*.safetensors"))
    if not weights:
        raise ValueError(
            f"{unet} holds no .safetensors file: pickled weights can run code, so they are not read; save it again with "
            "safe_serialization=True"
        )
    variant = re.fullmatch(r"diffusion_pytorch_model\.(\w+)(-\d+-of-\d+)?\.safetensors", weights[0])
    plain = any(re.fullmatch(r"diffusion_pytorch_model(-\d+-of-\d+)?\.safetensors", name) for name in weights)
    try:
        network = UNet2DModel.from_pretrained(
            unet,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            variant=variant[1] if variant and not plain else None,
        )
        alpha_bars = DDPMScheduler.from_pretrained(scheduler, local_files_only=True).alphas_cumprod
    except (OSError, RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no model that diffusers can read: {error}; save it anew") from error
    learned = config.get("time_embedding_type") == "learned"
    if learned and network.config.num_train_timesteps < len(alpha_bars):
        raise ValueError(
            f"{unet / 'config.json'} has num_train_timesteps = {network.config.num_train_timesteps}, its schedule {len(alpha_bars)} steps: "
            "a learned time embedding has a row for each; save it with the scheduler that it was trained with"
        )
    score = reading(_UNet(network.eval(), label), ddpm_clock(alpha_bars, whole=learned))
    if encoder is None:
        return rescaled(score, 2.0, -1.0)
    warnings.warn(
        f"{path} works in latents: x is not pictures in [0, 1] but what its {encoder} encodes them to, times the scaling_factor of "
        f"{encoder}/config.json, [B, {network.config.in_channels}, H, W]; decode samples with it",
        stacklevel=2,
    )
    return score


class _UNet(nn.Module):
    """A UNet2DModel as ``network(x_t, t)``: what it predicts of the mean; what follows, where it does, is of the variance."""

    def __init__(self, network: Any, label: int | Tensor | None) -> None:
        super().__init__()
        self.network, self.label = network, _labels(label, network.config.num_class_embeds)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """[B, C, H, W] and [B] -> like x.

        Raises:
            ValueError: another number of channels, sides that cannot be halved as often as the network does, labels of another number.
        """
        channels, factor = self.network.config.in_channels, 2 ** (len(self.network.down_blocks) - 1)
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"x has shape {list(x.shape)}: this network takes [B, {channels}, H, W]; reshape it")
        if any(side % factor for side in x.shape[2:]):
            larger = [-(-side // factor) * factor for side in x.shape[2:]]
            raise ValueError(
                f"x has shape {list(x.shape)}: this network takes sides that are multiples of {factor}; pad or resize to "
                f"{larger[0]} x {larger[1]}"
            )
        if self.label is None:
            return self.network(x, t).sample[:, :channels]
        if self.label.ndim and self.label.shape != x.shape[:1]:
            raise ValueError(
                f"label has shape {list(self.label.shape)}, x {len(x)} rows: pass one label per row, or one for all"
            )
        return self.network(x, t, self.label.to(x.device).long().expand(len(x))).sample[:, :channels]


_BY_HAND = "from_epsilon(lambda x, t: network(x, t, ...).sample, ddpm_clock(scheduler.alphas_cumprod)), or from_v, from_x0, as it predicts"


def _labels(label: int | Tensor | None, n_classes: int | None) -> Tensor | None:
    """The label of every row, or [B], refused unless the network has such classes."""
    if n_classes is None and label is not None:
        raise ValueError(f"label = {label}: this network knows no classes; leave label out")
    if n_classes is None:
        return None
    if label is None:
        raise ValueError(f"label = None: this network is told one of {n_classes} classes; pass e.g. label=0")
    try:
        labels = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"label is {type(label).__name__}: classes are whole numbers; pass e.g. label=0") from error
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"label is {labels.dtype}: classes are whole numbers; pass e.g. label=0")
    if labels.ndim > 1 or labels.numel() == 0:
        raise ValueError(f"label has shape {list(labels.shape)}: it must be a number or [B]; pass one per row")
    if not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise ValueError(f"label = {labels.tolist()}: classes are 0 to {n_classes - 1}; pass one of them")
    return labels


def _check_unet(config: dict[str, Any], path: Path) -> None:
    """Refuse what is not a UNet2DModel of x, t and a class."""
    kind = config.get("_class_name")
    if kind != "UNet2DModel":
        raise ValueError(f"{path} describes a {kind}: only UNet2DModel has no further inputs; wrap it with {_BY_HAND}")
    if config.get("class_embed_type") is not None:
        raise ValueError(
            f"{path} has class_embed_type = {config['class_embed_type']}: its labels are no classes but numbers or features; wrap it with "
            f"{_BY_HAND}"
        )
    if config.get("time_embedding_type") == "fourier":
        raise ValueError(
            f"{path} has time_embedding_type = fourier: it divides by t, which is a noise level and not a step of DDPM; wrap it with "
            "from_epsilon(lambda x, sigma: -sigma[:, None, None, None] * network(x, sigma).sample, sigma_clock()), if it predicts a score"
        )
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if inputs not in (outputs, outputs / 2):
        raise ValueError(
            f"{path} has in_channels = {inputs}, out_channels = {outputs}: they must be equal, or outputs twice as many for a predicted "
            f"variance; wrap what sees a second picture with {_BY_HAND}"
        )


def _reading(schedule: dict[str, Any], path: Path) -> Callable[[Any, Clock], Adapted]:
    """How the prediction is read, for a schedule of DDPM's steps."""
    if "beta_schedule" not in schedule:
        raise ValueError(
            f"{path} is of a {schedule.get('_class_name')}: its steps are not DDPM's, beta_schedule is missing; wrap the network with "
            "from_epsilon, from_v or from_x0 and a clock of its own, e.g. sigma_clock()"
        )
    usual = {"timestep_type": "discrete", "use_flow_sigmas": False, "snr_shift_scale": 1.0}
    for key, value in usual.items():
        if schedule.get(key, value) != value:
            raise ValueError(
                f"{path} has {key} = {schedule[key]}: its steps are not DDPM's, which have {value}; wrap the network with from_epsilon, "
                "from_v or from_x0 and a clock of its own"
            )
    predicts = schedule.get("prediction_type", "epsilon")
    readings = {"epsilon": from_epsilon, "v_prediction": from_v, "sample": from_x0}
    if predicts not in readings:
        raise ValueError(
            f"{path} has prediction_type = {predicts}: it must be one of {', '.join(readings)}; wrap the network with from_epsilon and "
            "what epsilon follows from its output"
        )
    return readings[predicts]


def alpha_of(sigma: Tensor) -> Tensor:
    """What keeps the variance: 1 / sqrt(1 + sigma²)."""
    return (1 + sigma * sigma).rsqrt()


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"{path} cannot be read ({cause}): pass the folder that save_pretrained of a UNet2DModel and of its scheduler wrote"
        ) from error
