"""Ctrl-C and SIGTERM end every command in order, and no command leaves half of a file."""

import os
import random
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch

from runs import (
    WRITERS,
    at_each_moment,
    at_touch,
    contents,
    digest,
    ended,
    forked,
    in_child,
    said,
    tiny,
    wait,
    writing,
)
from states import same, state_at
from toyscore import data, evaluation, metrics
from toyscore.cli import main
from toyscore.cli.signals import Stop
from toyscore.train import load_checkpoint, save_checkpoint

BOTH = [signal.SIGINT, signal.SIGTERM]


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
    """In a step that does not end: the first signal waits for it, the second does not"""
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
    child = forked(*tiny(tmp_path / "run"), before=before)
    wait(begun.exists)
    os.kill(child, signal.SIGTERM)
    wait(heard.exists)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGINT)
    assert ended(child) == 130


def test_the_same_signal_again_ends_even_what_is_not_python():
    """The second is the system's to deliver: Python itself hears nothing until a long call of C is over"""
    for number in BOTH:

        def work(number=number):
            with Stop().listening():
                os.kill(os.getpid(), number)
                assert signal.getsignal(number) is signal.SIG_DFL
                os.kill(os.getpid(), number)
                time.sleep(60)

        assert ended(in_child(work)) == -number


def test_a_signal_that_another_library_handles_is_let_be(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)  # what Python says of a handler that is not its own
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("taken"))
    with Stop().listening():
        pass


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

    def cut(at):
        folder = tmp_path / str(at)
        save_checkpoint(folder, state)

        def work():
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
        return code

    at_each_moment(cut, more_than=8, codes=(7,))
    measured.count("kinds of saves stopped at each touch of a file, all taken back or whole")


def names(folder):
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


@pytest.mark.slow
@pytest.mark.usefixtures("little_to_judge")
@pytest.mark.parametrize("command", WRITERS)
def test_a_signal_while_files_are_written_leaves_no_half_of_one(tmp_path, command, measured):
    """At each touch of a file: one line, the signal's code, and of the files only whole ones, and no hidden ones"""
    _, written = WRITERS[command]

    def cut(at):
        folder, errors, number = tmp_path / str(at), tmp_path / "errors", BOTH[at % 2]
        hook = lambda: at_touch(at, folder, number)  # noqa: E731
        code = ended(forked(*writing(command, folder), errors=errors, before=hook))
        left = names(folder)
        assert left <= written
        if code == 0:
            assert left == written
        else:
            assert code == 128 + number
            assert errors.read_text() == "toyscore: stopped\n"
        if command == "export" and "step-00001000" in left:
            load_checkpoint(folder)
        return code

    at_each_moment(cut, more_than=3, codes=(130, 143))
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
    child = forked(*writing(command, tmp_path / "to"), errors=tmp_path / "errors")
    wait(begun.exists)
    os.kill(child, number)
    assert ended(child) == 128 + number
    assert (tmp_path / "errors").read_text() == "toyscore: stopped\n"
    assert names(tmp_path / "to") <= {".lock"}
    measured.count("signals while samples were drawn or judged, each ended the command in one line")


@pytest.mark.slow
def test_a_signal_while_samples_are_judged_is_heard(tmp_path, monkeypatch, measured):
    """While features are learned and neighbours, classes and levels are computed, truly: what was there stays, and the next one works"""
    to, errors = tmp_path / "to", tmp_path / "errors"

    def few(config, part="train"):  # digits, so that features are learned in a second
        whole = data.digits(part)
        return replace(whole, values=whole.values[:200], labels=whole.labels[:200])

    def learned_once(*args, **options):
        if not learned:
            learned.append(fit_features(*args, **options))
        return learned[0]

    learned, fit_features = [], metrics.fit_features
    monkeypatch.setattr(evaluation, "build_data", few)
    monkeypatch.setattr(evaluation, "_MOST", 50)
    monkeypatch.setattr(metrics, "fit_features", learned_once)
    assert main(writing("evaluate", to)) == 0
    before = contents(to)

    def again_and_again(measure, begun):
        def called(*args, **options):
            begun.touch()
            while True:  # so that the signal comes while it is computed
                measure(*args, **options)

        return called

    measures = {name: getattr(metrics, name) for name in ("overlap", "fit_classifier", "nearest", "denoising_losses")}
    for n, (name, measure) in enumerate({"fit_features": fit_features, **measures}.items()):
        begun, number = tmp_path / name, BOTH[n % 2]
        with monkeypatch.context() as patched:
            patched.setattr(metrics, name, again_and_again(measure, begun))
            child = forked(*writing("evaluate", to), "--seed=1", errors=errors)
        wait(begun.exists)
        os.kill(child, number)
        assert ended(child) == 128 + number
        assert errors.read_text() == "toyscore: stopped\n"
        assert contents(to) == before
        measured.count("signals while samples were drawn or judged, each ended the command in one line")
    assert main([*writing("evaluate", to), "--seed=1"]) == 0
    after = contents(to)
    assert after.keys() == before.keys()
    assert after["evaluation.json"] != before["evaluation.json"]


def test_a_second_signal_does_not_wait_for_files_to_be_put_away(tmp_path):
    hook = lambda: at_touch(2, tmp_path / "to", signal.SIGTERM, signal.SIGINT)  # noqa: E731
    (tmp_path / "to").mkdir()
    assert ended(forked(*writing("numbers", tmp_path / "to"), errors=tmp_path / "errors", before=hook)) == 130
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
