"""A process that is killed leaves a checkpoint that loads, and nothing that looks whole and is not."""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import syscalls
from runs import ROOT, ended, in_child
from states import same, state_at
from toyscore import evaluation
from toyscore.cli import main
from toyscore.data.files import stored
from toyscore.train import load_checkpoint, save_checkpoint

WEIGHTS = ROOT / "toyscore" / "weights" / "digits"
FEW = ["--sampling.n_levels=2", "--sampling.n_steps_each=1", "--samples=6", "--device=cpu", "--threads=1"]


def save_forever(folder, state, told):
    step = max([int(p.name[5:]) for p in folder.glob("step-*")], default=0)
    while True:
        step += 1
        save_checkpoint(folder, state | {"step": step})
        os.write(told, b".")


@pytest.mark.slow
def test_killed_at_any_time_a_whole_checkpoint_is_left(tmp_path, measured):
    """200 kills at random times while saving again and again, each run going on where the one before was killed"""
    state = state_at(1)
    save_checkpoint(tmp_path, state)
    moments, before = random.Random(0), 1
    for _ in range(200):
        heard, told = os.pipe()
        child = in_child(lambda told=told: save_forever(tmp_path, state, told))
        os.close(told)
        assert os.read(heard, 1)  # it has saved one, and is at the next
        time.sleep(0.02 * moments.random())
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        os.close(heard)
        step = load_checkpoint(tmp_path).state["step"]
        assert step > before
        before = step
        measured.count("kills at random moments, each left a checkpoint that loads")


# name -> the steps that are in the folder, and the one that is saved
SAVES = {
    "the first": ((), 4),
    "a new step": ((3,), 4),
    "a step beside two others": ((2, 3), 4),
    "a step that is there": ((2, 3), 3),
    "the only step there is": ((3,), 3),
}


def check_left(folder, state, there):
    """What a killed save may leave; then the next one works, and only the usual is left."""
    if there:
        found = load_checkpoint(folder).state
        assert found["step"] in {there[-1], 4}, "the newest or the one before"
        assert same(found | {"step": 1}, state)
    save_checkpoint(folder, state | {"step": 5})
    assert load_checkpoint(folder).state["step"] == 5
    left = sorted(p.name for p in folder.iterdir())
    assert left[-1:] == ["step-00000005"]
    assert len(left) <= 2
    assert all(same(load_checkpoint(folder / name).state | {"step": 1}, state) for name in left)


@pytest.mark.parametrize("case", SAVES)
def test_killed_before_each_of_its_calls_a_whole_checkpoint_is_left(tmp_path, case):
    """Before every opening, making, renaming and removing of a save, as Python reports them"""
    state, (there, step) = state_at(1), SAVES[case]

    def save_and_die(at, folder):
        seen = []

        def watch(event, args):
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree") and str(
                folder
            ) in str(args):
                seen.append(event)
                if len(seen) == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        save_checkpoint(folder, state | {"step": step}, {"again": True})

    before = tmp_path / "before"
    before.mkdir()
    for old in there:
        save_checkpoint(before, state | {"step": old})
    for at in range(1, 100):
        folder = shutil.copytree(before, tmp_path / str(at))
        if ended(in_child(lambda at=at, folder=folder: save_and_die(at, folder))) == 0:
            break
        check_left(folder, state, there)
    assert at > 8


@pytest.fixture
def traced():
    if reason := syscalls.why_not():
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("case", SAVES)
def test_killed_before_each_system_call_a_whole_checkpoint_is_left(tmp_path, case, measured):
    """Before every call of a save that could change the disk: writing, flushing, renaming, ..."""
    state, (there, step) = state_at(1), SAVES[case]
    before, met = tmp_path / "before", set()
    before.mkdir()
    for old in there:
        save_checkpoint(before, state | {"step": old})
    for at in range(1, 400):
        folder = shutil.copytree(before, tmp_path / str(at))

        def save(folder=folder):
            save_checkpoint(folder, state | {"step": step}, {"again": True})

        call = syscalls.killed_at(at, save)
        if call is None:
            break
        met.add(call)
        check_left(folder, state, there)
    assert at > 20
    assert met >= {syscalls.CALLS[name] for name in ("write", "fsync", "rename", "mkdir")}, "the calls of a save"
    measured.count("kinds of saves killed before each of their system calls")


# name -> command, without the place to write to; its option for that; what a whole result is
WRITERS = {
    "sample": (["sample", *FEW], "--out={}/x.npy"),
    "animate": (["animate", *FEW, "--frames=2"], "--out={}/x.gif"),
    "export": (["export", f"--folder={WEIGHTS}"], "--to={}/model"),
}


def contents(folder):
    """What is not hidden."""
    paths = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: p.read_bytes() for name, p in paths.items() if not any(w[0] == "." for w in Path(name).parts)}


def dies_at(at, root, work):
    """Run ``work`` in this process, killed before its ``at``-th touch of files under ``root``."""
    seen = []

    def watch(event, args):
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and str(root) in str(args):
            seen.append(event)
            if len(seen) == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return work()


@pytest.mark.slow
@pytest.mark.parametrize("command", WRITERS)
def test_a_killed_command_leaves_no_half_of_its_files(tmp_path, command, measured):
    """Each file that is there afterwards is as the whole command writes it; and the next run gives all of them"""
    words, place = WRITERS[command]
    assert main([*words, place.format(tmp_path / "whole")]) == 0
    whole = contents(tmp_path / "whole")
    for at in range(1, 60):
        folder = tmp_path / str(at)
        child = in_child(lambda at=at, f=folder: dies_at(at, f, lambda: main([*words, place.format(f)])))
        code = ended(child)
        assert contents(folder).items() <= whole.items()
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if at % 4 == 1:
            assert main([*words, place.format(folder)]) == 0
            assert contents(folder) == whole
    assert at > 3
    measured.count("commands killed before each touch of a file, no half of a file was left")


@pytest.mark.slow
def test_a_killed_evaluation_is_never_half_of_two(tmp_path, monkeypatch, measured):
    """The numbers are gone before another table comes to stand beside them, and come last themselves"""
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    facts = {"n_calls": 1, "n_training": 2, "features": "none", "sampling": {}}

    def judged(network, samples, config, *, seed, inception):
        return evaluation.Evaluation([], [], 6, facts | {"seed": seed}, x + 0.01 * seed, x, {})

    monkeypatch.setattr(evaluation, "evaluate", judged)
    monkeypatch.setattr("toyscore.cli.evaluation.draw_samples", lambda *args, **options: x)
    words = ["evaluate", *FEW]
    for seed in (1, 2):
        assert main([*words, f"--seed={seed}", f"--out={tmp_path / f'seed{seed}'}"]) == 0
    first, second = (contents(tmp_path / f"seed{seed}") for seed in (1, 2))
    assert all(first[name] != second[name] for name in ("evaluation.md", "evaluation.json", "samples.png"))
    for at in range(1, 60):
        folder = shutil.copytree(tmp_path / "seed1", tmp_path / str(at))
        child = in_child(lambda at=at, f=folder: dies_at(at, f, lambda: main([*words, "--seed=2", f"--out={f}"])))
        code, left = ended(child), contents(folder)
        assert all(content in (first[name], second[name]) for name, content in left.items())
        if "evaluation.json" in left:
            assert left in (first, second)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert at > 8
    assert left == second
    measured.count("commands killed before each touch of a file, no half of a file was left")


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_cache_that_was_killed_while_it_was_written_is_written_anew(tmp_path, measured):
    """Decoded pictures: where the index stands, the arrays are whole"""
    arrays = {"values": np.arange(60_000, dtype=np.int32), "labels": np.arange(7)}
    for at in range(1, 200):
        folder = tmp_path / str(at)
        done = syscalls.killed_at(at, lambda folder=folder: stored("x", lambda: arrays, folder) and None) is None
        found = stored("x", lambda: arrays, folder)
        assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
        if done:
            break
    assert at > 10
    measured.count("caches killed before each of their system calls, written anew")
