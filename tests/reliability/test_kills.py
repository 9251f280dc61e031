"""A process that is killed leaves a checkpoint that loads, and nothing that looks whole and is not."""

import hashlib
import json
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest

import syscalls
from runs import at_each_moment, at_touch, contents, ended, forked, in_child, writing
from states import same, state_at
from toyscore.cli import main
from toyscore.data.files import stored
from toyscore.train import load_checkpoint, save_checkpoint

WRITTEN = "kinds of writing, of checkpoints and caches, killed before each of their system calls: nothing half was left"


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


@pytest.fixture
def traced():
    if reason := syscalls.why_not():
        pytest.skip(reason)


def saved(folder, steps, state):
    folder.mkdir()
    for step in steps:
        save_checkpoint(folder, state | {"step": step})
    return folder


@pytest.mark.parametrize("case", SAVES)
def test_killed_before_each_of_its_calls_a_whole_checkpoint_is_left(tmp_path, case):
    """Before every opening, making, renaming and removing of a save, as Python reports them"""
    state, (there, step) = state_at(1), SAVES[case]
    before = saved(tmp_path / "before", there, state)

    def cut(at):
        folder = shutil.copytree(before, tmp_path / str(at))

        def save():
            at_touch(at, folder, signal.SIGKILL)
            save_checkpoint(folder, state | {"step": step}, {"again": True})

        code = ended(in_child(save))
        check_left(folder, state, there)
        return code

    at_each_moment(cut, more_than=8)


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("case", SAVES)
def test_killed_before_each_system_call_a_whole_checkpoint_is_left(tmp_path, case, measured):
    """Before every call of a save that could change the disk: writing, flushing, renaming, ..."""
    state, (there, step) = state_at(1), SAVES[case]
    before, met = saved(tmp_path / "before", there, state), set()

    def cut(at):
        folder = shutil.copytree(before, tmp_path / str(at))
        code, call = syscalls.killed_at(
            at, lambda: save_checkpoint(folder, state | {"step": step}, {"again": True}) and None
        )
        met.add(call)
        check_left(folder, state, there)
        return code

    at_each_moment(cut, more_than=20)
    assert met >= {"write", "fsync", "rename", "mkdir"}, "the calls of a save"
    measured.count(WRITTEN)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["numbers", "animate", "export"])
def test_a_killed_command_leaves_no_half_of_its_files(tmp_path, command, measured):
    """Each file that is there afterwards is as the whole command writes it; and the next run gives all of them"""
    assert main(writing(command, tmp_path / "whole" / "to")) == 0
    whole = contents(tmp_path / "whole", hidden=False)

    def cut(at):
        folder = tmp_path / str(at)
        kill = lambda: at_touch(at, folder, signal.SIGKILL)  # noqa: E731
        code = ended(forked(*writing(command, folder / "to"), before=kill))
        left = contents(folder, hidden=False)
        assert left.items() <= whole.items()
        if code == 0:
            assert left == whole
        elif at % 4 == 1:
            assert main(writing(command, folder / "to")) == 0
            assert contents(folder, hidden=False) == whole
        return code

    at_each_moment(cut, more_than=3)
    measured.count("commands killed before each touch of a file, no half of a file was left")


@pytest.mark.slow
@pytest.mark.usefixtures("little_to_judge")
def test_a_killed_evaluation_is_never_half_of_two(tmp_path, measured):
    """Numbers beside the table of another evaluation say so, and a card tells neither; they come last"""
    for seed in (1, 2):
        assert main([*writing("evaluate", tmp_path / f"seed{seed}"), f"--seed={seed}"]) == 0
    first, second = (contents(tmp_path / f"seed{seed}", hidden=False) for seed in (1, 2))
    assert all(first[name] != second[name] for name in ("evaluation.md", "evaluation.json", "samples.png"))

    def cut(at):
        folder = shutil.copytree(tmp_path / "seed1", tmp_path / str(at))
        kill = lambda: at_touch(at, folder, signal.SIGKILL)  # noqa: E731
        code = ended(forked(*writing("evaluate", folder), "--seed=2", before=kill))
        left = contents(folder, hidden=False)
        assert all(content in (first[name], second[name]) for name, content in left.items())
        belong = any(
            all(left[name] == e[name] for name in ("evaluation.md", "evaluation.json")) for e in (first, second)
        )
        table = hashlib.sha256(left["evaluation.md"]).hexdigest()
        assert (json.loads(left["evaluation.json"])["facts"]["table"] == table) == belong
        if code == 0:
            assert left == second
        return code

    at_each_moment(cut, more_than=8)
    measured.count("commands killed before each touch of a file, no half of a file was left")


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_cache_that_was_killed_while_it_was_written_is_written_anew(tmp_path, measured):
    """Decoded pictures: where the index stands, the arrays are whole"""
    arrays = {"values": np.arange(60_000, dtype=np.int32), "labels": np.arange(7)}

    def cut(at):
        folder = tmp_path / str(at)
        code, _ = syscalls.killed_at(at, lambda: stored("x", lambda: arrays, folder) and None)
        found = stored("x", lambda: arrays, folder)
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
        return code

    at_each_moment(cut, more_than=10)
    measured.count(WRITTEN)
