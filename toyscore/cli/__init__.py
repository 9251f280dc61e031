"""The command ``toyscore``: train score networks, sample from them, and judge the samples.

``toyscore train --config configs/digits.yaml``, then ``toyscore sample --folder runs/digits`` and ``toyscore evaluate --folder
runs/digits``; every key of the configuration is an option, too (``--training.n_steps 200``). ``toyscore --help`` lists the commands.
Exit codes: see ``toyscore.cli.errors``.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toyscore._extras import missing
from toyscore.cli import options as opt
from toyscore.cli.errors import explain, printable
from toyscore.cli.parser import COMMANDS, config_of, make_parser, name_of, options_of, overrides_of, parse
from toyscore.cli.signals import Stop, stopped
from toyscore.config import Config, ConfigError, check, check_used

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code, and writes at most five lines to stderr where it fails."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        with Stop(then=stopped).listening(), warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _warned
            text, code = _run([word for word in given if word != "--debug"])
            if text:
                print(text, flush=True)
        return code
    except (
        BrokenPipeError
    ):  # who reads has seen enough; nothing more can be said there, not at the end of Python either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as end:  # of --help and --print_config
        return int(end.code or 0)
    except BaseException as error:
        if debug:
            raise
        code, text = explain(error)
        print(f"toyscore: {printable(text)}", file=sys.stderr)
        return code


def _run(given: list[str]) -> tuple[str, int]:
    """What a command says when it has done its work, and its exit code."""
    if given == ["doctor"]:  # which finds what is missing, the parser, too
        from toyscore.cli.doctor import doctor

        return doctor()
    try:
        command, values, named = parse(given)
    except ModuleNotFoundError as error:
        raise missing("the command line", error.name or "a package", "cli") from error
    if command == "train":
        return _train(values, named), 0
    if command == "summary":
        from toyscore.cli.summary import summary

        config = config_of(values)
        if values.folder is not None and (config != Config() or values.config):
            raise ConfigError(
                f"folder = {values.folder} has a network of its own: leave the keys of a configuration out, or --folder"
            )
        if values.folder is None:
            check(config)
            check_used(config, named)
        return summary(config, values.folder), 0
    if command == "completion":
        return make_parser().get_completion_script(f"shtab-{values.shell}"), 0
    kind = COMMANDS[command][0]
    assert kind is not None  # of the commands that take nothing, all have been
    options = options_of(kind, values)
    opt.check_options(options)
    if isinstance(options, opt.PlotLoss):
        from toyscore.cli.losses import plot_loss

        return plot_loss(options), 0
    if isinstance(options, opt.Figure):
        from toyscore.cli.shipped import figure

        return figure(options), 0
    if isinstance(options, opt.Course):
        from toyscore.cli.shipped import course

        return course(options), 0
    if isinstance(options, opt.Export):
        from toyscore.pretrained import export

        return f"exported: {export(options.folder, options.to, precision=options.precision)}", 0
    if isinstance(options, opt.Evaluate):
        from toyscore.cli.evaluation import evaluate

        return evaluate(options, overrides_of(values)), 0
    from toyscore.cli import sampling

    work: Any = sampling.sample if isinstance(options, opt.Sample) else sampling.animate
    return work(options, overrides_of(values)), 0


def _warned(message: Warning | str, *_: object, **__: object) -> None:
    print(f"toyscore: {printable(str(message))}", file=sys.stderr)


def _train(values: Any, named: set[str]) -> str:
    from toyscore.cli.training import train

    config = config_of(values)
    check(config)
    if values.resume is None:
        check_used(config, named)
    if config.data.path is not None:  # so that the run can be judged from anywhere
        config = replace(config, data=replace(config.data, path=str(Path(config.data.path).resolve())))
    run = values.folder or Path("runs") / name_of(values, config)
    saved = train(config, run, values.resume)
    mirrored = "; half of the images were mirrored (data.flip)" if config.data.mirrored else ""
    return "" if saved is None else f"trained: {saved}; draw with: toyscore sample --folder {run}{mirrored}"
