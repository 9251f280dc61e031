"""Ctrl-C and SIGTERM end every command in order, and no command leaves half of a file."""

import os
import random
import signal
import sys
import threading
import time

import pytest
import torch

from runs import ROOT, digest, ended, forked, in_child, said, tiny, wait
from states import same, state_at
from toyscore import evaluation
from toyscore.cli import main
from toyscore.cli.signals import Stop
from toyscore.train import load_checkpoint, save_checkpoint

FEW = ["--sampling.n_levels=2", "--sampling.n_steps_each=1", "--samples=6", "--device=cpu", "--threads=1"]
BOTH = [signal.SIGINT, signal.SIGTERM]


def at_touch(number, folder, *numbers):
    """From now on, this process gets the first of ``numbers`` at the ``number``-th touch of files below a folder, others at the next."""
    seen = []

    def watch(event, args):
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and str(folder) in str(args):
            seen.append(event)
            if 0 <= len(seen) - number < len(numbers):
                os.kill(os.getpid(), numbers[len(seen) - number])

    sys.addaudithook(watch)


def n_lines(run):
    return (run / "log.jsonl").read_text().count("\n") if (run / "log.jsonl").exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [*BOTH, signal.SIGHUP])
def test_a_signal_saves_and_ends_with_its_own_code(tmp_path, whole, number, measured):
    """At a random step; going on gives the same bits"""
    run = tmp_path / "run"
    child = forked(*tiny(run), errors=tmp_path / "errors")
    at = random.Random(int(number)).randint(2, 30)
    wait(lambda: n_lines(run) >= at)
    os.kill(child, number)
    assert ended(child) == 128 + number
    stopped = load_checkpoint(run / "checkpoints").state["step"]
    assert stopped == n_lines(run)
    words = (tmp_path / "errors").read_text()
    assert f"stopped at step {stopped}, saved in {run}" in words
    assert "--resume latest" in words
    assert "Traceback" not in words
    assert said(*tiny(run), "--resume", "latest")[0] == 0
    assert digest(run) == digest(whole)
    measured.count("signals during training, the run saved and resumed to the same bits")


def test_a_second_signal_does_not_wait(tmp_path):
    """A step that takes a minute: the first signal waits for its end, the second does not"""
    run = tmp_path / "run"
    child = forked(*tiny(run, "--training.batch_size=40000", "--training.n_shards=1"))
    wait(lambda: (run / "log.jsonl").exists())
    time.sleep(0.5)
    os.kill(child, signal.SIGTERM)
    time.sleep(0.3)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGINT)
    assert ended(child) == 130


def test_a_signal_while_drawing_samples_is_heard(tmp_path):
    run = tmp_path / "run"
    child = forked(*tiny(run, "--training.n_steps=2", "--sampling.n_steps_each=100000"))
    wait(lambda: list((run / "checkpoints").glob("step-00000002")))
    os.kill(child, signal.SIGTERM)
    assert ended(child) == 143
    assert load_checkpoint(run).state["step"] == 2


@pytest.mark.slow
def test_a_signal_while_a_checkpoint_is_written_waits_for_its_end(tmp_path, measured):
    """At touches of the files of a checkpoint, from its first to its last: it is whole, and nothing lies beside it"""
    for at in range(1, 12, 2):
        run = tmp_path / str(at)
        hook = lambda at=at, run=run: at_touch(at, run / "checkpoints", signal.SIGTERM)  # noqa: E731
        assert ended(forked(*tiny(run), before=hook)) == 143
        assert [p.name for p in (run / "checkpoints").iterdir() if p.name[0] == "."] == []
        assert load_checkpoint(run).state["step"] == n_lines(run)
        measured.count("signals while a checkpoint was written, all of them whole")


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the only step there is"])
def test_a_stopped_save_is_taken_back(tmp_path, number, again, measured):
    """In Python, where Ctrl-C is raised anywhere: what was there loads, and nothing lies beside it"""
    state = state_at(1)
    for at in range(1, 60):
        folder = tmp_path / str(at)
        save_checkpoint(folder, state)

        def work(at=at, folder=folder):
            signal.signal(number, signal.default_int_handler)
            at_touch(at, folder, number)
            try:
                save_checkpoint(folder, state | {"step": 1 if again else 2}, {"again": again})
            except KeyboardInterrupt:
                return 7
            return 0

        code = ended(in_child(work))
        found = load_checkpoint(folder)
        assert same(found.state | {"step": 1}, state)
        assert [p.name for p in folder.iterdir() if p.name[0] == "."] == []
        if code == 0:
            break
        assert code == 7
    assert at > 8
    measured.count("kinds of saves stopped at each touch of a file, all taken back or whole")


COMMANDS = {
    "sample": (["sample", *FEW, "--out={}/x.png"], {"x.png"}),
    "numbers": (["sample", *FEW, "--out={}/x.npy"], {"x.npy"}),
    "animate": (["animate", *FEW, "--frames=2", "--out={}/x.gif"], {"x.gif"}),
    "export": (
        ["export", f"--folder={ROOT / 'toyscore' / 'weights' / 'digits'}", "--to={}"],
        {"step-00001000", "README.md"},
    ),
    "evaluate": (
        ["evaluate", *FEW, "--out={}"],
        {".lock", "evaluation.json", "evaluation.md", "samples.png", "nearest.png"},
    ),
}


@pytest.fixture
def little_to_judge(monkeypatch):
    """Samples and their judgement at no cost."""
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    facts = {"n_calls": 1, "n_training": 2, "features": "none", "sampling": {}, "seed": 0}
    monkeypatch.setattr(evaluation, "evaluate", lambda *a, **k: evaluation.Evaluation([], [], 6, facts, x, x, {}))
    for module in ("sampling", "evaluation"):
        monkeypatch.setattr(f"toyscore.cli.{module}.draw_samples", lambda *a, **k: x)


def names(folder):
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


@pytest.mark.slow
@pytest.mark.usefixtures("little_to_judge")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_while_files_are_written_leaves_no_half_of_one(tmp_path, command, measured):
    """At each touch of a file: one line, the signal's code, and of the files only whole ones, and no hidden ones"""
    words, written = COMMANDS[command]
    for at in range(1, 40):
        folder = tmp_path / str(at)
        number = BOTH[at % 2]
        hook = lambda at=at, f=folder, n=number: at_touch(at, f, n)  # noqa: E731
        code = ended(forked(*(w.format(folder) for w in words), errors=tmp_path / "errors", before=hook))
        left, told = names(folder), (tmp_path / "errors").read_text()
        (tmp_path / "errors").unlink()
        assert left <= written
        if code == 0:
            break
        assert code == 128 + number
        assert told == "toyscore: stopped\n"
        if command == "export" and "step-00001000" in left:
            load_checkpoint(folder)
    assert at > 3
    assert left == written
    measured.count("commands stopped at each touch of a file, no half of a file was left")


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_signal_while_samples_are_drawn_is_heard(tmp_path, monkeypatch, command, number, measured):
    begun = tmp_path / "begun"

    def endless(*args, **options):
        begun.touch()
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(f"toyscore.cli.{'sampling' if command == 'sample' else 'evaluation'}.draw_samples", endless)
    child = forked(*(w.format(tmp_path / "to") for w in COMMANDS[command][0]), errors=tmp_path / "errors")
    wait(begun.exists)
    os.kill(child, number)
    assert ended(child) == 128 + number
    assert (tmp_path / "errors").read_text() == "toyscore: stopped\n"
    assert names(tmp_path / "to") <= {".lock"}
    measured.count("signals while samples were drawn, each ended the command in one line")


def test_a_second_signal_does_not_wait_for_files_to_be_put_away(tmp_path):
    hook = lambda: at_touch(2, tmp_path / "to", signal.SIGTERM, signal.SIGINT)  # noqa: E731
    (tmp_path / "to").mkdir()
    words = [w.format(tmp_path / "to") for w in COMMANDS["numbers"][0]]
    assert ended(forked(*words, errors=tmp_path / "errors", before=hook)) == 130
    assert (tmp_path / "errors").read_text() == ""


@pytest.mark.slow
def test_nohup_is_respected(tmp_path, whole):
    """Who starts a run to outlive the terminal does not lose it with the terminal"""
    run = tmp_path / "run"
    child = forked(*tiny(run), before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait(lambda: n_lines(run) >= 3)
    os.kill(child, signal.SIGHUP)
    assert ended(child) == 0
    assert digest(run) == digest(whole)


def test_handlers_are_put_back_and_other_threads_are_let_be(capsys):
    before = [signal.getsignal(n) for n in BOTH]
    assert main(["completion"]) == 0
    assert [signal.getsignal(n) for n in BOTH] == before
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["completion"])))
    thread.start()
    thread.join()
    assert codes == [0]
    with Stop().listening() as nothing:
        assert nothing is None
        assert [signal.getsignal(n) for n in BOTH] != before
    assert [signal.getsignal(n) for n in BOTH] == before
