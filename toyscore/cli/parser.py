"""The command line as a parser: a sub-command for each class of ``cli.options``."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import fields, make_dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

from toyscore.cli.options import Animate, Completion, Course, Evaluate, Export, Figure, PlotLoss, Sample, Summary, Train
from toyscore.config import GROUPS, READERS, Config, ConfigError, Sampling, check_group, suggestion, told

# command -> (its options, whether it takes a whole configuration, whether it takes another sampling than the run's, help)
COMMANDS: dict[str, tuple[type | None, bool, bool, str]] = {
    "train": (Train, True, False, "train a score network in a run folder"),
    "sample": (Sample, False, True, "draw samples by annealed Langevin dynamics"),
    "animate": (Animate, False, True, "draw samples as a GIF of the way there"),
    "evaluate": (Evaluate, False, True, "compare samples with real data, in numbers and pictures"),
    "summary": (Summary, True, False, "parameters, multiply-adds and memory per group of layers"),
    "plot-loss": (PlotLoss, False, False, "draw a run's log"),
    "export": (Export, False, False, "write the weights to use as safetensors, with a model card"),
    "figure": (Figure, False, False, "draw a figure of the gallery"),
    "course": (Course, False, False, "copy the notebooks of the course into a folder of your own"),
    "doctor": (None, False, False, "what is installed, what is missing, and the command that adds it"),
    "completion": (Completion, False, False, "print a script that lets the shell complete commands and options"),
}


_DEEPEST = 20


def make_parser(command: str | None = None) -> Any:
    """The parser of the whole command, or of one of its commands alone, which is sooner made."""
    from jsonargparse import ArgumentParser, set_loader
    from yaml import YAMLError

    from toyscore import __version__

    set_loader("plain", _plain, exceptions=(YAMLError,))
    common: dict[str, Any] = {
        "exit_on_error": False,
        "allow_abbrev": False,
        "default_env": False,
        "parser_mode": "plain",
    }
    parser = ArgumentParser(
        prog="toyscore",
        description="Train score networks, sample from them, and judge the samples.",
        version=__version__,
        **common,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subcommands(required=True)
    for name in [command] if command in COMMANDS else COMMANDS:
        options, whole, sampling, words = COMMANDS[name]
        part = ArgumentParser(description=f"{words[0].upper()}{words[1:]}.", **common)
        if whole:
            part.add_argument("--config", action="config", help="YAML file; options after it win")
            part.add_class_arguments(Config)
            part.set_defaults({"data.name": None})  # in place of what it is without a path
        if options is not None:
            part.add_class_arguments(options, as_positional=options in (Figure, Course))
        if sampling:
            part.add_class_arguments(_optional(Sampling), "sampling")
        commands.add_subcommand(name, part, help=words)
    return parser


def parse(given: list[str]) -> tuple[str, Any, set[str]]:
    """The command, its values, and the keys that were given for what they say: options, and those of a file that does not say who is
    to read them, too, as a whole configuration does.

    Raises:
        ConfigError, jsonargparse.ArgumentError: not a command line of ours.
    """
    parser = make_parser(next(iter(given), None))
    _check_known(given, parser)
    given = _with_stored_config(given)
    named = {word.partition("=")[0].removeprefix("--") for word in given if word.startswith("--")}
    for keys in _check_files(given):
        named |= {key for key in keys & READERS.keys() if READERS[key][0] not in keys}
    chosen = parser.parse_args(given)
    return chosen.subcommand, chosen[chosen.subcommand], named


def config_of(values: Any) -> Config:
    """The configuration among parsed values."""
    for name in GROUPS:
        check_group(vars(group) if hasattr(group := getattr(values, name), "__dict__") else group, name)
    groups = {name: kind(**vars(getattr(values, name))) for name, kind in GROUPS.items()}
    return Config(**groups, seed=values.seed, device=values.device, threads=values.threads)


def options_of(kind: type, values: Any) -> Any:
    """The command's own options among parsed values."""
    return kind(**{f.name: getattr(values, f.name) for f in fields(kind)})


def overrides_of(values: Any) -> dict[str, Any]:
    """Keys of ``Sampling`` that were given."""
    found = {f.name: getattr(values.sampling, f.name) for f in fields(Sampling)}
    return {key: value for key, value in found.items() if value is not None}


def name_of(values: Any, config: Config) -> str:
    """What a run is called: after its last configuration file, else its data."""
    files = [str(path) for path in values.config or [] if path is not None]  # YAML in place of one has no name
    return Path(files[-1]).stem if files else str(config.data.name)


def _optional(kind: type) -> type:
    """The same keys, each None unless given."""
    hints = get_type_hints(kind)
    made = make_dataclass(f"{kind.__name__}Overrides", [(f.name, hints[f.name] | None, None) for f in fields(kind)])
    made.__doc__ = (kind.__doc__ or "").replace("Args:", "Where null, as the run was configured.\n\n    Args:", 1)
    return made


def _check_files(given: list[str]) -> Iterator[set[str]]:
    """The keys of each configuration file; one that cannot be read or holds what is no key is refused by its name, which the parser does
    not tell.
    """
    if not given or given[0] not in COMMANDS or not COMMANDS[given[0]][1]:
        return
    for word, following in pairwise([*given, "-"]):
        name, equals, value = word.partition("=")
        value = value if equals else following
        if name == "--config" and not value.startswith("-"):  # the next option, for want of a value; or the input
            yield _check_file(value, COMMANDS[given[0]][0])


def _check_file(given: str, options: type | None) -> set[str]:
    import yaml

    path = Path(given).expanduser()
    there = os.path.exists(path)
    in_place = not there and ":" in given  # YAML itself, not the name of a file
    if there and not (os.path.isfile(path) or os.path.isdir(path)):  # a pipe can be read once, by the parser
        return set()
    try:
        if not given:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        text = given if in_place else path.read_bytes().decode()
        _check_plain(text)
        values = yaml.safe_load(text)
        if in_place and not isinstance(values, dict):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as error:
        raise ConfigError(f"config = {told(given)}: {error.strerror}; pass a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{given} is not in UTF-8 (byte {error.start + 1}); save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark, remedy = error.problem_mark, "indent with spaces" if "'\\t'" in str(error.problem) else "mend it there"
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{given} is no YAML{at}: {error.problem}; {remedy}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{given} is no YAML: {str(error).splitlines()[0]}; write it as those in configs/") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{given} holds no keys: it must hold groups of them, as in training: {{n_steps: 200}}")
    first = [f.name for kind in (Config, options) if kind for f in fields(kind)] + ["config"]
    found = set()
    for key, value in values.items():
        found.add(str(key))
        if key in GROUPS:
            check_group(value, key)
            for inner in value:
                _check_key(given, key, inner)
                found.add(f"{key}.{inner}")
        elif key not in first:
            group, _, own = str(key).rpartition(".")
            homes = [f"{name}: {{{own}: ...}}" for name, kind in GROUPS.items() if own in _keys(kind)]
            if group in GROUPS:  # training.n_steps: 200, as on the command line
                _check_key(given, group, own)
            elif homes:
                raise ConfigError(f"{given}: {key} is not a key of the first rank; did you mean {' or '.join(homes)}?")
            else:
                raise ConfigError(f"{given}: {key} is not a key; {suggestion(str(key), first)}")
    return found


def _check_key(given: str, group: str, key: object) -> None:
    known = _keys(GROUPS[group])
    if key not in known:
        raise ConfigError(f"{given}: {group}.{told(key)} is not a key; {suggestion(str(key), known, f'{group}.')}")


def _keys(kind: type) -> list[str]:
    return [f.name for f in fields(kind)]


def _plain(text: str) -> Any:
    from jsonargparse import get_loader

    _check_plain(text)
    return get_loader("yaml")(text)


def _check_plain(text: str) -> None:
    """Refuse of YAML what no configuration needs: a key given twice, of which the last would win; references, of which ten lines can stand
    for more than any memory holds; deep nesting."""
    import yaml

    # groups (True) or lists that are open, each with what stands in it: key, value, key, ...
    opened: list[tuple[bool, list[str | None]]] = []
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"a reference (*{event.anchor}): write out what it stands for")
        if isinstance(event, yaml.CollectionEndEvent):
            opened.pop()
        elif isinstance(event, yaml.NodeEvent):
            if opened:
                is_group, inside = opened[-1]
                word = event.value if isinstance(event, yaml.ScalarEvent) else None
                if is_group and len(inside) % 2 == 0 and word is not None and word in inside[::2]:
                    raise yaml.MarkedYAMLError(problem=f"{word} is there twice", problem_mark=event.start_mark)
                inside.append(word)
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((isinstance(event, yaml.MappingStartEvent), []))
        if len(opened) > _DEEPEST:
            raise yaml.YAMLError(f"more than {_DEEPEST} levels of nesting: a configuration has two")


def _with_stored_config(given: list[str]) -> list[str]:
    """Resuming without a configuration takes that of the run."""
    words = dict(pairwise(given)) | dict(w.split("=", 1) for w in given if w.startswith("--") and "=" in w)
    run = words.get("--folder")
    if given[:1] == ["train"] and "--resume" in words and "--config" not in words and run:
        stored = Path(run) / "config.yaml"
        if stored.exists():
            return [given[0], "--config", str(stored), *given[1:]]
    return given


def _check_known(given: list[str], parser: Any) -> None:
    """Name the command or the option that was probably meant, which the parser does not."""
    if given and given[0] in parser._option_string_actions:  # --help
        return
    if not given:
        raise ConfigError(f"a command is required: {', '.join(COMMANDS)}")
    if given[0] not in COMMANDS:
        raise ConfigError(f"{given[0]} is no command; {suggestion(given[0], COMMANDS, otherwise='the commands are')}")
    known = [name for action in parser._subcommands_action.choices[given[0]]._actions for name in action.option_strings]
    for word in given[1:]:
        option = word.split("=", 1)[0]
        if option.startswith("--") and option not in known:
            near = get_close_matches(option, known, 1)
            raise ConfigError(
                f"{option} is no option of {given[0]}; {f'did you mean {near[0]}?' if near else 'see --help'}"
            )
