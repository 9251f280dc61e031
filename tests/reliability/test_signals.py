"""Ctrl-C and SIGTERM save, end every command in order with exit code 130 or 143, and a second one forces."""

import os
import random
import signal
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from runs import FEW, Touch, contents, digest, ended, forked, in_child, said, toy, wait
from toyscore import data, evaluation, metrics
from toyscore.cli import main, training
from toyscore.cli.signals import Stop
from toyscore.train import load_checkpoint

BOTH = [signal.SIGINT, signal.SIGTERM]


def check_saved(run):
    """The newest checkpoint and the log end at the same step, which is returned."""
    step = load_checkpoint(run).state["step"]
    assert step == (run / "log.jsonl").read_text().count("\n")
    return step


def at_step(monkeypatch, number, at):
    """A signal comes while a step of training is computed."""
    fit = training.fit

    def interrupted(*args, **options):
        for step in fit(*args, **options):
            if step.step == at:
                signal.raise_signal(number)
            yield step

    monkeypatch.setattr(training, "fit", interrupted)


@pytest.mark.parametrize("number", [*BOTH, signal.SIGHUP])
def test_a_signal_saves_and_going_on_gives_the_same_bits(tmp_path, whole, monkeypatch, number):
    run, at = tmp_path / "run", random.Random(int(number)).randint(2, 30)
    with monkeypatch.context() as patched:
        at_step(patched, number, at)
        code, text = said(*toy(run))
    assert code == 128 + number
    assert check_saved(run) == at
    assert f"stopped at step {at}, saved in {run}" in text
    assert "--resume latest" in text
    assert "Traceback" not in text
    assert said(*toy(run), "--resume", "latest")[0] == 0
    assert digest(run) == digest(whole)


def test_a_signal_from_outside_is_heard(tmp_path):
    """In a process of its own, while it trains, and while it draws samples when training is done."""
    for name, more in (("training", "--training.n_steps=100000"), ("drawing", "--sampling.n_steps_each=100000")):
        run = tmp_path / name
        child = forked(*toy(run, "--training.n_steps=7", more))
        wait(lambda run=run: list((run / "checkpoints").glob("step-*")))
        os.kill(child, signal.SIGTERM)
        assert ended(child) == 143
        check_saved(run)


def test_a_signal_while_a_checkpoint_is_written_waits_for_its_end(tmp_path):
    """At touches of its files, from the first to the last: it is whole, and nothing lies next to it."""
    for at in range(1, 12, 3):
        run = tmp_path / str(at)
        with Touch(run / "checkpoints", lambda *_: signal.raise_signal(signal.SIGTERM), at):
            assert said(*toy(run))[0] == 143
        assert [p.name for p in (run / "checkpoints").iterdir() if p.name[0] == "."] == []
        check_saved(run)


def test_a_second_signal_does_not_wait(tmp_path):
    """In a step that does not end: the first signal waits for it, the second does not."""
    begun, heard = tmp_path / "begun", tmp_path / "heard"

    def endless(*args, **options):
        begun.touch()
        os.read(hears, 1)
        heard.touch()  # a first signal was taken, and the step goes on
        while True:
            time.sleep(1)

    def before():
        os.set_blocking(tells, False)
        signal.set_wakeup_fd(tells)
        torch.optim.Adam.step = endless

    hears, tells = os.pipe()
    child = forked(*toy(tmp_path / "run"), before=before)
    wait(begun.exists)
    os.kill(child, signal.SIGTERM)
    wait(heard.exists)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGINT)
    assert ended(child) == 130


def test_a_second_signal_does_not_wait_for_files_to_be_put_away(tmp_path):
    signals = [signal.SIGTERM, signal.SIGINT]

    def work():
        def act(event, _):
            if event != "os.mkdir" and signals:  # when a file is opened, and when it is taken back
                signal.raise_signal(signals.pop(0))

        with Touch(tmp_path, act):
            said("sample", *FEW, f"--out={tmp_path}/x.npy")

    assert ended(in_child(work)) == 130


@pytest.mark.parametrize("number", BOTH)
def test_the_same_signal_again_ends_even_what_is_not_python(number):
    """The second is the system's to deliver: Python itself hears nothing until a long call of C is over."""

    def work():
        with Stop().listening():
            os.kill(os.getpid(), number)
            assert signal.getsignal(number) is signal.SIG_DFL
            os.kill(os.getpid(), number)
            time.sleep(60)

    assert ended(in_child(work)) == -number


@pytest.mark.slow
def test_a_signal_while_samples_are_judged_changes_nothing(tmp_path, monkeypatch):
    """While samples are drawn, features learned, neighbours, classes and levels computed; the next one works."""
    to, few_digits = tmp_path / "to", data.digits("train")
    few_digits = replace(few_digits, values=few_digits.values[:200], labels=few_digits.labels[:200])
    monkeypatch.setattr(evaluation, "build_data", lambda config, part="train": few_digits)
    monkeypatch.setattr(evaluation, "_MOST", 50)
    monkeypatch.setattr(metrics, "fit_features", partial(metrics.fit_features, n_steps=5))
    words = ["evaluate", *FEW, f"--out={to}"]
    assert main(words) == 0
    before = contents(to)
    measures = ("fit_features", "overlap", "fit_classifier", "nearest", "denoising_losses")
    for n, place in enumerate(["cli.evaluation.draw_samples", *(f"metrics.{name}" for name in measures)]):
        number = BOTH[n % 2]
        with monkeypatch.context() as patched:
            patched.setattr(f"toyscore.{place}", lambda *args, number=number, **options: signal.raise_signal(number))
            assert said(*words, "--seed=1") == (128 + number, "toyscore: stopped\n")
        assert contents(to) == before
    assert main([*words, "--seed=1"]) == 0
    after = contents(to)
    assert after.keys() == before.keys()
    assert after["evaluation.json"] != before["evaluation.json"]


def test_nohup_is_respected(tmp_path, whole, monkeypatch):
    """Who starts a run to outlive the terminal does not lose it with the terminal."""
    at_step(monkeypatch, signal.SIGHUP, 3)
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(toy(tmp_path / "run")) == 0
    finally:
        signal.signal(signal.SIGHUP, handler)
    assert digest(tmp_path / "run") == digest(whole)


def test_handlers_are_put_back_and_those_of_others_are_left_alone(monkeypatch):
    def handlers():
        return [signal.getsignal(n) for n in BOTH]

    before, codes = handlers(), []
    with Stop().listening():
        assert handlers() != before
    assert handlers() == before
    thread = threading.Thread(target=lambda: codes.append(said("completion")[0]))
    thread.start()
    thread.join()
    assert codes == [0]
    monkeypatch.setattr(signal, "getsignal", lambda number: None)  # of a handler that is not Python's
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("taken"))
    with Stop().listening():
        pass
