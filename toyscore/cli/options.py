"""What each command takes, as plain data: its docstrings are the help. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from toyscore.config import ConfigError, check_count, check_seed, check_types


@dataclass(frozen=True)
class Machine:
    """Where a command runs.

    Args:
        device: auto takes an accelerator where there is one.
        threads: of the processor, for one process; null leaves it to torch.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class Train:
    """A run.

    Args:
        folder: of the run; null is runs/ and the name of the configuration.
        resume: latest, or the folder of a checkpoint: go on from it to the same bits; null begins anew.
    """

    folder: str | None = None
    resume: str | None = None


@dataclass(frozen=True)
class Sample(Machine):
    """Draw samples.

    Args:
        folder: a run, its checkpoints, one of them or an export; null is the digits network that comes along.
        samples: how many.
        batch: samples that are drawn together; the draws depend on it.
        compile: fuse the network's operations with torch.compile; needs a C++ compiler, and minutes at the start.
        seed: of the start and the noise.
        out: picture (.png) or numbers (.npy); null is a picture in the run's samples/, or here.
        device: auto takes an accelerator where there is one.
        threads: of the processor, for one process; null leaves it to torch.
    """

    folder: str | None = None
    samples: int = 64
    batch: int = 64
    compile: bool = False
    seed: int = 0
    out: str | None = None


@dataclass(frozen=True)
class Animate(Machine):
    """Draw samples, in motion.

    Args:
        folder: a run, its checkpoints, one of them or an export; null is the digits network that comes along.
        samples: how many chains.
        seed: of the start and the noise.
        out: where the .gif goes; null is the run's samples/, or here.
        frames: states to show, evenly spaced.
        fps: frames per second.
        device: auto takes an accelerator where there is one.
        threads: of the processor, for one process; null leaves it to torch.
    """

    folder: str | None = None
    samples: int = 64
    seed: int = 0
    out: str | None = None
    frames: int = 60
    fps: int = 12


@dataclass(frozen=True)
class Evaluate(Machine):
    """Compare samples with real data.

    Args:
        folder: a run, its checkpoints, one of them or an export; null is the digits network that comes along.
        samples: how many; null is as many as there are held-out examples, at most 1,000.
        batch: samples that are drawn together; the draws depend on it.
        compile: fuse the network's operations with torch.compile; needs a C++ compiler, and minutes at the start.
        seed: of the samples, the noise and the classifier.
        out: folder for the table, the numbers and the pictures; null is the run's evaluation/, or evaluation/ here.
        inception: also compute FID and IS, which needs torch-fidelity and fetches its network once (91 MB).
        device: auto takes an accelerator where there is one.
        threads: of the processor, for one process; null leaves it to torch.
    """

    folder: str | None = None
    samples: int | None = None
    batch: int = 64
    compile: bool = False
    seed: int = 0
    out: str | None = None
    inception: bool = False


@dataclass(frozen=True)
class Summary:
    """What a network costs.

    Args:
        folder: a run, its checkpoints, one of them or an export: its network; null is that of the configuration.
    """

    folder: str | None = None


@dataclass(frozen=True)
class PlotLoss:
    """A run's loss, learning rate and gradient against its steps.

    Args:
        folder: the run.
        out: picture (.png, .svg or .pdf); null is loss.png in the run.
        smooth: logged steps that the drawn median spans.
    """

    folder: str
    out: str | None = None
    smooth: int = 25


@dataclass(frozen=True)
class Export:
    """Keep the weights to use.

    Args:
        folder: a run, its checkpoints or one of them.
        to: the folder to write.
        precision: of the stored weights.
    """

    folder: str
    to: str
    precision: Literal["float32", "float16"] = "float16"


@dataclass(frozen=True)
class Figure:
    """Draw a figure of the gallery, from scratch.

    Args:
        name: of the figure, as ncsn-fig3.
        out: the folder to write into; null is this one.
        quick: a smaller computation, for a first look.
    """

    name: str
    out: str | None = None
    quick: bool = False


@dataclass(frozen=True)
class Course:
    """Copy the notebooks of the course; a copy that you have changed is kept.

    Args:
        folder: where to; it is made if missing.
    """

    folder: str


@dataclass(frozen=True)
class Completion:
    """Let the shell complete commands, options and choices: eval "$(toyscore completion)".

    Args:
        shell: for which the script is.
    """

    shell: Literal["bash", "zsh"] = "bash"


def check_options(options: object) -> None:
    """Refuse numbers out of range and file names of a kind that cannot be written.

    Raises:
        ConfigError: the first offender.
    """
    check_types(options)
    values = vars(options)
    for key in ("samples", "batch", "frames", "fps", "threads", "smooth"):
        check_count(key, values.get(key))
    check_seed(values.get("seed", 0))
    if values.get("fps", 1) > 50:
        raise ConfigError(f"fps = {values['fps']}: browsers show at most 50 frames per second; pass fewer")
    for kind, endings in _ENDINGS.items():
        out = values.get("out")
        if isinstance(options, kind) and out is not None and not out.lower().endswith(tuple(endings)):
            allowed = " or ".join(f"{ending} ({what})" for ending, what in endings.items())
            raise ConfigError(f"out = {out}: it must end in {allowed}")


_ENDINGS: dict[type, dict[str, str]] = {
    Sample: {".png": "a picture", ".npy": "the numbers"},
    Animate: {".gif": "a picture in motion"},
    PlotLoss: {".png": "pixels", ".svg": "for the web", ".pdf": "for print"},
}
