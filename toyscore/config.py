"""What a run is made of, as plain data: read from YAML and the command line, and checked; ``toyscore.build`` makes it.

Nothing here imports torch, so that help and errors come at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class ConfigError(ValueError):
    """A configuration that cannot be: names the key, the value, what is allowed."""


@dataclass(frozen=True)  # jsonargparse takes a group apart only where its bases are as well
class _Plain:
    """Holds numbers of NumPy and paths as those of Python, which JSON and YAML can hold."""

    def __post_init__(self: Any) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _plain(getattr(self, f.name)))


def _plain(value: object) -> object:
    if isinstance(value, Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else float(value)
    return str(value) if isinstance(value, str | os.PathLike) else value


@dataclass(frozen=True)
class Data(_Plain):
    """What to learn from.

    Args:
        name: digits (8x8), mnist5k and photos need no download; cifar10 and mnist are fetched once; folder is a folder of
            pictures; toy is a distribution in the plane. null is folder where there is a path, else digits.
        toy: for toy, the name of a distribution: two_modes, moons, rings, ...
        path: for folder, where the pictures are; they are read as RGB, grey ones too, upright, transparent ones on white.
        size: for folder and photos, the side of an image in pixels, 8 or more, and even unless network.kind is compact.
        crop: for folder, the side of the middle square that is kept before resizing; null is the shorter side. CelebA: 140.
        flip: for images, mirror half of them left to right, which is wrong for letters, digits and maps; null is true for
            cifar10 and photos, else false.
        dequantise: for images, spread each grey level over its interval.
    """

    name: Literal["digits", "mnist5k", "photos", "cifar10", "mnist", "folder", "toy"] | None = None
    toy: str = "two_modes"
    path: str | None = None
    size: int = 32
    crop: int | None = None
    flip: bool | None = None
    dequantise: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name is None:
            object.__setattr__(self, "name", "digits" if self.path is None else "folder")

    @property
    def mirrored(self) -> bool:
        """Whether half of the images are mirrored."""
        return self.name in ("cifar10", "photos") if self.flip is None else self.flip


@dataclass(frozen=True)
class Network(_Plain):
    """What learns.

    Args:
        kind: continuous (any sigma), ncsn (indexed by level, song2019), compact (indexed, full resolution), mlp (toys).
        width: channels of the first stage, or units of a layer.
        depth: for mlp, the number of hidden layers.
    """

    kind: Literal["continuous", "ncsn", "compact", "mlp"] = "continuous"
    width: int = 32
    depth: int = 3


@dataclass(frozen=True)
class Noise(_Plain):
    """The noise levels that are learned.

    Args:
        sigma_max: the largest standard deviation, in units of the data (images lie in [0, 1]).
        sigma_min: the smallest.
        n_levels: geometric levels from the one to the other; only their range counts with the other laws.
        law: how training draws sigma: one of the levels; or anything between, its logarithm uniform or normal.
        log_mean: for log_normal, the mean of the natural logarithm of sigma.
        log_std: for log_normal, its standard deviation.
    """

    sigma_max: float = 1.0
    sigma_min: float = 0.01
    n_levels: int = 10
    law: Literal["levels", "log_uniform", "log_normal"] = "levels"
    log_mean: float = -1.2
    log_std: float = 1.2


@dataclass(frozen=True)
class Training(_Plain):
    """How it learns.

    Args:
        n_steps: in all; the rate's schedule spans them.
        batch_size: examples per step, over all shards and processes.
        n_shards: equal parts of the batch, one after the other or shared out to processes; more of them need less memory.
        lr: the largest learning rate of the one-cycle schedule.
        clip: the largest norm of the gradient; null leaves it.
        precision: of the network's arithmetic; losses are summed in float32 either way.
        channels_last: keep images and weights with their channels innermost, which convolutions on accelerators want.
        compile: fuse the network's operations with torch.compile; needs a C++ compiler, and a minute at the start.
        ema: share of the averaged weights that stays at each step; null keeps no average.
        checkpoint_every: steps between checkpoints; the last step always makes one.
        log_every: steps between lines of the log.
    """

    n_steps: int = 1000
    batch_size: int = 128
    n_shards: int = 1
    lr: float = 2e-3
    clip: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    ema: float | None = 0.999
    checkpoint_every: int = 500
    log_every: int = 10


@dataclass(frozen=True)
class Sampling(_Plain):
    """Annealed Langevin dynamics.

    Args:
        sigma_max: the first level; null is that of noise.
        sigma_min: the last level; null is that of noise.
        n_levels: geometric levels; null is that of noise. A network indexed by level takes its own only.
        n_steps_each: steps per level.
        step_size: the paper's epsilon, the step at the last level, in units of the data squared (twice a published step_lr);
            null lets technique 4 of song2020 choose it.
        start: uniform on [0, 1], or normal about the data's mean with sigma_max.
        denoise: end with the posterior mean at the last level.
        clamp: keep every state in [0, 1]; distorts the large levels.
    """

    sigma_max: float | None = None
    sigma_min: float | None = None
    n_levels: int | None = None
    n_steps_each: int = 100
    step_size: float | None = None
    start: Literal["uniform", "normal"] = "uniform"
    denoise: bool = True
    clamp: bool = False


GROUPS: dict[str, Any] = {"data": Data, "network": Network, "noise": Noise, "training": Training, "sampling": Sampling}

_IMAGES = ("digits", "mnist5k", "photos", "cifar10", "mnist", "folder")
# key -> the key that chooses, and the choices with which it is read; every other key is read whatever is chosen
READERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "data.toy": ("data.name", ("toy",)),
    "data.path": ("data.name", ("folder",)),
    "data.size": ("data.name", ("photos", "folder")),
    "data.crop": ("data.name", ("folder",)),
    "data.flip": ("data.name", _IMAGES),
    "data.dequantise": ("data.name", _IMAGES),
    "network.depth": ("network.kind", ("mlp",)),
    "noise.log_mean": ("noise.law", ("log_normal",)),
    "noise.log_std": ("noise.law", ("log_normal",)),
}


@dataclass(frozen=True)
class Config(_Plain):
    """A run.

    Args:
        data: what to learn from.
        network: what learns.
        noise: at which noise levels.
        training: how.
        sampling: how samples are drawn.
        seed: of initial weights, batches, levels and noise.
        device: auto takes an accelerator where there is one.
        threads: of the processor, for one process; null leaves it to torch.
    """

    data: Data = field(default_factory=Data)
    network: Network = field(default_factory=Network)
    noise: Noise = field(default_factory=Noise)
    training: Training = field(default_factory=Training)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = None

    def asdict(self) -> dict[str, Any]:
        """Plain dictionaries and values, for JSON and YAML."""
        return asdict(self)

    @staticmethod
    def fromdict(values: dict[str, Any]) -> Config:
        """The configuration that ``asdict`` gave, of this version or an earlier one: a key of a group that came later has its default;
        pictures of a folder were mirrored before there was ``data.flip``.

        Raises:
            ConfigError: an unknown key, a value of another type, or a group or key of the first rank missing.
        """
        parts: dict[str, Any] = {f.name: f.type for f in fields(Config)}
        if not isinstance(values, dict):
            raise ConfigError(
                f"the configuration is {told(values)}: it must hold groups of keys, as those in configs/ do"
            )
        _check_keys(values, list(parts), "")
        for key in parts.keys() - values.keys():
            raise ConfigError(f"{key} is missing: the file was not written by toyscore; add it")
        for name, kind in GROUPS.items():
            check_group(values[name], name)
            _check_keys(values[name], [f.name for f in fields(kind)], f"{name}.")
        data = values["data"]
        if data.get("name") == "folder" and "flip" not in data:  # kept before there was the key
            values = values | {"data": data | {"flip": True}}
        config = Config(**{name: GROUPS[name](**v) if name in GROUPS else v for name, v in values.items()})
        check_types(config)
        return config


def _check_keys(given: dict[str, Any], known: list[str], prefix: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"{prefix}{key} is not a key; {suggestion(key, known, prefix)}")


def check_group(value: object, name: str) -> None:
    """Refuse what is no group of keys.

    Raises:
        ConfigError: it is a number, a list, nothing, ...
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{name} = {told(value)}: it must be a group of keys, as in {name}: {{...}}")


def check_types(values: object, prefix: str = "") -> None:
    """Refuse what is of another type than the class of ``values`` says, null among it, naming the key.

    Raises:
        ConfigError: the first offender.
    """
    for name, hint in get_type_hints(type(values)).items():
        value = getattr(values, name)
        if is_dataclass(hint):
            check_types(value, f"{prefix}{name}.")
        elif not any(_is(value, kind) for kind in _kinds(hint)):
            raise ConfigError(f"{prefix}{name} = {told(value)}: it must be {' or '.join(map(_named, _kinds(hint)))}")


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)


def _is(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    return type(value) is kind or (kind is float and type(value) is int and abs(value) < 1e300)  # true is no number


def _named(kind: Any) -> str:
    return f"one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else _NAMES[kind]


def told(value: object) -> str:
    """A value as YAML and the command line write it, the beginning of a long one."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value) if type(value).__module__ == "numpy" or value == "" else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def suggestion(key: str, known: Collection[str], prefix: str = "", otherwise: str = "the keys are") -> str:
    """What was probably meant, or else all that is known."""
    near = get_close_matches(key.lower(), known, 1)
    return f"did you mean {prefix}{near[0]}?" if near else f"{otherwise} {', '.join(prefix + name for name in known)}"


def check(config: Config) -> None:
    """Refuse numbers out of range and combinations that cannot be, naming the key.

    Raises:
        ConfigError: the first offender.
    """
    check_types(config)
    for key, value, least in _counts(config):
        check_count(key, value, least)
    check_seed(config.seed)
    for key, number, above, most in _numbers(config):
        if number is not None and not (above < number <= most and math.isfinite(number)):
            limit = "" if most == math.inf else f" and at most {most}"
            range_ = "" if above == -math.inf else f"above {above}{limit}, and "
            raise ConfigError(f"{key} = {number}: it must be {range_}finite")
    noise, training, sampling = config.noise, config.training, config.sampling
    if noise.n_levels == 1 and noise.sigma_min != noise.sigma_max:
        raise ConfigError(
            f"noise.n_levels = 1: one level cannot reach from {noise.sigma_max} to {noise.sigma_min}; it must be at least 2"
        )
    if noise.sigma_min >= noise.sigma_max and (noise.n_levels > 1 or noise.law != "levels"):
        raise ConfigError(
            f"noise.sigma_min = {noise.sigma_min} is not below noise.sigma_max = {noise.sigma_max}; lower it"
        )
    if training.batch_size % training.n_shards:
        raise ConfigError(
            f"training.batch_size = {training.batch_size} is not a multiple of training.n_shards = {training.n_shards}: shards are equal"
        )
    if (config.data.name == "toy") != (config.network.kind == "mlp"):
        raise ConfigError(
            f"network.kind = {config.network.kind} does not go with data.name = {config.data.name}: toys take mlp, images the others"
        )
    if config.data.name == "folder" and not config.data.path:
        raise ConfigError(
            f"data.path = {told(config.data.path)}: with data.name = folder it must be the folder that holds the pictures"
        )
    if config.data.name in ("folder", "photos") and config.data.size % 2 and config.network.kind != "compact":
        raise ConfigError(
            f"data.size = {config.data.size}: network.kind = {config.network.kind} halves it, so it must be even; or take compact"
        )
    high, low = sampling.sigma_max or noise.sigma_max, sampling.sigma_min or noise.sigma_min
    if low >= high and (sampling.n_levels or noise.n_levels) > 1:
        raise ConfigError(
            f"sampling.sigma_min = {low} is not below sampling.sigma_max = {high} (null is that of noise); lower it"
        )
    if high > noise.sigma_max or low < noise.sigma_min:
        raise ConfigError(
            f"sampling.sigma_max = {high}, sampling.sigma_min = {low}: the network learns {noise.sigma_max} to {noise.sigma_min} and knows "
            "nothing beyond; stay within noise.sigma_max and noise.sigma_min"
        )
    own = (sampling.sigma_max, sampling.sigma_min, sampling.n_levels) != (None, None, None)
    if config.network.kind in ("ncsn", "compact"):
        if noise.law != "levels":
            raise ConfigError(
                f"noise.law = {noise.law}: network.kind = {config.network.kind} knows its levels only; it must be levels"
            )
        if own:
            raise ConfigError(
                f"sampling.sigma_max, sigma_min and n_levels must be null: network.kind = {config.network.kind} takes its own levels"
            )


def check_used(values: Config | Data | Network | Noise, given: Collection[str] = ()) -> None:
    """Refuse a key that is set and that nothing reads, such as ``data.toy`` where ``data.name`` is digits.

    Args:
        values: a configuration, or one of its groups.
        given: keys that count as set even where they have their default, unless that is null.

    Raises:
        ConfigError: the first offender.
    """
    for key, value, default in _unread(values):
        if value != default or (key in given and value is not None):
            chooser, readers = READERS[key]
            raise ConfigError(
                f"{key} = {told(value)}: {chooser} = {_value(values, chooser)} does not read it, only {' or '.join(readers)}; leave "
                f"{key} out, or pass another {chooser}"
            )


def as_read(config: Config) -> Config:
    """The same run, with each key that nothing reads at its default: earlier versions took any."""
    for key, _, default in _unread(config):
        group, name = key.split(".")
        config = replace(config, **{group: replace(getattr(config, group), **{name: default})})
    return config


def _unread(values: Config | Data | Network | Noise) -> Iterator[tuple[str, Any, Any]]:
    """Key, value and default of what the choices leave unread."""
    for key, (chooser, readers) in READERS.items():
        group, name = key.split(".")
        if isinstance(values, Config | GROUPS[group]) and _value(values, chooser) not in readers:
            yield key, _value(values, key), getattr(GROUPS[group](), name)


def _value(values: Config | Data | Network | Noise, key: str) -> Any:
    group, name = key.split(".")
    return getattr(getattr(values, group) if isinstance(values, Config) else values, name)


def check_count(key: str, value: int | None, least: int = 1) -> None:
    """Refuse fewer than ``least``, and what no machine can count.

    Raises:
        ConfigError: out of range.
    """
    if value is not None and value < least:
        raise ConfigError(f"{key} = {value}: it must be at least {least}")
    if value is not None and value > _MOST:
        raise ConfigError(f"{key} = {value}: it must be at most {_MOST}")


_MOST = 2**31 - 1


def check_seed(seed: int) -> None:
    """Refuse what no generator takes.

    Raises:
        ConfigError: out of range.
    """
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed = {seed}: it must be at least 0 and below 2^63 = {2**63}")


def _counts(config: Config) -> Iterator[tuple[str, int | None, int]]:
    training, sampling = config.training, config.sampling
    yield "data.size", config.data.size, 8 if config.data.name in ("folder", "photos") else 1
    yield "data.crop", config.data.crop, 1
    yield "network.width", config.network.width, 2
    yield "network.depth", config.network.depth, 1
    yield "noise.n_levels", config.noise.n_levels, 1
    yield "training.n_steps", training.n_steps, 1
    yield "training.batch_size", training.batch_size, 1
    yield "training.n_shards", training.n_shards, 1
    yield "training.checkpoint_every", training.checkpoint_every, 1
    yield "training.log_every", training.log_every, 1
    yield "sampling.n_levels", sampling.n_levels, 2
    yield "sampling.n_steps_each", sampling.n_steps_each, 1
    yield "threads", config.threads, 1


def _numbers(config: Config) -> Iterator[tuple[str, float | None, float, float]]:
    yield "noise.sigma_max", config.noise.sigma_max, 0.0, math.inf
    yield "noise.sigma_min", config.noise.sigma_min, 0.0, math.inf
    yield "noise.log_mean", config.noise.log_mean, -math.inf, math.inf
    yield "noise.log_std", config.noise.log_std, 0.0, math.inf
    yield "training.lr", config.training.lr, 0.0, math.inf
    yield "training.clip", config.training.clip, 0.0, math.inf
    yield "training.ema", config.training.ema, 0.0, 0.999999
    yield "sampling.sigma_max", config.sampling.sigma_max, 0.0, math.inf
    yield "sampling.sigma_min", config.sampling.sigma_min, 0.0, math.inf
    yield "sampling.step_size", config.sampling.step_size, 0.0, math.inf
