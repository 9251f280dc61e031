"""Bad command lines, configurations and files, one table: a few words with what is allowed, an exit code, and nothing written."""

import contextlib
import importlib.util
import io
import os
import re
import sys
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from runs import ROOT, TINY, WEIGHTS, contents, said
from toyscore.cli import main, training
from toyscore.cli.parser import name_of, parse
from toyscore.config import GROUPS, Config, ConfigError
from toyscore.data import files

DIGITS = ["--config", str(ROOT / "configs" / "digits.yaml")]
MODEL = str(WEIGHTS)
ABSENT = "cuda" if torch.backends.mps.is_available() else "mps"  # no machine has both
QUICK = ["--samples", "2", "--sampling.n_levels", "2", "--sampling.n_steps_each", "1"]
# id: (arguments, exit code, words of the message)
COMMANDS = {
    "an option nobody has": (
        ["train", "--training.n_step", "5"],
        2,
        r"--training.n_step is no option of train; did you mean --training.n_steps\?",
    ),
    "an option like none": (["train", "--zebra", "5"], 2, r"--zebra is no option of train; see --help"),
    "no command": ([], 2, r"a command is required: train, sample, "),
    "another command": (["trian"], 2, r"trian is no command; did you mean train\?"),
    "a choice that is none": (
        ["train", "--data.name", "imagenet"],
        2,
        r"data.name = imagenet: it must be one of digits, mnist5k",
    ),
    "a word for a number": (["train", "--training.lr", "fast"], 2, r"training.lr = fast: it must be a number$"),
    "a fraction for a count": (
        ["train", "--training.n_steps", "1.5"],
        2,
        r"training.n_steps = 1.5: it must be a whole number$",
    ),
    "a word for yes or no": (
        ["train", "--sampling.denoise", "maybe"],
        2,
        r"sampling.denoise = maybe: it must be true or false$",
    ),
    "a value left out": (["train", "--seed"], 2, r"seed.*expected one argument"),
    "no steps": (["train", "--training.n_steps", "0"], 2, r"training.n_steps = 0: it must be at least 1"),
    "no batch": (["train", "--training.batch_size", "0"], 2, r"training.batch_size = 0: it must be at least 1"),
    "a rate below zero": (["train", "--training.lr", "-1"], 2, r"training.lr = -1.0: it must be above 0.0, and finite"),
    "a rate that is no number": (["train", "--training.lr", "nan"], 2, r"training.lr = nan: it must be a number$"),
    "a rate without end": (["train", "--training.lr", "inf"], 2, r"training.lr = inf: it must be a number$"),
    "an average that never moves": (["train", "--training.ema", "1"], 2, r"training.ema = 1.0: .*at most 0.999999"),
    "a width of one": (["train", "--network.width", "1"], 2, r"network.width = 1: it must be at least 2"),
    "levels upside down": (
        ["train", "--noise.sigma_max", "0.001"],
        2,
        r"noise.sigma_min = 0.01 is not below noise.sigma_max = 0.001; lower it",
    ),
    "unequal shards": (
        ["train", "--training.n_shards", "3"],
        2,
        r"training.batch_size = 128 is not a multiple of training.n_shards = 3",
    ),
    "a toy for an image network": (
        ["train", "--data.name", "toy"],
        2,
        r"network.kind = continuous does not go with data.name = toy",
    ),
    "images for a toy network": (
        ["train", "--network.kind", "mlp"],
        2,
        r"network.kind = mlp does not go with data.name = digits",
    ),
    "a toy without its name": (
        ["train", "--data.toy", "moons"],
        2,
        r"data.toy = moons: data.name = digits does not read it, only toy; leave data.toy out, or pass another data.name",
    ),
    "a toy without its name, that any would be": (
        ["train", "--data.toy=two_modes"],
        2,
        r"data.toy = two_modes: data.name = digits does not read it, only toy; leave data.toy out",
    ),
    "a path for digits": (
        ["train", "--data.name", "digits", "--data.path", "empty"],
        2,
        r"data.path = empty: data.name = digits does not read it, only folder; leave data.path out",
    ),
    "a size for digits": (
        ["train", *DIGITS, "--data.size", "16"],
        2,
        r"data.size = 16: data.name = digits does not read it, only photos or folder; leave",
    ),
    "a mirror for a toy": (
        ["train", "--config", str(ROOT / "configs" / "toy.yaml"), "--data.flip", "true"],
        2,
        r"data.flip = true: data.name = toy does not read it, only digits or mnist5k or",
    ),
    "a depth for images": (
        ["train", "--network.depth", "9"],
        2,
        r"network.depth = 9: network.kind = continuous does not read it, only mlp; leave network.depth out",
    ),
    "a spread for levels": (
        ["train", "--noise.log_std", "2"],
        2,
        r"noise.log_std = 2.0: noise.law = levels does not read it, only log_normal; leave",
    ),
    "costs of a depth for images": (
        ["summary", "--network.depth", "3"],
        2,
        r"network.depth = 3: network.kind = continuous does not read it, only mlp",
    ),
    "a path of nothing": (["train", "--data.path", "nowhere"], 3, r"nowhere is no folder: pass the folder that holds"),
    "a folder without a path": (
        ["train", "--data.name", "folder"],
        2,
        r"data.path = null: with data.name = folder it must",
    ),
    "another ladder for a level network": (
        ["train", "--network.kind", "ncsn", "--sampling.n_levels", "5"],
        2,
        r"sampling.sigma_max, sigma_min and n_levels must be null: network.kind = ncsn",
    ),
    "a law between levels": (
        ["train", "--network.kind", "ncsn", "--noise.law", "log_uniform"],
        2,
        r"noise.law = log_uniform: network.kind = ncsn knows its levels",
    ),
    "an odd size": (
        ["train", *TINY, "--data.name", "photos", "--data.size", "9"],
        2,
        r"data.size = 9: network.kind = continuous halves it, so it must be even; or take compact",
    ),
    "a size too small, before pictures are read": (
        ["train", *TINY, "--data.name", "folder", "--data.path", "nowhere", "--data.size", "7"],
        2,
        r"data.size = 7: it must be at least 8",
    ),
    "a toy that is none": (
        ["train", "--data.name", "toy", "--network.kind", "mlp", "--data.toy", "moon"],
        2,
        r"data.toy = moon is no toy; did you mean moons\?",
    ),
    "a sampling ladder upside down": (
        ["train", "--sampling.sigma_min", "5", "--sampling.sigma_max", "1"],
        2,
        r"sampling.sigma_min = 5.0 is not below sampling.sigma_max = 1.0",
    ),
    "one level for a range": (["train", "--noise.n_levels", "1"], 2, r"noise.n_levels = 1: one level cannot reach"),
    "a seed beyond the generator's": (
        ["train", "--seed", str(2**64)],
        2,
        r"seed = 18446744073709551616: it must be .*below 2\^63",
    ),
    "a seed of samples beyond": (["sample", "--seed", str(2**64)], 2, r"seed = 18446744073709551616: .*below 2\^63"),
    "a device that nobody has": (
        ["sample", "--device", "abacus"],
        2,
        r"device = abacus: it must be one of auto, cpu, cuda, mps$",
    ),
    "a device that is not there": (
        ["sample", "--device", ABSENT],
        2,
        rf"device = {ABSENT}: this machine has cpu( and \w+)*; pass one of them, or auto",
    ),
    "training where nothing is": (
        ["train", *TINY, f"--device={ABSENT}"],
        2,
        rf"device = {ABSENT}: this machine has cpu( and \w+)*; pass one of them, or auto",
    ),
    "no threads": (["sample", "--threads", "0"], 2, r"threads = 0: it must be at least 1"),
    "no such configuration": (
        ["train", "--config", "nowhere.yaml"],
        2,
        r"config = nowhere.yaml: No such file or directory; pass a YAML file$",
    ),
    "no such folder": (
        ["train", "--data.name", "folder", "--data.path", "nowhere"],
        3,
        r"nowhere is no folder: pass the folder that holds",
    ),
    "no such run": (["sample", "--folder", "nowhere"], 8, r"nowhere holds no checkpoint: pass a run folder"),
    "nothing to resume": (["train", *DIGITS, "--resume", "latest"], 8, r"holds no checkpoint"),
    "a file for a run": (["train", *TINY, "--folder", __file__], 3, r"test_bad_commands.py: File exists"),
    "no samples": (["sample", "--samples", "0"], 2, r"samples = 0: it must be at least 1"),
    "a picture of another kind": (["sample", "--out", "x.jpg"], 2, r"out = x.jpg: it must end in .png"),
    "a motion of another kind": (["animate", "--out", "x.png"], 2, r"out = x.png: it must end in .gif"),
    "a motion without frames": (["animate", "--frames", "0"], 2, r"frames = 0: it must be at least 1"),
    "frames too fast": (["animate", "--fps", "60"], 2, r"fps = 60: browsers show at most 50"),
    "no motion of nothing": (["animate", "--folder", "nowhere"], 8, r"nowhere holds no checkpoint"),
    "samples in no batches": (["sample", "--batch", "0"], 2, r"batch = 0: it must be at least 1"),
    "a half of a sample": (["sample", "--samples", "2.5"], 2, r"samples = 2.5: it must be a whole number$"),
    "a start that is none": (
        ["sample", "--sampling.start", "zero"],
        2,
        r"sampling.start = zero: it must be one of uniform, normal or null$",
    ),
    "a ladder upside down while sampling": (
        ["sample", "--sampling.sigma_min", "5", "--sampling.sigma_max", "1"],
        2,
        r"sampling.sigma_min = 5.0 is not below sampling.sigma_max = 1.0",
    ),
    "a step that diverges": (
        [
            "sample",
            "--samples",
            "2",
            "--sampling.step_size",
            "1e9",
            "--sampling.n_levels",
            "2",
            "--sampling.n_steps_each",
            "20",
        ],
        7,
        r"the chain diverged .* lower step_size",
    ),
    "too few to judge": (["evaluate", "--samples", "4"], 2, r"samples = 4: neighbours .* at least 5"),
    "nothing to judge": (["evaluate", "--folder", "nowhere"], 8, r"nowhere holds no checkpoint"),
    "an option of training for evaluate": (
        ["evaluate", "--noise.law", "levels"],
        2,
        r"--noise.law is no option of evaluate",
    ),
    "a yes that is none": (
        ["evaluate", "--inception", "perhaps"],
        2,
        r"inception = perhaps: it must be true or false$",
    ),
    "costs of nothing": (["summary", "--folder", "nowhere"], 8, r"nowhere holds no checkpoint"),
    "costs of a wrong network": (["summary", "--network.width", "1"], 2, r"network.width = 1: it must be at least 2"),
    "a loss of no run": (["plot-loss"], 2, r"required: --folder"),
    "costs of two networks": (
        ["summary", "--folder", "x", "--network.width", "64"],
        2,
        r"folder = x has a network of its own: leave the keys",
    ),
    "a level nobody learned": (
        ["sample", "--sampling.sigma_max", "1e9"],
        2,
        r"sampling.sigma_max = 1000000000.0, .* learns 160.0 to 0.01 and knows nothing beyond",
    ),
    "a loss of nothing": (
        ["plot-loss", "--folder", "nowhere"],
        3,
        r"nowhere: it holds no log.jsonl: pass the folder of a run",
    ),
    "a loss as a film": (
        ["plot-loss", "--folder", "x", "--out", "x.gif"],
        2,
        r"out = x.gif: it must end in .png .* .svg .* .pdf",
    ),
    "a loss without width": (["plot-loss", "--folder", "x", "--smooth", "0"], 2, r"smooth = 0: it must be at least 1"),
    "an export of nothing": (["export", "--folder", "nowhere", "--to", "x"], 8, r"nowhere holds no checkpoint"),
    "an export to nowhere": (["export", "--folder", "nowhere"], 2, r"required: --to"),
    "an export in fewer bits": (
        ["export", "--folder", "x", "--to", "y", "--precision", "int8"],
        2,
        r"precision = int8: it must be one of float32, float16$",
    ),
    "a doctor who is asked": (["doctor", "--folder", "x"], 2, r"--folder is no option of doctor; see --help"),
    "a shell that is none": (["completion", "--shell", "fish"], 2, r"shell = fish: it must be one of bash, zsh$"),
    "a command misspelt": (["evalaute"], 2, r"evalaute is no command; did you mean evaluate\?"),
    "a command like none": (["zebra"], 2, r"zebra is no command; the commands are train, sample, animate, evaluate"),
    "an option of the other command": (["sample", "--training.lr", "1"], 2, r"--training.lr is no option of sample"),
    "a word too many": (["train", "more"], 2, r"unrecognized arguments: more"),
    "an option before the command": (["--seed", "3"], 2, r"--seed is no command; the commands are train, "),
    "a command in capitals": (["TRAIN"], 2, r"TRAIN is no command; did you mean train\?"),
    "a count beyond machines": (
        ["sample", "--samples", str(10**22)],
        2,
        r"samples = 1\d+: it must be at most 2147483647",
    ),
    "threads beyond machines": (["sample", "--threads", str(2**31)], 2, r"threads = 2147483648: it must be at most"),
    "no number of samples": (["sample", "--samples", "null"], 2, r"samples = null: it must be a whole number$"),
    "samples of nothing": (["sample", "--samples", ""], 2, r"samples = '': it must be a whole number$"),
    "a seed below zero": (["sample", "--seed", "-1"], 2, r"seed = -1: it must be at least 0 and below 2\^63"),
    "a fraction of a thread": (
        ["animate", "--threads", "0.5"],
        2,
        r"threads = 0.5: it must be a whole number or null$",
    ),
    "chains without end": (["animate", "--samples", "inf"], 2, r"samples = inf: it must be a whole number$"),
    "a motion backwards": (["animate", "--fps", "-3"], 2, r"fps = -3: it must be at least 1"),
    "a step size of nothing": (
        ["sample", "--sampling.step_size", "0"],
        2,
        r"sampling.step_size = 0.0: it must be above 0.0",
    ),
    "a step size in words": (
        ["animate", "--sampling.step_size", "small"],
        2,
        r"step_size = small: it must be a number or null$",
    ),
    "one level to sample": (["sample", "--sampling.n_levels", "1"], 2, r"sampling.n_levels = 1: it must be at least 2"),
    "no steps to sample": (["evaluate", "--sampling.n_steps_each", "0"], 2, r"n_steps_each = 0: it must be at least 1"),
    "a level below all": (
        ["animate", "--sampling.sigma_min", "1e-9"],
        2,
        r"sampling.sigma_min = 1e-09: the network learns",
    ),
    "a picture without an ending": (["sample", "--out", "x"], 2, r"out = x: it must end in .png .* or .npy"),
    "a picture in a file": (
        ["sample", "--folder", MODEL, "--out", "file/x.png", "--samples", "1"],
        3,
        r"file: (File exists|Not a directory)$",
    ),
    "a picture over a folder": (["sample", *QUICK, "--out", "folder.png"], 3, r"folder.png: Is a directory"),
    "numbers over a folder": (["sample", *QUICK, "--out", "folder.npy"], 3, r"folder.npy: Is a directory"),
    "a picture of no run": (
        ["sample", "--folder", "nowhere", "--out", "deep/x.png"],
        8,
        r"nowhere holds no checkpoint",
    ),
    "a run that is a file": (["sample", "--folder", "file"], 8, r"file holds no checkpoint"),
    "a run that is empty": (["sample", "--folder", "empty"], 8, r"empty holds no checkpoint: pass a run folder"),
    "an evaluation in a file": (
        ["evaluate", *QUICK[2:], "--samples", "5", "--out", "file"],
        3,
        r"file: (File exists|Not a directory)$",
    ),
    "an evaluation of a file": (["evaluate", "--folder", "file"], 8, r"file holds no checkpoint"),
    "no samples to judge": (["evaluate", "--samples", "0"], 2, r"samples = 0: it must be at least 1"),
    "a batch in words": (["evaluate", "--batch", "big"], 2, r"batch = big: it must be a whole number$"),
    "evaluating training": (["evaluate", "--training.lr", "1"], 2, r"--training.lr is no option of evaluate"),
    "an ending for evaluate": (["evaluate", "--fps", "3"], 2, r"--fps is no option of evaluate"),
    "costs of a file": (["summary", "--folder", "file"], 8, r"file holds no checkpoint"),
    "costs of wrong levels": (["summary", "--noise.sigma_min", "2"], 2, r"noise.sigma_min = 2.0 is not below"),
    "costs of a wrong toy": (
        ["summary", "--data.name", "toy", "--network.kind", "mlp", "--data.toy", "mons"],
        2,
        r"data.toy = mons is no toy; did you mean moons\?",
    ),
    "costs with a seed misspelt": (
        ["summary", "--sed", "1"],
        2,
        r"--sed is no option of summary; did you mean --seed\?",
    ),
    "a loss of a file": (
        ["plot-loss", "--folder", "file"],
        3,
        r"file: it holds no log.jsonl|file/log.jsonl: Not a dir",
    ),
    "a loss of an empty log": (
        ["plot-loss", "--folder", "logged"],
        2,
        r"log.jsonl is empty: the run has not logged a step",
    ),
    "a loss smoothed by half": (
        ["plot-loss", "--folder", "x", "--smooth", "0.5"],
        2,
        r"smooth = 0.5: it must be a whole number$",
    ),
    "a loss without an ending": (
        ["plot-loss", "--folder", "x", "--out", "loss"],
        2,
        r"out = loss: it must end in .png",
    ),
    "an export of an empty folder": (["export", "--folder", "empty", "--to", "x"], 8, r"empty holds no checkpoint"),
    "an export over a file": (["export", "--folder", MODEL, "--to", "file"], 3, r"/file: File exists$"),
    "an export over a card": (
        ["export", "--folder", MODEL, "--to", "carded"],
        2,
        r"README.md is no model card of ours, and would be lost",
    ),
    "an export over a run": (
        ["export", "--folder", MODEL, "--to", "running"],
        2,
        r"running holds a run: export into a folder of its own",
    ),
    "an export of nothing named": (["export", "--to", "x"], 2, r"required: --folder"),
    "an export in double": (
        ["export", "--folder", "x", "--to", "y", "--precision", "float64"],
        2,
        r"precision = float64: it must be one of float32, float16$",
    ),
    "a doctor with words": (["doctor", "well"], 2, r"unrecognized arguments: well"),
    "a shell left out": (["completion", "--shell"], 2, r"shell.*expected one argument"),
    "resuming from a file": (["train", *TINY, "--resume", "file", "--folder", "new"], 8, r"file holds no checkpoint"),
    "resuming from nowhere": (
        ["train", *TINY, "--resume", "nowhere", "--folder", "new"],
        8,
        r"nowhere holds no checkpoint",
    ),
    "a run in a file": (["train", *TINY, "--folder", "file/run"], 3, r"file/run: Not a directory$"),
    "a configuration that is a folder": (
        ["train", "--config", "empty"],
        2,
        r"config = empty: Is a directory; pass a YAML file$",
    ),
    "a configuration left out": (["train", "--config"], 2, r"expected one argument$"),
    "a configuration before an option": (["train", "--config", "--seed", "3"], 2, r"expected one argument$"),
    "a configuration of nothing": (["train", "--config", ""], 2, r"config = '': No such file .*; pass a YAML file$"),
    "a configuration written out": (["train", "--config", "sed: 3"], 2, r"sed is not a key; did you mean seed\?$"),
    "pictures that are none": (
        ["train", *TINY, "--data.name", "folder", "--data.path", "empty", "--folder", "new"],
        2,
        r"empty holds no picture \(.bmp, .*\): pass the folder that does$",
    ),
    "pictures in a file": (
        ["train", *TINY, "--data.name", "folder", "--data.path", "file", "--folder", "new"],
        3,
        r"file is no folder: pass the folder that holds",
    ),
    "pictures without a place": (
        ["train", "--data.name", "folder", "--data.path", ""],
        2,
        r"data.path = '': with data.name = folder",
    ),
    "one level for a smooth law": (
        ["train", "--noise.n_levels", "1", "--noise.sigma_min", "1", "--noise.law", "log_uniform"],
        2,
        r"noise.sigma_min = 1.0 is not below noise.sigma_max = 1.0",
    ),
    "equal ends of sampling": (
        ["train", "--sampling.sigma_min", "0.5", "--sampling.sigma_max", "0.5"],
        2,
        r"sampling.sigma_min = 0.5 is not below sampling.sigma_max = 0.5",
    ),
    "a level of another network": (
        ["train", "--network.kind", "compact", "--sampling.sigma_max", "0.5"],
        2,
        r"must be null: network.kind = compact takes its own levels",
    ),
    "a law of another network": (
        ["train", "--network.kind", "compact", "--noise.law", "log_normal"],
        2,
        r"noise.law = log_normal: network.kind = compact knows its levels only",
    ),
    "a toy by an ncsn": (
        ["train", "--data.name", "toy", "--network.kind", "ncsn"],
        2,
        r"ncsn does not go with data.name = toy: toys take mlp",
    ),
}

# id: (content of a file for train, words of the message)
FILES = {
    "a key nobody has": (
        "training: {n_step: 5}",
        r"c.yaml: training.n_step is not a key; did you mean training.n_steps\?",
    ),
    "a key like none": (
        "training: {zebra: 5}",
        r"c.yaml: training.zebra is not a key; the keys are training.n_steps, ",
    ),
    "a group nobody has": ("trainig: {n_steps: 5}", r"c.yaml: trainig is not a key; did you mean training\?"),
    "a group in capitals": ("Training: {n_steps: 5}", r"c.yaml: Training is not a key; did you mean training\?"),
    "a key in capitals": ("training: {LR: 5}", r"c.yaml: training.LR is not a key; did you mean training.lr\?"),
    "a group like none": ("zebra: 5", r"c.yaml: zebra is not a key; the keys are data, network"),
    "a key without its group": (
        "lr: 0.1",
        r"c.yaml: lr is not a key of the first rank; did you mean training: \{lr: ...\}\?",
    ),
    "a key with a dot": ("training.lrr: 0.1", r"c.yaml: training.lrr is not a key; did you mean training.lr\?"),
    "a key of two groups": (
        "sigma_min: 0.1",
        r"c.yaml: sigma_min is not a key of the first rank; did you mean noise: \{sigma_min: ...\} or sampling: \{sig",
    ),
    "a key of another group": ("sample.lr: 0.1", r"c.yaml: sample.lr is not .*; did you mean training: \{lr: ...\}\?"),
    "a group in a group": ("training: {training: {lr: 1}}", r"c.yaml: training.training is not a key"),
    "a group in another": ("data: {noise: {law: levels}}", r"c.yaml: data.noise is not a key"),
    "a number for a key": ("1: 2", r"c.yaml: 1 is not a key"),
    "nothing for a key": ("training: {null: 2}", r"c.yaml: training.null is not a key"),
    "a list for a key": ("? [a]\n: 3", r"c.yaml is no YAML at line 1, column 3: found unhashable key"),
    "a list for a group": (
        "training: [1, 2]",
        r"training = \[1, 2\]: it must be a group of keys, as in training: \{...\}$",
    ),
    "a number for a group": ("noise: 3", r"noise = 3: it must be a group of keys, as in noise: \{...\}$"),
    "nothing for a group": ("sampling:", r"sampling = null: it must be a group of keys, as in sampling: \{...\}$"),
    "a group for a value": ("training: {lr: {max: 1}}", r"training.lr = \{'max': 1\}: it must be a number$"),
    "a list for a choice": ("data: {name: [digits]}", r"data.name = \['digits'\]: it must be one of digits, mnist5k"),
    "a date for a number": ("seed: 2020-01-01", r"seed = 2020-01-01: it must be a whole number$"),
    "a float for a count": ("seed: 1e3", r"seed = 1000.0: it must be a whole number$"),
    "a word for a count": ("training: {n_steps: many}", r"training.n_steps = many: it must be a whole number$"),
    "a number of 5,000 digits": ("seed: " + "9" * 5000, r"c.yaml is no YAML: Exceeds the limit"),
    "a group twice": (
        "data: {size: 8}\ndata: {size: 9}",
        r"c.yaml is no YAML at line 2, column 1: data is there twice",
    ),
    "tabs": ("training:\n\tlr: 1", r"c.yaml is no YAML at line 2, column 1: .*'.t'.*; indent with spaces$"),
    "a bracket left open": (
        "training: {n_steps: 5",
        r"c.yaml is no YAML at line \d, column \d+: .*expected ',' or '}'",
    ),
    "a quote left open": (
        "data: {name: 'digits}",
        r"c.yaml is no YAML at line 1, column \d+: found unexpected end of stream",
    ),
    "two commas": ("training: {lr: 2,, }", r"c.yaml is no YAML at line 1, column 18: "),
    "steps at odds": ("training:\n  lr: 1\n n_steps: 2", r"c.yaml is no YAML at line 3, column 2: "),
    "an alias of nothing": ("training: *a", r"c.yaml is no YAML: a reference \(\*a\): write out what it stands for"),
    "a tag that would run code": (
        "training: !!python/object/apply:os.system ['true']",
        r"c.yaml is no YAML at line 1, column 11: could not determine a constructor for the tag",
    ),
    "a tag nobody knows": ("seed: !foo 3", r"c.yaml is no YAML at line 1, column 7: could not determine a constructor"),
    "a number that is a word": ("seed: !!int x", r"c.yaml is no YAML: invalid literal for int"),
    "YAML of another age": ("%YAML 3.0\n---\nseed: 1", r"c.yaml is no YAML at line 1, column 1: found incompatible"),
    "two documents": (
        "---\nseed: 1\n---\nseed: 2",
        r"c.yaml is no YAML at line 3, column 1: but found another document",
    ),
    "brackets without end": ("[" * 2000, r"c.yaml is no YAML"),
    "control characters": ("\x00\x01", r"c.yaml is no YAML: unacceptable character #x0000"),
    "nothing at all": ("", r"c.yaml holds no keys: it must hold groups of them, as in training: \{n_steps: 200\}$"),
    "a remark alone": ("# to be written\n", r"c.yaml holds no keys"),
    "a word alone": ("digits", r"c.yaml holds no keys"),
    "a list of keys": ("- training\n- data", r"c.yaml holds no keys"),
    "UTF-16": ("seed: 1".encode("utf-16"), r"c.yaml is not in UTF-8 \(byte 1\); save it as UTF-8$"),
    "Latin letters": ("# caf\xe9\nseed: 1".encode("latin-1"), r"c.yaml is not in UTF-8 \(byte 6\); save it as UTF-8$"),
    "a picture": (
        b"\x89PNG\r\n\x1a\n",
        r"c.yaml is not in UTF-8",
    ),
    "a toy that is not named": (
        "data: {toy: two_modes}",
        r"data.toy = two_modes: data.name = digits does not read it, only toy; leave data.toy out",
    ),
    "a mean of another law": (
        "noise: {law: log_uniform, log_mean: 0.5}",
        r"noise.log_mean = 0.5: noise.law = log_uniform does not read it, only log_normal",
    ),
    "a file of files": ("config: other.yaml", r"config.*other.yaml"),
}

FIGURES, NOTEBOOKS, BENCHMARKS = "figures/run.py", "notebooks/build.py", "benchmarks/images.py"
# id: (script, arguments, words of the message)
SCRIPTS = {
    "a figure nobody drew": (FIGURES, ["--only", "zebra"], r"--only zebra: there is no such figure; choose from "),
    "a figure left out": (FIGURES, ["--only"], r"--only: expected one argument"),
    "a figure's option misspelt": (FIGURES, ["--quik"], r"unrecognized arguments: --quik"),
    "a figure quick and exact": (FIGURES, ["--quick", "--check"], r"--check cannot compare them; pass one of the two"),
    "a clean loss that is none": (FIGURES, ["--clean"], r"--clean says what x a loss takes, and there is none"),
    "a loss compared": (FIGURES, ["--loss", "a:b", "--check"], r"--loss a:b draws a picture that is not kept"),
    "a loss without room": (
        FIGURES,
        ["--loss", "a:b", "--only", "ncsn-fig2"],
        r"ncsn-fig2 takes no loss; pass --only objectives",
    ),
    "a loss without a name": (
        FIGURES,
        ["--loss", "mine", "--only", "objectives"],
        r"--loss mine: it must be module:function",
    ),
    "a loss of no module": (
        FIGURES,
        ["--loss", "zebra9:f", "--only", "objectives"],
        r"importing zebra9 gave ModuleNotFoundError",
    ),
    "a loss that is not there": (
        FIGURES,
        ["--loss", "toyscore.losses:implicit_score", "--only", "objectives"],
        r"has no implicit_score: .* pass implicit_score_matching",
    ),
    "a loss that is no function": (
        FIGURES,
        ["--loss", "math:pi", "--only", "objectives"],
        r"pi is float: it must be callable",
    ),
    "one seed to spread": (FIGURES, ["--spread", "1"], r"--spread 1 needs two seeds or more"),
    "seeds in words": (FIGURES, ["--spread", "few"], r"--spread: invalid int value: 'few'"),
    "a notebook nobody wrote": (NOTEBOOKS, ["77"], r"no notebook 77: choose from 00, 01"),
    "notebooks of which one is": (NOTEBOOKS, ["01", "x"], r"no notebook x: choose from 00, 01"),
    "a notebook's option misspelt": (NOTEBOOKS, ["--chek"], r"unrecognized arguments: --chek"),
    "a port below all": ("notebooks/classroom.py", ["--port", "80"], r"--port 80: it must be from 1024 to 65535"),
    "a port above all": ("notebooks/classroom.py", ["--port", "65536"], r"--port 65536: it must be from 1024 to 65535"),
    "a port in words": ("notebooks/classroom.py", ["--port", "http"], r"--port: invalid int value: 'http'"),
    "a site over something": (
        "docs/make_site.py",
        ["--out", "full"],
        r"--out full holds something else, which would be lost",
    ),
    "a site over a file": (
        "docs/make_site.py",
        ["--out", "file"],
        r"--out file holds something else, which would be lost",
    ),
    "a site's option misspelt": ("docs/make_site.py", ["--oot", "x"], r"unrecognized arguments: --oot"),
    "equations misspelt": ("docs/make_equations.py", ["--chek"], r"unrecognized arguments: --chek"),
    "a gallery misspelt": ("docs/make_gallery.py", ["--chek"], r"unrecognized arguments: --chek"),
    "costs misspelt": ("docs/make_scaling.py", ["check"], r"unrecognized arguments: check"),
    "rows nobody measures": ("benchmarks/run.py", ["--only", "zebra"], r"--only: invalid choice: '?zebra"),
    "rows misspelt": ("benchmarks/run.py", ["--olny", "zebra"], r"unrecognized arguments: --olny"),
    "a network nobody times": (BENCHMARKS, ["--only", "zebra"], r"--only: invalid choice: '?zebra"),
    "one step to time": (BENCHMARKS, ["--steps", "1"], r"--steps 1: the first is not timed; it must be at least 2"),
    "no images to time": (BENCHMARKS, ["--batch", "0"], r"--batch 0: it must be at least 1"),
    "no turns to time": (BENCHMARKS, ["--repeats", "0"], r"--repeats 0: it must be at least 1"),
    "quick times to keep": (BENCHMARKS, ["--quick", "--write"], r"leave out one of --quick and --write"),
}


def keys():
    """(key, the types it takes, its group and its own name) of every key of a configuration."""
    groups = {group: get_type_hints(kind) for group, kind in GROUPS.items()}
    groups[""] = {name: hint for name, hint in get_type_hints(Config).items() if name not in groups}
    for group, hints in groups.items():
        for name, hint in hints.items():
            kinds = get_args(hint) if NoneType in get_args(hint) else (hint,)
            yield f"{group}.{name}".lstrip("."), kinds, group, name


WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
LEAST = {"network.width": 2, "sampling.n_levels": 2, "seed": 0}


def takes(kinds):
    """What a message must say is allowed."""
    one_of = [f"one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else WORDS[kind] for kind in kinds]
    return f"it must be {' or '.join(one_of)}$"


def wrong_values(key, kinds):
    """(value as YAML writes it, words of the message): another type, null, the empty text, out of range on both sides."""
    typed = takes(kinds)
    yield "[a, b]", rf"{key} = \['a', 'b'\]: {typed}"
    if str not in kinds:
        yield "zebra", f"{key} = zebra: {typed}"
        yield "''", f"{key} = '*: {typed}"
    if NoneType not in kinds:
        yield "null", f"{key} = null: {typed}"
    if bool in kinds:
        yield "2", f"{key} = 2: {typed}"
    if int in kinds or float in kinds:
        yield "true", f"{key} = [Tt]rue: {typed}"
    if int in kinds:
        least, most = LEAST.get(key, 1), 2**63 if key == "seed" else 2**31
        yield f"{least - 1}", f"{key} = {least - 1}: it must be at least {least}"
        yield f"{most}", f"{key} = {most}: it must be (at most {most - 1}$|at least 0 and below 2.63)"
        yield "1.5", f"{key} = 1.5: {typed}"
    if float in kinds:
        finite = f"it must be {'' if key == 'noise.log_mean' else 'above 0.0.* and '}finite$"
        yield ".nan", f"{key} = nan: {finite}"
        yield "-.inf", f"{key} = -inf: {finite}"
        yield ".inf", f"{key} = inf: {finite}"
        if key != "noise.log_mean":
            yield "0.0", f"{key} = 0.0: {finite}"


def misspelt(name):
    return {"size": "sise", "seed": "sed", "path": "pth", "toy": "toys"}.get(
        name, name + name[-1] if len(name) < 3 else name[:-1]
    )


def in_yaml(group, name, value):
    return f"{group}: {{{name}: {value}}}" if group else f"{name}: {value}"


def on_keys():
    """id -> (how it is given, the text, words of the message): for every key, an option, a file, the file that a run keeps."""
    for key, kinds, group, name in keys():
        for n, (value, words) in enumerate(wrong_values(key, kinds)):
            if str not in kinds:  # as an option anything is text
                yield f"{key} = {value}, an option", ("option", f"--{key}={value}", words)
            if n % 2:
                yield f"{key} = {value}, in a file", ("file", in_yaml(group, name, value), words)
            else:
                yield f"{key} = {value}, in a run", ("run", (group, name, value), words)
        option, near = misspelt(key), misspelt(name)
        yield (
            f"{key} misspelt, an option",
            ("option", f"--{option}=1", rf"--{option} is no option of train; did you mean --\w"),
        )
        told = f"{key[: -len(name)]}{near}"
        yield (
            f"{key} misspelt, in a file",
            ("file", in_yaml(group, near, 1), rf"c.yaml: {told} is not a key; did you mean {key}\?$"),
        )
        twice = f"{group}:\n  {name}: 1\n  {name}: 1" if group else f"{name}: 1\n{name}: 1"
        yield (
            f"{key} twice, in a file",
            ("file", twice, rf"c.yaml is no YAML at line \d, column \d: {name} is there twice"),
        )


KEYS = dict(on_keys())


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


def refused(place, arguments, expected, words):
    before = contents(place)
    code, text = said(*arguments)
    assert code == expected, text
    assert text.startswith("toyscore: ")
    assert text.count("\n") <= 5
    assert len(text) < 600
    assert "Traceback" not in text
    assert "should not happen" not in text
    assert re.search(words, text.removesuffix("\n")), text
    assert contents(place) == before


WHAT = "bad command lines, configurations and files, each told with its exit code"


@pytest.mark.parametrize("case", COMMANDS)
def test_a_bad_command_gets_a_few_words_and_a_code(case, place, measured):
    refused(place, *COMMANDS[case])
    measured.count(WHAT)


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_gets_a_few_words_and_a_code(case, place, measured):
    content, words = FILES[case]
    (place / "c.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(place, ["train", "--config", "c.yaml"], 2, words)
    measured.count(WHAT)


@pytest.mark.parametrize("key", [key for key, *_ in keys()])
def test_every_key_refuses_what_it_cannot_be(key, place, measured):
    """As an option, in a file, and in the file that a run keeps"""
    own = {case: given for case, given in KEYS.items() if case.split()[0] == key}
    assert len(own) >= 4
    for how, given, words in own.values():
        if how == "option":
            refused(place, ["train", given], 2, words)
        elif how == "file":
            (place / "c.yaml").write_text(given)
            refused(place, ["train", "--config", "c.yaml"], 2, words)
        else:
            group, name, value = given
            values = Config().asdict()
            (values[group] if group else values)[name] = yaml.safe_load(value)
            (place / "empty" / "config.yaml").write_text(yaml.safe_dump(values))
            refused(place, ["train", "--folder", "empty", "--resume", "latest"], 2, words)
    measured.count(WHAT, len(own))


@pytest.mark.parametrize("case", SCRIPTS)
def test_a_bad_command_of_a_script_gets_a_few_words_and_a_code(case, place, monkeypatch, measured):
    script, arguments, words = SCRIPTS[case]
    path = ROOT / script
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    before = contents(place)
    with contextlib.redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as end:
        module.main(arguments)
    assert end.value.code == 2
    last = errors.getvalue().splitlines()[-1]
    assert re.search(words, last), last
    assert "Traceback" not in errors.getvalue()
    assert contents(place) == before
    measured.count(WHAT)


@pytest.mark.parametrize("key", [key for key, *_ in keys()])
def test_a_checkpoint_of_wrong_types_is_refused(key):
    """The configuration in a checkpoint is JSON that anybody may have written: of the same types, or it is named"""
    _, kinds, group, name = next(k for k in keys() if k[0] == key)
    for value in ([1], {"a": 1}, *([] if NoneType in kinds else [None]), *([] if float in kinds else [0.5])):
        values = Config().asdict()
        (values[group] if group else values)[name] = value
        with pytest.raises(ConfigError, match=rf"^{key} = .*: {takes(kinds)}"):
            Config.fromdict(values)
    with pytest.raises(ConfigError, match=r"^data = 3: it must be a group of keys"):
        Config.fromdict(Config().asdict() | {"data": 3})


def test_what_is_right_is_not_refused(place):
    """A mark at the beginning, numbers as they are written, every key at its default: the run begins"""
    for content in (
        "\ufeffseed: 1",
        "training: {lr: 1e-3}",
        "noise: {sigma_max: 2}",
        yaml.safe_dump(Config().asdict()),
    ):
        (place / "c.yaml").write_text(content)
        check_begins("--config", "c.yaml")


def check_begins(*options):
    code, text = said("train", *options, "--folder", "new")
    assert (code, "AssertionError: accepted" in text) == (1, True), text


def test_a_configuration_comes_in_many_ways(place, monkeypatch):
    """From the home folder, through a pipe, written out, with keys as on the command line; of pictures, with keys given or taken back"""
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
    monkeypatch.setattr(files, "_folder", lambda folder: folder or place / "cache")
    for given in (celeba, [], ["--config", "data: {path: nowhere}"], ["--data.name=folder"]):  # a path implies a folder
        check_begins(*given, "--data.path=pictures")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["train", "--config=~/c.yaml", "--print_config"]) == 0
    assert yaml.safe_load(printed.getvalue())["training"]["n_steps"] == 7
    assert name_of(parse(["train", "--config", "seed: 3"])[1], Config()) == "digits"
