"""Bad command lines, configurations and scripts' options: a few words with what is allowed, an exit code, and nothing written."""

import contextlib
import functools
import importlib.util
import io
import os
import re
import shlex
import sys
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from runs import ROOT, TINY, WEIGHTS, contents, said
from toyscore.cli import main, parser, training
from toyscore.config import GROUPS, Config, ConfigError
from toyscore.data import files

ABSENT = "cuda" if torch.backends.mps.is_available() else "mps"  # no machine has both
NAMES = {"ABSENT": ABSENT, "WEIGHTS": WEIGHTS, "CONFIGS": ROOT / "configs", "TINY": shlex.join(TINY)}
# exit code: lines of a command line and of words in the message, where ... is any text and $ the end
COMMANDS = {
    2: """
        train --training.n_step 5 => --training.n_step is no option of train; did you mean --training.n_steps?
        train --zebra 5 => --zebra is no option of train; see --help
        sample --training.lr 1 => --training.lr is no option of sample
        '' => a command is required: train, sample,
        trian => trian is no command; did you mean train?
        zebra => zebra is no command; the commands are train, sample, animate, evaluate
        --seed 3 => --seed is no command; the commands are train,
        train more => unrecognized arguments: more
        train --seed => seed ... expected one argument
        train --config => expected one argument$
        train --config --seed 3 => expected one argument$
        plot-loss => required: --folder
        train --training.ema 1 => training.ema = 1.0: ... at most 0.999999
        train --noise.sigma_max 0.001 => noise.sigma_min = 0.01 is not below noise.sigma_max = 0.001; lower it
        train --noise.n_levels 1 => noise.n_levels = 1: one level cannot reach
        train --noise.n_levels 1 --noise.sigma_min 1 --noise.law log_uniform => noise.sigma_min = 1.0 is not below
        train --training.n_shards 3 => training.batch_size = 128 is not a multiple of training.n_shards = 3
        train --data.name toy => network.kind = continuous does not go with data.name = toy
        train --network.kind mlp => network.kind = mlp does not go with data.name = digits
        train --data.toy moons => data.toy = moons: data.name = digits does not read it, only toy; leave data.toy out, or pass
        train --data.name digits --data.path empty => data.path = empty: data.name = digits does not read it, only folder
        train --config CONFIGS/digits.yaml --data.size 16 => data.size = 16: data.name = digits does not read it, only photos or
        train --network.depth 9 => network.depth = 9: network.kind = continuous does not read it, only mlp; leave network.depth out
        train --noise.log_std 2 => noise.log_std = 2.0: noise.law = levels does not read it, only log_normal; leave
        summary --network.depth 3 => network.depth = 3: network.kind = continuous does not read it, only mlp
        train --data.name folder => data.path = null: with data.name = folder it must
        train --data.name folder --data.path '' => data.path = '': with data.name = folder
        train TINY --data.name folder --data.path empty --folder new => empty holds no picture (.bmp, ...): pass the folder that does$
        train TINY --data.name folder --data.path nowhere --data.size 7 => data.size = 7: it must be at least 8
        train TINY --data.name photos --data.size 9 => data.size = 9: network.kind = continuous halves it, so it must be even; or
        train --data.name toy --network.kind mlp --data.toy moon => data.toy = moon is no toy; did you mean moons?
        train --network.kind ncsn --sampling.n_levels 5 => sampling.sigma_max, sigma_min and n_levels must be null: network.kind = ncsn
        train --network.kind ncsn --noise.law log_uniform => noise.law = log_uniform: network.kind = ncsn knows its levels
        sample --sampling.sigma_min 0.5 --sampling.sigma_max 0.5 => sampling.sigma_min = 0.5 is not below sampling.sigma_max = 0.5
        sample --sampling.sigma_max 1e9 => sampling.sigma_max = 1000000000.0, ... learns 160.0 to 0.01 and knows nothing beyond
        animate --sampling.sigma_min 1e-9 => sampling.sigma_min = 1e-09: the network learns
        sample --sampling.start zero => sampling.start = zero: it must be one of uniform, normal or null$
        sample --device abacus => device = abacus: it must be one of auto, cpu, cuda, mps$
        sample --device ABSENT => device = ABSENT: this machine has cpu ... pass one of them, or auto
        sample --threads 0 => threads = 0: it must be at least 1
        sample --seed 18446744073709551616 => seed = 18446744073709551616: ... below 2^63
        sample --samples 0 => samples = 0: it must be at least 1
        sample --samples 2.5 => samples = 2.5: it must be a whole number$
        sample --batch 0 => batch = 0: it must be at least 1
        animate --frames 0 => frames = 0: it must be at least 1
        animate --fps -3 => fps = -3: it must be at least 1
        animate --fps 60 => fps = 60: browsers show at most 50
        evaluate --samples 4 => samples = 4: neighbours ... at least 5
        evaluate --inception perhaps => inception = perhaps: it must be true or false$
        plot-loss --folder x --smooth 0 => smooth = 0: it must be at least 1
        sample --out x.jpg => out = x.jpg: it must end in .png ... or .npy
        animate --out x.png => out = x.png: it must end in .gif
        plot-loss --folder x --out x.gif => out = x.gif: it must end in .png ... .svg ... .pdf
        export --folder x --to y --precision int8 => precision = int8: it must be one of float32, float16$
        summary --folder x --network.width 64 => folder = x has a network of its own: leave the keys
        plot-loss --folder logged => log.jsonl is empty: the run has not logged a step
        export --folder WEIGHTS --to carded => README.md is no model card of ours, and would be lost
        export --folder WEIGHTS --to running => running holds a run: export into a folder of its own
        train --config nowhere.yaml => config = nowhere.yaml: No such file or directory; pass a YAML file$
        train --config empty => config = empty: Is a directory; pass a YAML file$
        train --config '' => config = '': No such file ...; pass a YAML file$
        train --config 'sed: 3' => sed is not a key; did you mean seed?$
    """,
    3: """
        train --data.path nowhere => nowhere is no folder: pass the folder that holds
        train TINY --data.name folder --data.path file --folder new => file is no folder: pass the folder that holds
        train TINY --folder file => file: File exists
        train TINY --folder file/run => file/run: Not a directory$
        sample --folder WEIGHTS --out file/x.png --samples 1 => file:
        sample --samples 2 --sampling.n_levels 2 --sampling.n_steps_each 1 --out folder.png => folder.png: Is a directory
        sample --samples 2 --sampling.n_levels 2 --sampling.n_steps_each 1 --out folder.npy => folder.npy: Is a directory
        evaluate --sampling.n_levels 2 --sampling.n_steps_each 1 --samples 5 --out file => file:
        export --folder WEIGHTS --to file => /file: File exists$
        plot-loss --folder nowhere => nowhere: it holds no log.jsonl: pass the folder of a run
        plot-loss --folder file => file
    """,
    7: """
        sample --samples 2 --sampling.step_size 1e9 --sampling.n_levels 2 --sampling.n_steps_each 20 => diverged ... lower step_size
    """,
    8: """
        train --config CONFIGS/digits.yaml --resume latest => holds no checkpoint
        train TINY --resume file --folder new => file holds no checkpoint
        sample --folder nowhere --out deep/x.png => nowhere holds no checkpoint: pass a run folder
        sample --folder file => file holds no checkpoint
        animate --folder empty => empty holds no checkpoint: pass a run folder
        summary --folder nowhere => nowhere holds no checkpoint
    """,
}
CASES = [(code, *line.strip().split(" => ")) for code, text in COMMANDS.items() for line in text.strip().splitlines()]

# the content of a file for ``train --config c.yaml``, and words of the message
FILES = {
    "training: {n_step: 5}": "c.yaml: training.n_step is not a key; did you mean training.n_steps?",
    "training: {zebra: 5}": "c.yaml: training.zebra is not a key; the keys are training.n_steps, ",
    "trainig: {n_steps: 5}": "c.yaml: trainig is not a key; did you mean training?",
    "training: {LR: 5}": "c.yaml: training.LR is not a key; did you mean training.lr?",
    "lr: 0.1": "c.yaml: lr is not a key of the first rank; did you mean training: {lr: ...}?",
    "sigma_min: 0.1": "sigma_min is not a key of the first rank; did you mean noise: {sigma_min: ...} or sampling: {sig",
    "sample.lr: 0.1": "c.yaml: sample.lr is not ...; did you mean training: {lr: ...}?",
    "data: {noise: {law: levels}}": "c.yaml: data.noise is not a key",
    "1: 2": "c.yaml: 1 is not a key",
    "? [a]\n: 3": "c.yaml is no YAML at line 1, column 3: found unhashable key",
    "training: [1, 2]": "training = [1, 2]: it must be a group of keys, as in training: {...}$",
    "sampling:": "sampling = null: it must be a group of keys, as in sampling: {...}$",
    "training: {lr: {max: 1}}": "training.lr = {'max': 1}: it must be a number$",
    "seed: 2020-01-01": "seed = 2020-01-01: it must be a whole number$",
    "seed: 1e3": "seed = 1000.0: it must be a whole number$",
    "seed: " + "9" * 5000: "c.yaml is no YAML: Exceeds the limit",
    "data: {size: 8}\ndata: {size: 9}": "c.yaml is no YAML at line 2, column 1: data is there twice",
    "training:\n\tlr: 1": "c.yaml is no YAML at line 2, column 1: ...; indent with spaces$",
    "training: {n_steps: 5": "c.yaml is no YAML at line ... expected ',' or '}'",
    "training: *a": "c.yaml is no YAML: a reference (*a): write out what it stands for",
    "training: !!python/object/apply:os.system ['true']": "line 1, column 11: could not determine a constructor for the tag",
    "seed: !!int x": "c.yaml is no YAML: invalid literal for int",
    "%YAML 3.0\n---\nseed: 1": "c.yaml is no YAML at line 1, column 1: found incompatible",
    "---\nseed: 1\n---\nseed: 2": "c.yaml is no YAML at line 3, column 1: but found another document",
    "[" * 2000: "c.yaml is no YAML",
    "\x00\x01": "c.yaml is no YAML: unacceptable character #x0000",
    "": "c.yaml holds no keys: it must hold groups of them, as in training: {n_steps: 200}$",
    "digits": "c.yaml holds no keys",
    "# caf\xe9\nseed: 1".encode("latin-1"): "c.yaml is not in UTF-8 (byte 6); save it as UTF-8$",
    "data: {toy: two_modes}": "data.toy = two_modes: data.name = digits does not read it, only toy; leave data.toy out",
    "config: other.yaml": "config ... other.yaml",
}

# lines of a script with its options, and of words in the last line of its message
SCRIPTS = """
    figures/run.py --only zebra => --only zebra: there is no such figure; choose from
    figures/run.py --quik => unrecognized arguments: --quik
    figures/run.py --quick --check => --check cannot compare them; pass one of the two
    figures/run.py --clean => --clean says what x a loss takes, and there is none
    figures/run.py --loss a:b --check => --loss a:b draws a picture that is not kept
    figures/run.py --loss a:b --only ncsn-fig2 => ncsn-fig2 takes no loss; pass --only objectives
    figures/run.py --loss mine --only objectives => --loss mine: it must be module:function
    figures/run.py --loss zebra9:f --only objectives => importing zebra9 gave ModuleNotFoundError
    figures/run.py --loss toyscore.losses:implicit_score --only objectives => no implicit_score: ... pass implicit_score_matching
    figures/run.py --loss math:pi --only objectives => pi is float: it must be callable
    figures/run.py --spread 1 => --spread 1 needs two seeds or more
    notebooks/build.py 77 => no notebook 77: choose from 00, 01
    notebooks/classroom.py --port 80 => --port 80: it must be from 1024 to 65535
    docs/make_site.py --out full => --out full holds something else, which would be lost
    docs/make_equations.py --chek => unrecognized arguments: --chek
    docs/make_gallery.py --chek => unrecognized arguments: --chek
    docs/make_scaling.py check => unrecognized arguments: check
    benchmarks/run.py --only zebra => --only: invalid choice: ...zebra
    benchmarks/images.py --steps 1 => --steps 1: the first is not timed; it must be at least 2
    benchmarks/images.py --repeats 0 => --repeats 0: it must be at least 1
    benchmarks/images.py --quick --write => leave out one of --quick and --write
"""


@pytest.fixture(scope="module", autouse=True)
def _one_parser():
    """Made once for each command: it holds nothing of a command line, and making it is most of a refusal's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser, "make_parser", functools.cache(parser.make_parser))
        yield


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where a command runs: files and folders that it may mistake, and no training, should one be accepted."""

    def accepted(*_, **__):
        raise AssertionError("accepted")

    monkeypatch.setattr(training, "fit", accepted)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("something else")
    for name in ("empty", "folder.png", "folder.npy", "running/checkpoints", "logged", "carded", "full"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "full" / "file").write_text("something else")
    (tmp_path / "carded" / "README.md").write_text("mine")
    (tmp_path / "logged" / "log.jsonl").write_text("")
    return tmp_path


def matches(words, text):
    """Whether the words are in the text; ``...`` stands for any, ``$`` at the end for the end."""
    pattern = re.escape(words.removesuffix("$")).replace(r"\.\.\.", ".*").replace(r"\ .*", ".*").replace(r".*\ ", ".*")
    return re.search(pattern + "$" * words.endswith("$"), text)


def check_refused(place, arguments, words, code=2):
    before = contents(place)
    found, text = said(*arguments)
    assert found == code, text
    assert text.startswith("toyscore: ")
    assert text.count("\n") == 1
    assert len(text) < 600
    assert not re.search("Traceback|should not happen", text)
    assert matches(words, text.removesuffix("\n")), text
    assert contents(place) == before


@pytest.mark.parametrize(("code", "line", "words"), CASES, ids=[line for _, line, _ in CASES])
def test_a_bad_command_line_is_refused(code, line, words, place):
    for name, value in NAMES.items():
        line, words = line.replace(name, str(value)), words.replace(name, str(value))
    check_refused(place, [] if line == "''" else shlex.split(line), words, code)


def check_file_refused(place, content, words):
    (place / "c.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    check_refused(place, ["train", "--config", "c.yaml"], words)


@pytest.mark.parametrize("content", FILES, ids=lambda content: repr(content[:40]))
def test_a_bad_file_is_refused(content, place):
    check_file_refused(place, content, FILES[content])


@functools.cache
def script(path):
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("line", SCRIPTS.strip().splitlines())
def test_a_bad_option_of_a_script_is_refused(line, place, monkeypatch):
    given, words = line.strip().split(" => ")
    name, *arguments = given.split()
    monkeypatch.syspath_prepend(str((ROOT / name).parent))
    before = contents(place)
    with contextlib.redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as end:
        script(ROOT / name).main(arguments)
    assert end.value.code == 2
    assert matches(words, errors.getvalue().splitlines()[-1]), errors.getvalue()
    assert "Traceback" not in errors.getvalue()
    assert contents(place) == before


# --- every key ---


def keys():
    """key -> the types it takes, its group and its own name, for every key of a configuration."""
    groups = {group: get_type_hints(kind) for group, kind in GROUPS.items()}
    groups[""] = {name: hint for name, hint in get_type_hints(Config).items() if name not in groups}
    for group, hints in groups.items():
        for name, hint in hints.items():
            kinds = get_args(hint) if NoneType in get_args(hint) else (hint,)
            yield f"{group}.{name}".lstrip("."), (kinds, group, name)


KEYS = dict(keys())
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
LEAST = {"network.width": 2, "sampling.n_levels": 2, "seed": 0}


def wrong_values(key, kinds):
    """(value as YAML writes it, words of the message): another type, null, the empty text, out of range on both sides."""
    one_of = [f"one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else WORDS[kind] for kind in kinds]
    typed = f"it must be {' or '.join(one_of)}$"
    yield "[a, b]", f"{key} = ['a', 'b']: {typed}"
    if str not in kinds:
        yield "zebra", f"{key} = zebra: {typed}"
        yield "''", f"{key} = ...: {typed}"
    if NoneType not in kinds:
        yield "null", f"{key} = null: {typed}"
    if bool in kinds:
        yield "2", f"{key} = 2: {typed}"
    if int in kinds or float in kinds:
        yield "true", f"{key} = ...rue: {typed}"
    if int in kinds:
        least, most = LEAST.get(key, 1), 2**63 if key == "seed" else 2**31
        limit = "at least 0 and below 2^63" if key == "seed" else f"at most {most - 1}"
        yield f"{least - 1}", f"{key} = {least - 1}: it must be at least {least}"
        yield f"{most}", f"{key} = {most}: it must be {limit}"
        yield "1.5", f"{key} = 1.5: {typed}"
    if float in kinds:
        above = key != "noise.log_mean"
        for value, shown in ((".nan", "nan"), ("-.inf", "-inf"), (".inf", "inf"), *[("0.0", "0.0")] * above):
            yield value, f"{key} = {shown}: it must be {'above 0.0...' if above else ''}finite$"


def misspelt(name):
    near = {"size": "sise", "seed": "sed", "path": "pth", "toy": "toys"}
    return near.get(name, name + name[-1] if len(name) < 3 else name[:-1])


@pytest.mark.parametrize("key", KEYS)
def test_every_key_refuses_what_it_cannot_be(key, place):
    """As an option, in a file, in the file that a run keeps, and in a checkpoint."""
    kinds, group, name = KEYS[key]

    def changed(value):
        values = Config().asdict()
        (values[group] if group else values)[name] = value
        return values

    def check_file(name, value, words):
        check_file_refused(place, f"{group}: {{{name}: {value}}}" if group else f"{name}: {value}", words)

    for n, (value, words) in enumerate(wrong_values(key, kinds)):
        if n == 0 or str in kinds:  # as an option anything is text
            check_file(name, value, words)
        if str not in kinds:
            check_refused(place, ["train", f"--{key}={value}"], words)
    (place / "empty" / "config.yaml").write_text(yaml.safe_dump(changed(yaml.safe_load(value))))  # the last one
    check_refused(place, ["train", "--folder", "empty", "--resume", "latest"], words)
    for value in ([1], {"a": 1}, *[None] * (NoneType not in kinds), *[0.5] * (float not in kinds)):
        with pytest.raises(ConfigError, match=rf"^{key} = .*: it must be"):
            Config.fromdict(changed(value))
    near = misspelt(name)
    check_refused(place, ["train", f"--{misspelt(key)}=1"], f"--{misspelt(key)} is no option of train; did you mean --")
    check_file(near, 1, f"c.yaml: {key[: -len(name)]}{near} is not a key; did you mean {key}?$")


# --- what is right ---


def check_begins(*options):
    code, text = said("train", *options, "--folder", "new")
    assert (code, "AssertionError: accepted" in text) == (1, True), text


def test_a_right_configuration_is_not_refused(place, monkeypatch):
    """A byte order mark, a home folder, a pipe, keys as on the command line, values taken back, every key at its default."""
    for content in ("\ufeffseed: 1", "training: {lr: 1e-3}", yaml.safe_dump(Config().asdict())):
        (place / "c.yaml").write_text(content)
        check_begins("--config", "c.yaml")
    monkeypatch.setenv("HOME", str(place))
    (place / "c.yaml").write_text("training.n_steps: 7\nsampling.sigma_min: 0.1\n")
    pipe, end = os.pipe()
    os.write(end, b"seed: 3")
    os.close(end)
    long = yaml.safe_dump(Config().asdict(), default_flow_style=True)  # longer than any name of a file
    for given in ("~/c.yaml", f"/dev/fd/{pipe}", "seed: 3", '{"seed":3}', long):
        check_begins(f"--config={given}")
    os.close(pipe)
    celeba = ["--config", str(ROOT / "configs" / "celeba.yaml")]
    check_begins(*celeba, "--data.name=digits", "--data.path=null", "--data.crop=null")
    (place / "pictures").mkdir()
    Image.fromarray(np.zeros((150, 150, 3), np.uint8)).save(place / "pictures" / "a.png")
    monkeypatch.setattr(files, "cache_folder", lambda folder: folder or place / "cache")
    for given in (celeba, [], ["--config", "data: {path: nowhere}"], ["--data.name=folder"]):  # a path implies a folder
        check_begins(*given, "--data.path=pictures")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["train", "--config=~/c.yaml", "--print_config"]) == 0
    assert yaml.safe_load(printed.getvalue())["training"]["n_steps"] == 7
    assert parser.name_of(parser.parse(["train", "--config", "seed: 3"])[1], Config()) == "digits"
