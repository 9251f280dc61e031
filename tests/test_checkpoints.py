"""The state of a run on disk: bit for bit, whole or not at all, and damage noticed."""

import subprocess
from unittest.mock import Mock

import pytest
import torch

from helpers import seeded
from states import SIGMAS, network, same, state_at, steps
from toyscore.models import MLP
from toyscore.train import latest_checkpoint, load_checkpoint, save_checkpoint


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


def test_a_parameter_without_a_gradient_has_no_moments(tmp_path):
    """From memory and from disk, wherever it stands among the others, to the same bits"""

    class Idle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.network = torch.nn.Parameter(torch.ones(2)), network().model
            self.last = torch.nn.Linear(1, 1, bias=False)

        def forward(self, x, sigma):
            return self.network(x, sigma)

    states = [s.state() for s in steps(Idle(), 6)]
    assert [i for i, moments in enumerate(states[2]["optimizer"]) if not moments] == [
        0,
        len(states[2]["optimizer"]) - 1,
    ]
    for state in (states[2], load_checkpoint(save_checkpoint(tmp_path, states[2])).state):
        *_, last = steps(Idle(), 6, state=state)
        assert same(last.state(), states[-1])


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


def test_a_save_that_fails_takes_back_its_own_alone_and_tells_why(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, state_at(1))

    def full(path):
        (tmp_path / ".step-00000009.tmp").mkdir()  # another's, begun meanwhile
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("toyscore.train.checkpoints._flush", full)
    monkeypatch.setattr("toyscore.train.checkpoints.shutil.rmtree", refused := Mock(side_effect=OSError("busy")))
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, state_at(1) | {"step": 2})
    assert [call.args[0].name for call in refused.call_args_list] == [".step-00000002.tmp"]


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


@pytest.mark.posix("sha256sum")
def test_sums_are_those_of_the_usual_tool(tmp_path):
    path = save_checkpoint(tmp_path, state_at(1))
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=path, check=True, capture_output=True)
    listed = [line.split()[1] for line in (path / "SHA256SUMS").read_text().splitlines()]
    assert sorted([*listed, "SHA256SUMS"]) == sorted(p.name for p in path.iterdir())


def test_two_saves_of_one_state_give_the_same_bytes(tmp_path):
    a, b = (save_checkpoint(tmp_path / name, state_at(3)) for name in "ab")
    for file in a.iterdir():
        assert file.read_bytes() == (b / file.name).read_bytes()


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
