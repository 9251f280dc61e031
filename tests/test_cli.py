"""The command line: runs that resume to the bit, signals, and errors in a few words with exit codes of their own."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from runs import ROOT, digest, ended, finished, forked, said, tiny, torchrun, two_processes, wait
from toyscore import data
from toyscore.cli import main
from toyscore.cli.folder import locked
from toyscore.cli.options import Sample
from toyscore.config import GROUPS, Config, check
from toyscore.data import files, named
from toyscore.pretrained import load
from toyscore.train import load_checkpoint

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture
def whole():
    """A run of 40 steps that nothing interrupts."""
    return finished()


def test_a_run_leaves_everything_behind(whole):
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert all(
        line["loss"] > 0 and line["lr"] > 0 and line["grad_norm"] > 0 and line["examples_per_second"] > 0
        for line in lines
    )
    kept = yaml.safe_load((whole / "config.yaml").read_text())
    assert kept["network"]["width"] == 2
    assert Config.fromdict(kept).asdict() == kept
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == ["step-00000035", "step-00000040"]
    about = load_checkpoint(whole / "checkpoints").about
    assert about["config"] == kept
    assert about["levels"][0] == 160.0
    assert about["data"]["variance"] == pytest.approx(data.digits("train").moments[1])
    with Image.open(whole / "samples" / "step-00000040.png") as picture:
        assert picture.size[0] > 500


@pytest.mark.parametrize("launch", [two_processes, pytest.param(torchrun, marks=pytest.mark.slow)])
def test_two_processes_train_as_one(tmp_path, launch):
    """Two processes and two shards: the checkpoint of one process, to the bit; also where no device is named and there is no accelerator"""
    one, two = tmp_path / "one", tmp_path / "two"
    device = "cpu" if torch.accelerator.is_available() else "auto"
    options = ["--training.n_shards=2", "--training.n_steps=10"]
    assert main(tiny(one, *options)) == 0
    launch(*tiny(two, *options, f"--device={device}"))
    assert digest(one) == digest(two)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_configuration_is_one(path):
    """It parses, it is consistent, and its network can be built and called at the event that its data has"""
    from toyscore.build import build_network

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["train", "--config", str(path), "--print_config"]) == 0
    values = yaml.safe_load(printed.getvalue())
    config = Config.fromdict({k: v for k, v in values.items() if k not in ("folder", "resume", "config")})
    check(config)
    events = {
        "digits": [1, 8, 8],
        "mnist5k": [1, 28, 28],
        "cifar10": [3, 32, 32],
        "celeba": [3, 32, 32],
        "photos": [3, 32, 32],
        "toy": [2],
    }
    event = events[path.stem]
    network = build_network(config, {"event": event, "mean": 0.5, "variance": 0.1})
    with torch.no_grad():
        assert network(torch.rand(1, *event), config.noise.sigma_min).shape == (1, *event)


def test_a_run_of_an_earlier_version_is_read(tmp_path, whole):
    """A key that came later has its default, and going on is exact"""
    values = Config().asdict()
    older = values | {"training": {k: v for k, v in values["training"].items() if k != "compile"}}
    assert Config.fromdict(older) == Config()
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    place = run / "checkpoints" / "step-00000040"
    about = json.loads((place / "checkpoint.json").read_text())
    del about["about"]["config"]["training"]["channels_last"]
    text = json.dumps(about).encode()
    sums = (place / "SHA256SUMS").read_text().splitlines()
    (place / "checkpoint.json").write_bytes(text)
    (place / "SHA256SUMS").write_text(f"{sums[0]}\n{hashlib.sha256(text).hexdigest()}  checkpoint.json\n")
    assert said(*tiny(run), "--resume", "latest")[0] == 0


def without(run, *keys):
    """The run as a version left it that had no such keys: in its configuration and in its checkpoints"""
    values = yaml.safe_load((run / "config.yaml").read_text())
    for key in keys:
        group, name = key.split(".")
        del values[group][name]
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    for place in (run / "checkpoints").iterdir():
        change(place, lambda about: about["about"] | {"config": values})


def change(place, made):
    """What a checkpoint tells about itself, sealed again."""
    about = json.loads((place / "checkpoint.json").read_text())
    about["about"] = made(about)
    text = json.dumps(about).encode()
    sums = (place / "SHA256SUMS").read_text().splitlines()
    (place / "checkpoint.json").write_bytes(text)
    (place / "SHA256SUMS").write_text(f"{sums[0]}\n{hashlib.sha256(text).hexdigest()}  checkpoint.json\n")


def test_a_folder_that_was_mirrored_stays_so(tmp_path, monkeypatch):
    """A run of before ``data.flip`` goes on with mirrored pictures, to the same bits; a new one has them as they are"""
    monkeypatch.setattr(files, "cache_folder", lambda folder: folder or tmp_path / "cache")
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        values = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "pictures" / f"{i}.png")
    options = [f"--data.path={tmp_path / 'pictures'}", "--data.size=8", "--training.n_steps=9"]
    options += ["--config", "data: {name: null, dequantise: true}"]
    whole, plain, older = (tmp_path / name for name in ("whole", "plain", "older"))
    folder = {"whole": ["--data.flip=true"], "plain": [], "older": ["--data.flip=true"]}
    for name, more in folder.items():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(tiny(tmp_path / name, *options, *more)) == 0
        assert ("half of the images were mirrored (data.flip)" in printed.getvalue()) == bool(more)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(["summary", "--folder", str(tmp_path / name)]) == 0
        assert ("Half of the images are mirrored (data.flip)." in printed.getvalue()) == bool(more)
    assert digest(whole) == digest(older) != digest(plain)
    without(older, "data.flip")
    shutil.rmtree(older / "checkpoints" / "step-00000009")
    code, text = said("train", "--folder", older, "--resume", "latest", "--data.flip=false")
    assert code == 2
    assert "data.flip = false, but" in text
    assert "was made with true" in text
    assert said("train", "--folder", older, "--resume", "latest")[0] == 0
    assert digest(older) == digest(whole)
    assert yaml.safe_load((older / "config.yaml").read_text())["data"]["flip"] is True
    assert said("train", "--folder", plain, "--resume", "latest", "--data.flip=false")[0] == 0  # as it was
    assert said("train", "--folder", plain, "--resume", "latest", "--data.flip=true")[0] == 2


def test_a_run_that_kept_what_nothing_read_goes_on(tmp_path, whole):
    """Earlier versions took any key: it stays without effect, and another of its values is refused"""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["network"]["depth"] = 9
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    for place in (run / "checkpoints").iterdir():
        change(place, lambda about: about["about"] | {"config": values})
    code, text = said("train", "--folder", run, "--resume", "latest", "--network.depth=8")
    assert code == 2
    assert "network.depth = 8, but" in text
    for _ in range(2):
        assert said("train", "--folder", run, "--resume", "latest")[0] == 0
    assert digest(run) == digest(whole)
    assert load(run).config.network.depth == 3


def test_warnings_of_data_are_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "cache_folder", lambda folder: folder or tmp_path / "cache")
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "b.gif").write_bytes(b"")
    options = [f"--data.path={tmp_path / 'pictures'}", "--data.name=folder", "--data.size=8", "--training.n_steps=1"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, text = said(*tiny(tmp_path / "run", *options))
    assert code == 0
    told = [line for line in text.splitlines() if "pictures" in line]
    assert len(told) == 1
    assert re.fullmatch(
        r"toyscore: .*pictures: of 1 pictures and 1 other files: .*on white: 1; files left out, .*: 1 .gif", told[0]
    )


def test_help_tells_every_key_with_its_default():
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["train", "--help"]) == 0
    text = " ".join(printed.getvalue().split())
    for words in (
        "--training.lr LR the largest learning rate of the one-cycle schedule. (type: float, default: 0.002)",
        "--noise.sigma_min SIGMA_MIN the smallest. (type: float, default: 0.01)",
        "--sampling.step_size STEP_SIZE the paper's epsilon, the step at the last level, in units of the data squared",
    ):
        assert words in text, words


def test_help_comes_at_once():
    """Without torch, that is: a test of what is loaded, not of the clock"""
    code = "import sys; from toyscore.cli import main; main(['train', '--help']); print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_a_folder_in_use_or_with_another_run_is_refused(tmp_path, whole):
    code, text = said(*tiny(whole))
    assert code == 9
    assert "holds a run already: pass --resume latest to go on with it, or another --folder" in text
    with locked(tmp_path / "run"):
        child = forked(*tiny(tmp_path / "run"))
        assert ended(child) == 9
    code, text = said(*tiny(whole), "--resume", "latest", "--training.lr", "0.1")
    assert code == 2
    assert "training.lr = 0.1, but" in text
    assert "was made with 0.003: resuming is exact only with the same; pass that, or another --folder" in text
    assert yaml.safe_load((whole / "config.yaml").read_text())["training"]["lr"] == 0.003


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--noise.sigma_max=2", "noise.sigma_max = 2.0, but"),
        ("--data.dequantise=false", "data.dequantise = false, but"),
        ("--training.ema=0.5", "training.ema = 0.5, but"),
        ("--network.width=3", "network.width = 3, but"),
        ("--seed=5", "seed = 5, but the state was made with seed = 0: resuming is exact only with the same recipe"),
    ],
)
def test_going_on_with_anything_else_is_refused(whole, change, words):
    before = {p: p.read_bytes() for p in sorted(whole.rglob("*")) if p.is_file()}
    code, text = said(*tiny(whole, change), "--resume", "latest")
    assert code == 2
    assert words in text
    assert {p: p.read_bytes() for p in sorted(whole.rglob("*")) if p.is_file()} == before
    code, text = said(*tiny(whole), "--resume", str(whole / "checkpoints" / "step-00000035"))
    assert code == 9
    assert "step-00000040 is beyond step 35: remove what is later to go on from there" in text


def test_a_run_that_has_ended_is_not_begun_elsewhere(tmp_path, whole):
    """Where it is it ends again, and says which checkpoint is the last"""
    last = whole / "checkpoints" / "step-00000040"
    code, text = said(*tiny(tmp_path / "run"), "--resume", last)
    assert code == 2
    assert (
        f"{last} is of the last of training.n_steps = 40: nothing is left to train; draw with toyscore sample" in text
    )
    assert not (tmp_path / "run").exists()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(tiny(whole, "--resume", "latest")) == 0
    assert f"trained: {last}; draw with" in printed.getvalue()


def test_other_pictures_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "cache_folder", lambda folder: folder or tmp_path / "cache")
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    options = [f"--data.path={tmp_path / 'pictures'}", "--data.name=folder", "--data.size=8", "--training.n_steps=7"]
    assert main(tiny(tmp_path / "run", *options)) == 0
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tmp_path / "pictures" / "2.png")
    code, text = said("train", "--folder", tmp_path / "run", "--resume", "latest")
    assert code == 2
    assert "the data are not those of" in text


def test_a_run_that_ended_before_its_first_checkpoint_can_begin_anew(tmp_path):
    run = tmp_path / "run"
    child = forked(*tiny(run))
    wait(lambda: (run / "log.jsonl").exists())
    os.kill(child, signal.SIGKILL)
    ended(child)
    assert said(*tiny(run, "--training.n_steps=2"))[0] == 0


def test_what_python_saved_is_no_run(tmp_path, whole):
    from toyscore.train import save_checkpoint

    state = load_checkpoint(whole).state
    save_checkpoint(tmp_path / "run" / "checkpoints", state)
    code, text = said(*tiny(tmp_path / "run"), "--resume", "latest")
    assert code == 8
    assert "was not saved by toyscore train: resume it in Python" in text


def test_the_average_is_what_is_loaded(whole):
    state = load_checkpoint(whole).state["model"]
    weight = load(whole).network.body.end_conv.weight
    assert torch.equal(weight, state["average.body.end_conv.weight"])
    assert not torch.equal(weight, state["model.body.end_conv.weight"])


def test_too_little_memory_is_named(tmp_path):
    from toyscore.cli.errors import explain

    resource = pytest.importorskip("resource", reason="Windows has no limits of processes")
    child = os.fork()
    if child == 0:
        code = 99
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
            with open(tmp_path / "errors", "w") as errors, contextlib.redirect_stderr(errors):
                code = main(tiny(tmp_path / "run", "--training.batch_size=2000000"))
        finally:
            os._exit(code)
    assert ended(child) == 5
    assert "too little memory for this run: raise training.n_shards" in (tmp_path / "errors").read_text()

    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ):
        code, text = explain(error)
        assert code == 5
        assert "raise training.n_shards" in text
        keys = {f"{group}.{f.name}" for group, kind in GROUPS.items() for f in fields(kind)}
        options = {f"--{f.name}" for f in fields(Sample)}
        assert set(re.findall(r"--\w+|\w+\.\w+", text)) <= keys | options


def test_an_unreachable_download_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "cache_folder", lambda folder: folder or tmp_path)
    monkeypatch.setattr(named, "_CIFAR", ("http://127.0.0.1:9/cifar-10-binary.tar.gz", "0" * 64))
    code, text = said("train", "--config", ROOT / "configs" / "cifar10.yaml", "--folder", tmp_path / "run")
    assert code == 6
    assert "cannot be fetched (ConnectionError): check the network" in text


def test_what_nobody_foresaw_says_so_and_shows_itself_on_demand(monkeypatch):
    from toyscore import cli

    def broken(_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(cli, "_run", broken)
    code, text = said("train")
    assert code == 1
    assert "ZeroDivisionError: by zero; this should not happen: run again with --debug" in text
    with pytest.raises(ZeroDivisionError):
        main(["train", "--debug"])


def test_the_digits_model_is_what_the_readme_says():
    """Small, made by the committed configuration in the time stated, and better than the best Gaussian at every level"""
    from toyscore.losses import denoising_score_matching
    from toyscore.pretrained import digits

    found = digits()
    assert (
        sum(p.stat().st_size for p in (ROOT / "toyscore" / "weights" / "digits").rglob("*") if p.is_file()) < 5_000_000
    )
    values = yaml.safe_load((ROOT / "configs" / "digits.yaml").read_text())
    stored = found.about["config"]
    assert all(stored[group][key] == value for group in values for key, value in values[group].items())
    assert found.about["seconds"] < 360
    assert f"the command that made it: {found.about['seconds']:.0f} s on 2 cores" in (ROOT / "README.md").read_text()
    x = data.digits("held-out").sample(200, generator=torch.Generator().manual_seed(0))
    mean, variance = data.digits("train").moments
    for sigma, share in ((0.01, 0.95), (0.1, 0.4), (0.5, 0.36), (1.0, 0.5), (100.0, 0.9)):
        ours, gaussian = (
            float(denoising_score_matching(score, x, sigma, generator=torch.Generator().manual_seed(1)).mean())
            for score in (found.network, lambda y, s: -(y - mean) / (variance + s**2))
        )
        assert ours < share * gaussian


def test_the_photos_model_knows_photographs():
    """Small, made by the committed configuration, and better than the best linear guess of a pixel at every level"""
    from toyscore.losses import denoising_score_matching
    from toyscore.pretrained import photos

    found = photos()
    assert (
        sum(p.stat().st_size for p in (ROOT / "toyscore" / "weights" / "photos").rglob("*") if p.is_file()) < 5_000_000
    )
    values = yaml.safe_load((ROOT / "configs" / "photos.yaml").read_text())
    stored = found.about["config"]
    assert all(stored[group][key] == value for group in values for key, value in values[group].items())
    x = data.photos(32).sample(16, generator=torch.Generator().manual_seed(5))
    mean, variance = found.data["mean"], found.data["variance"]
    for sigma, share in ((0.05, 0.5), (0.3, 0.3), (1.0, 0.3), (10.0, 0.9)):
        ours, gaussian = (
            float(denoising_score_matching(score, x, sigma, generator=torch.Generator().manual_seed(1)).mean())
            for score in (found.network, lambda y, s: -(y - mean) / (variance + s**2))
        )
        assert ours < share * gaussian, (sigma, ours / gaussian)
