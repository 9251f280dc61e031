"""The state of a run on disk: bit for bit, whole or not at all, and damage noticed."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from helpers import seeded
from toyscore.distributions import two_modes
from toyscore.losses import at_random_sigma, denoising_score_matching
from toyscore.models import EMA, MLP
from toyscore.noise import levels
from toyscore.train import CheckpointError, fit, latest_checkpoint, load_checkpoint, save_checkpoint

SIGMAS = [5.0, 1.0, 0.2]


def network(seed=0):
    torch.manual_seed(seed)
    return EMA(MLP(width=4, sigmas=SIGMAS), 0.9)


def steps(model, n_steps=12, state=None):
    objective = at_random_sigma(denoising_score_matching, levels(SIGMAS))
    return fit(model, two_modes(), objective, n_steps=n_steps, batch_size=8, state=state)


def state_at(step):
    return next(s for s in steps(network()) if s.step == step).state()


def same(a, b):
    pairs = [(a["model"], b["model"]), *zip(a["optimizer"], b["optimizer"], strict=True)]
    return a["step"] == b["step"] and all(
        x.keys() == y.keys() and all(x[k].dtype == y[k].dtype and torch.equal(x[k], y[k]) for k in x) for x, y in pairs
    )


def in_child(work):
    """Run ``work`` in a forked process; its exit status (minus the signal that ended it)."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work() or 0
        finally:
            os._exit(code)
    return child


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    state = state_at(5)
    path = save_checkpoint(tmp_path / "new" / "folder", state, {"levels": SIGMAS})
    found = load_checkpoint(path)
    assert same(found.state, state)
    assert found.state["recipe"] == state["recipe"]
    assert found.about["levels"] == SIGMAS
    assert found.about["versions"]["torch"] == torch.__version__
    assert same(load_checkpoint(tmp_path / "new" / "folder").state, state)  # the latest of the folder


def test_moments_of_many_parameters_stay_with_theirs(tmp_path):
    """More than ten, so that the order of their numbers is not that of their names"""
    model = MLP(width=3, depth=6, sigmas=SIGMAS)
    state = next(steps(model)).state()
    assert len(state["optimizer"]) > 10
    assert same(load_checkpoint(save_checkpoint(tmp_path, state)).state, state)


def test_going_on_from_disk_gives_the_same_bits(tmp_path):
    whole = network()
    list(steps(whole))
    path = save_checkpoint(tmp_path, state_at(7))
    other = network(seed=9)
    list(steps(other, state=load_checkpoint(path).state))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert int(other.n_updates) == 12


def test_the_previous_one_is_kept_and_older_ones_go(tmp_path):
    for s in steps(network(), n_steps=5):
        save_checkpoint(tmp_path, s.state())
        expected = [f"step-{i:08d}" for i in range(max(1, s.step - 1), s.step + 1)]
        assert sorted(p.name for p in tmp_path.iterdir()) == expected
    assert latest_checkpoint(tmp_path).name == "step-00000005"


def test_a_step_below_others_is_saved_and_they_stay(tmp_path):
    """A run that goes on from an older step must not lose what it saves"""
    state = state_at(1)
    for step in (10, 12, 100_000_000, 2, 3, 4):
        assert save_checkpoint(tmp_path, state | {"step": step}).exists()
    assert sorted(int(p.name[5:]) for p in tmp_path.iterdir()) == [3, 4, 12, 100_000_000]
    assert latest_checkpoint(tmp_path).name == "step-100000000"


def test_steps_of_nine_digits_come_after_those_of_eight(tmp_path):
    """By number, not by name: 99,999,999 before 100,000,000"""
    state = state_at(1)
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, state | {"step": step})
    assert latest_checkpoint(tmp_path).name == "step-100000000"
    assert load_checkpoint(tmp_path).state["step"] == 100_000_000


def test_saving_the_same_again_touches_nothing(tmp_path):
    path = save_checkpoint(tmp_path, state_at(1))
    before = {file.name: file.stat().st_ino for file in path.iterdir()}
    save_checkpoint(tmp_path, state_at(1))
    assert {file.name: file.stat().st_ino for file in path.iterdir()} == before
    assert len(list(tmp_path.iterdir())) == 1


def test_an_old_one_that_cannot_be_removed_stops_nothing(tmp_path, monkeypatch):
    def held(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(39, "Directory not empty", str(path))

    for step in (1, 2):
        save_checkpoint(tmp_path, state_at(1) | {"step": step})
    monkeypatch.setattr("shutil.rmtree", held)
    assert save_checkpoint(tmp_path, state_at(1) | {"step": 3}).exists()


def test_sums_are_those_of_the_usual_tool(tmp_path):
    path = save_checkpoint(tmp_path, state_at(1))
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=path, check=True, capture_output=True)
    listed = [line.split()[1] for line in (path / "SHA256SUMS").read_text().splitlines()]
    assert sorted([*listed, "SHA256SUMS"]) == sorted(p.name for p in path.iterdir())


def test_two_saves_of_one_state_give_the_same_bytes(tmp_path):
    a, b = (save_checkpoint(tmp_path / name, state_at(3)) for name in "ab")
    for file in a.iterdir():
        assert file.read_bytes() == (b / file.name).read_bytes()


def save_forever(folder, state):
    step = max([int(p.name[5:]) for p in folder.glob("step-*")], default=0)
    while True:
        step += 1
        save_checkpoint(folder, state | {"step": step})


def test_killed_at_any_time_a_whole_checkpoint_is_left(tmp_path):
    """200 kills at random times while saving again and again, each run going on where the one before was killed"""
    state = state_at(1)
    save_checkpoint(tmp_path, state)
    moments, kills, before = random.Random(0), 0, 1
    while kills < 200:
        child = in_child(lambda: save_forever(tmp_path, state))
        time.sleep(0.02 + 0.02 * moments.random())
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        kills += 1
        step = load_checkpoint(tmp_path).state["step"]
        assert step >= before
        before = step
    assert before > 200, "the children saved too seldom for the kills to mean anything"


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "a step that is there"])
def test_killed_before_each_of_its_calls_a_whole_checkpoint_is_left(tmp_path, again):
    """Before every opening, making, renaming and removing of a save, the renames that put it in place among them"""
    state = state_at(1)

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
        save_checkpoint(folder, state | {"step": 3 if again else 4}, {"again": again})

    died = []
    for at in range(1, 100):
        folder = tmp_path / str(at)
        for step in (1, 2, 3):
            save_checkpoint(folder, state | {"step": step})
        if ended(in_child(lambda at=at, folder=folder: save_and_die(at, folder))) == 0:
            break
        died.append(at)
        found = load_checkpoint(folder).state
        assert found["step"] in (2, 3, 4)
        assert same(found | {"step": 1}, state)
        save_checkpoint(folder, state | {"step": 5})  # and the next save works, and leaves nothing behind
        assert load_checkpoint(folder).state["step"] == 5
        assert len(list(folder.iterdir())) == 2
    assert len(died) > 8


@pytest.mark.parametrize("damage", ["flip", "truncation"])
def test_damage_is_always_noticed(tmp_path, damage):
    """2,000 flipped bits and 500 truncations over the three files: one clear error, naming file, cause and way out"""
    state = state_at(1)
    good, bad = (save_checkpoint(tmp_path, state | {"step": step}) for step in (1, 2))
    contents = {file.name: file.read_bytes() for file in bad.iterdir()}
    sizes = [len(c) for c in contents.values()]
    chance = random.Random(0)
    for _ in range(2000 if damage == "flip" else 500):
        name = chance.choices(list(contents), sizes)[0] if chance.random() < 0.5 else chance.choice(list(contents))
        content = bytearray(contents[name])
        if damage == "flip":
            place = chance.randrange(len(content))
            content[place] ^= 1 << chance.randrange(8)
        else:
            content = content[: chance.randrange(len(content))]
        (bad / name).write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(tmp_path)
        (bad / name).write_bytes(contents[name])
        text = str(error.value)
        assert str(bad / name) in text
        assert "is damaged" in text
        assert f"the newest whole one is {good}: resume from that" in text
    assert load_checkpoint(tmp_path).state["step"] == 2


def test_missing_and_foreign_files_are_named(tmp_path):
    path = save_checkpoint(tmp_path, state_at(1))
    (path / "tensors.safetensors").rename(path / "elsewhere")
    with pytest.raises(
        CheckpointError, match=r"tensors.safetensors cannot be read: No such file.*no other one is whole"
    ):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        latest_checkpoint(tmp_path / "nowhere")
    with pytest.raises(
        CheckpointError, match=r"nowhere holds no checkpoint: pass a run folder, its checkpoints, or a step"
    ):
        load_checkpoint(tmp_path / "nowhere")
    (path / "elsewhere").rename(path / "tensors.safetensors")
    about = json.loads((path / "checkpoint.json").read_text())
    for text, words in (
        (json.dumps(about | {"format": 9}), r"has format 9: this version reads 1"),
        ("[", r"is as it was written, but it is no checkpoint"),
        ("[]", r"no checkpoint"),
        (json.dumps({"format": 1}), r"no checkpoint"),
    ):
        (path / "checkpoint.json").write_text(text)
        sums = subprocess.run(
            ["sha256sum", "tensors.safetensors", "checkpoint.json"], cwd=path, check=True, capture_output=True
        ).stdout
        (path / "SHA256SUMS").write_bytes(sums)
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint(path)


def test_a_full_disk_loses_nothing(tmp_path):
    """Files limited to a few bytes: the save fails with the system's words, and the one before still loads"""
    state = state_at(1)
    path = save_checkpoint(tmp_path, state)

    def save_in_little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        with contextlib.suppress(OSError):
            save_checkpoint(tmp_path, state | {"step": 2})
            return 1
        return 7

    assert ended(in_child(save_in_little_room)) == 7
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert same(load_checkpoint(tmp_path).state, state)


def test_a_state_of_another_network_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, state_at(3))
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="belongs to another network"):
        steps(EMA(MLP(width=5, sigmas=SIGMAS), 0.9), state=load_checkpoint(path).state)


def test_every_dtype_and_layout_survives(tmp_path):
    x = torch.randn(4, 6, generator=seeded())
    tensors = {
        "transposed": x.t(),
        "half": x.half(),
        "bfloat16": x.bfloat16(),
        "double": x.double(),
        "count": torch.tensor(7),
        "channels": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "nothing": torch.zeros(0, 3),
    }
    found = load_checkpoint(
        save_checkpoint(tmp_path, {"step": 1, "recipe": {}, "model": tensors, "optimizer": []})
    ).state
    for name, value in tensors.items():
        assert found["model"][name].dtype == value.dtype
        assert torch.equal(found["model"][name], value)
