"""The command ``toyscore``: train a score network, and sample from it.

``toyscore train --config configs/digits.yaml`` and ``toyscore sample --folder runs/digits``; every key of the configuration is an option,
too (``--training.n_steps 200``). Exit codes: see ``toyscore.cli.errors``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, make_dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

from toyscore.cli.errors import explain
from toyscore.config import Config, ConfigError, Data, Network, Noise, Sampling, Training, check

__all__ = ["main"]

_GROUPS: dict[str, type] = {
    "data": Data,
    "network": Network,
    "noise": Noise,
    "training": Training,
    "sampling": Sampling,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code, and writes at most five lines to stderr where it fails."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        return _run([word for word in given if word != "--debug"])
    except SystemExit as end:  # of --help and --print_config
        return int(end.code or 0)
    except BaseException as error:
        if debug:
            raise
        code, text = explain(error)
        print(f"toyscore: {text}", file=sys.stderr)
        return code


def _run(given: list[str]) -> int:
    parser = _parser()
    _check_options(given, parser)
    chosen = parser.parse_args(_with_stored_config(given))
    values = chosen[chosen.subcommand]
    if chosen.subcommand == "train":
        from toyscore.cli.training import train

        config = _config(values)
        check(config)
        run = values.folder or Path("runs") / _name(values, config)
        saved = train(config, run, values.resume)
        if saved is not None:
            print(f"trained: {saved}; draw with: toyscore sample --folder {run}")
        return 0
    from toyscore.cli.sampling import sample

    overrides = {f.name: getattr(values.sampling, f.name) for f in fields(Sampling)}
    print(
        sample(
            values.folder or "digits",
            overrides={key: value for key, value in overrides.items() if value is not None},
            n=values.n,
            seed=values.seed,
            out=None if values.out is None else Path(values.out),
            gif=None if values.gif is None else Path(values.gif),
            device=values.device,
            threads=values.threads,
        )
    )
    return 0


def _parser() -> Any:
    from jsonargparse import ArgumentParser

    options: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False, "default_env": False}
    train = ArgumentParser(description="Train a score network in a run folder.", **options)
    train.add_argument("--config", action="config", help="YAML file; options after it win")
    train.add_class_arguments(Config)
    train.add_argument(
        "--folder", type=str | None, default=None, help="folder of the run; default runs/<name of the config>"
    )
    train.add_argument(
        "--resume",
        type=str | None,
        default=None,
        help="latest, or the folder of a checkpoint: go on from it to the same bits",
    )
    sample = ArgumentParser(description="Draw samples by annealed Langevin dynamics.", **options)
    sample.add_argument(
        "--folder",
        type=str | None,
        default=None,
        help="a run folder or a checkpoint; default the digits that come along",
    )
    sample.add_argument("--n", type=int, default=64, help="number of samples")
    sample.add_argument("--seed", type=int, default=0, help="of the start and the noise")
    sample.add_argument(
        "--out", type=str | None, default=None, help="picture (.png) or numbers (.npy); default in the run's samples/"
    )
    sample.add_argument("--gif", type=str | None, default=None, help="also the way there, as a .gif")
    sample.add_argument(
        "--device", type=str, default="auto", help="auto takes an accelerator where there is one; or cpu, cuda, mps"
    )
    sample.add_argument("--threads", type=int | None, default=None, help="of the processor; default torch's choice")
    sample.add_class_arguments(_optional(Sampling), "sampling")
    parser = ArgumentParser(prog="toyscore", description=__doc__.splitlines()[0], **options)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subcommands(required=True)
    commands.add_subcommand("train", train, help="train a score network")
    commands.add_subcommand("sample", sample, help="draw samples from one")
    return parser


def _optional(kind: type) -> type:
    """The same keys, each None unless given."""
    hints = get_type_hints(kind)
    made = make_dataclass(f"{kind.__name__}Overrides", [(f.name, hints[f.name] | None, None) for f in fields(kind)])
    made.__doc__ = kind.__doc__
    return made


def _config(values: Any) -> Config:
    for name in _GROUPS:
        if not hasattr(getattr(values, name), "__dict__"):
            raise ConfigError(f"{name} = {getattr(values, name)}: it must be a group of keys, as in {name}: {{...}}")
    groups = {name: kind(**vars(getattr(values, name))) for name, kind in _GROUPS.items()}
    return Config(**groups, seed=values.seed, device=values.device, threads=values.threads)


def _name(values: Any, config: Config) -> str:
    files = [str(path) for path in values.config or []]
    return Path(files[-1]).stem if files else config.data.name


def _with_stored_config(given: list[str]) -> list[str]:
    """Resuming without a configuration takes that of the run."""
    words = dict(pairwise(given)) | dict(w.split("=", 1) for w in given if w.startswith("--") and "=" in w)
    run = words.get("--folder")
    if given[:1] == ["train"] and "--resume" in words and "--config" not in words and run:
        stored = Path(run) / "config.yaml"
        if stored.exists():
            return [given[0], "--config", str(stored), *given[1:]]
    return given


def _check_options(given: list[str], parser: Any) -> None:
    """Name the option that was probably meant, which the parser does not."""
    if not given or given[0] not in ("train", "sample"):
        return
    known = [name for action in parser._subcommands_action.choices[given[0]]._actions for name in action.option_strings]
    for word in given[1:]:
        option = word.split("=", 1)[0]
        if option.startswith("--") and option not in known:
            near = get_close_matches(option, known, 1)
            raise ConfigError(
                f"{option} is no option of {given[0]}; {f'did you mean {near[0]}?' if near else 'see --help'}"
            )
