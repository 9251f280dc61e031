"""The runner and its figures: numbers, not pixels."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from toyscore.distributions import GaussianMixture
from toyscore.losses import perturbed

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "figures"))
import run as runner  # noqa: E402
import shared  # noqa: E402

STORED = json.loads(runner.NUMBERS.read_text())


def picture(name):
    """The file name of a figure."""
    return f"{name}.{'gif' if hasattr(runner.load(name), 'frames') else 'png'}"


def words(path):
    """The description inside a picture."""
    with Image.open(path) as image:
        return image.info["Description"] if path.suffix == ".png" else image.info["comment"].decode()


@pytest.mark.parametrize("name", runner.ids())
def test_committed_pictures_belong_to_the_committed_numbers(name):
    path, caption = ROOT / "figures" / picture(name), STORED[name]["caption"]
    assert words(path).startswith(caption)
    assert any(c.isdigit() for c in caption)
    assert path.stat().st_size > 10_000
    gallery = (ROOT / "figures" / "README.md").read_text()
    assert caption in gallery
    assert STORED[name].get("table", "").strip() in gallery
    assert f"]({picture(name)})" in gallery
    assert f'src="figures/{picture(name)}"' in (ROOT / "README.md").read_text() or name == "story"


def test_the_animation_is_small_and_smooth():
    """Under a megabyte, 20 frames a second, on white."""
    path = ROOT / "figures" / "ncsn-fig3-animated.gif"
    assert path.stat().st_size < 1e6
    with Image.open(path) as image:
        assert image.n_frames > 90
        image.seek(1)
        assert image.info["duration"] == 50
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_every_number_follows_the_mixture(monkeypatch):
    """Nothing is typed: another mixture gives other captions, with its own weights."""
    figure = runner.load("ncsn-fig3")
    monkeypatch.setattr(figure, "mixture", lambda: GaussianMixture([[4.0, 0.0], [-4.0, 2.0]], weights=[0.6, 0.4]))
    arrays = figure.compute(0, True)
    assert "holds 0.60 of the mass" in figure.caption(arrays)
    assert figure.numbers(arrays)["weight_exact"][0] == pytest.approx(0.6, abs=0.2)
    drawn = figure.draw(arrays)
    assert drawn.axes[0].get_title().endswith("0.60 : 0.40")
    plt.close(drawn)


def test_the_animation_shows_what_its_arrays_say():
    figure = runner.load("ncsn-fig3-animated")
    arrays = figure.compute(0, True)
    drawn, update = figure.scene(arrays)
    plain, annealed, share = drawn.axes
    for frame in (0, 3, 10):
        update(frame)
        for ax, name in ((plain, "plain"), (annealed, "annealed")):
            assert (ax.collections[0].get_offsets() == arrays[f"states.{name}"][frame]).all()
        assert annealed.get_title().endswith(f": {arrays['sigma'][frame]:.1f}")
        for line, name in zip(share.lines, ("plain", "annealed"), strict=False):
            assert line.get_xdata().tolist() == [10 * n for n in range(frame + 1)]
            assert line.get_ydata().tolist() == arrays[f"share.{name}"][: frame + 1].tolist()
    assert arrays["sigma"][[0, 1, 10]].tolist() == pytest.approx([20.0, 20.0, 1.0])
    assert arrays["share.annealed"][-1] > arrays["share.plain"][-1] + 0.1
    assert runner.load("ncsn-fig3").noise(torch.tensor(20.0)) == pytest.approx(399**0.5)


def test_hops_are_between_two_modes(monkeypatch):
    from toyscore.distributions import asymmetric

    figure = runner.load("spectral-gap")
    monkeypatch.setattr(figure, "mixture", asymmetric)
    with pytest.raises(ValueError, match=r"mixture\(\) has 3 modes: it must have two, .* return e.g. two_modes\(\)"):
        figure.half_distance()


def test_the_toys_shares_are_what_theory_says():
    """Modes far apart, of variance v: sigma² / (v + sigma²); in a quick run of 200 points, five standard errors"""
    shares = runner.load("toys").compute(0, True)
    for name, variance in (("two_modes", 1.0), ("eight_gaussians", 0.25)):
        expected = 0.25 / (variance + 0.25)
        assert shares[f"shares.{name}"][0] == pytest.approx(expected, abs=5 * expected / 200**0.5)


def test_differences_name_what_changed():
    def entry(**numbers):
        return {"numbers": {k: {"value": v, "tolerance": 0.1} for k, v in numbers.items()}}

    assert runner.differences(entry(a=1.0), entry(a=1.05)) == []
    assert runner.differences(entry(a=1.0), entry(a=1.2)) == ["a is 1.2, stored as 1 +- 0.1"]
    assert runner.differences(entry(a=1.0), entry(a=float("nan"))) == ["a is nan, stored as 1 +- 0.1"]
    rounded = {"numbers": {"a": {"value": 1.0, "tolerance": 0.1000001}}}  # as on another machine
    assert runner.differences(rounded, entry(a=1.0)) == []
    looser = {"numbers": {"a": {"value": 1.0, "tolerance": 9.0}}}
    assert runner.differences(looser, entry(a=1.0)) == ["a has the tolerance 0.1, stored as 9"]
    assert runner.differences(entry(a=1.0), entry()) == ["a is no longer there"]
    assert runner.differences(entry(), entry(b=1.0)) == ["b is not yet there"]


def test_the_longest_is_started_first(tmp_path, monkeypatch):
    """So that it is not left to one process at the end; what was never timed may be the longest."""
    seconds = {name: STORED[name]["seconds"] for name in runner.ids()}
    first, *rest = runner.longest_first(["new", *runner.ids()])
    assert first == "new"
    assert [seconds[name] for name in rest] == sorted(seconds.values(), reverse=True)
    monkeypatch.setattr(runner, "NUMBERS", tmp_path / "numbers.json")
    assert runner.longest_first(["b", "a"]) == ["b", "a"]


def test_a_reader_sees_the_papers_figures_first_and_waits_for_the_long_ones_last():
    order = runner.for_a_reader(runner.ids())
    papers = [name for name in order if name.startswith(("ncsn-", "sde-"))]
    assert order[: len(papers) + 1] == [*papers, "story"]
    for part in (papers, order[len(papers) + 1 :]):
        seconds = [STORED[name]["seconds"] for name in part]
        assert seconds == sorted(seconds)
    assert sorted(order) == runner.ids()


@pytest.fixture
def here(monkeypatch):
    """The command line in this process, figures one after the other."""
    monkeypatch.setattr(runner, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return runner.main


def test_the_command_line(here, capsys):
    assert here(["--list"]) == 0
    known = capsys.readouterr().out.split()
    assert known == sorted(known) == list(STORED)
    for wrong, message in (
        (["--only", "ncsn-fig9"], f"--only ncsn-fig9: there is no such figure; choose from {', '.join(known)}"),
        (["--quick", "--check"], "--quick computes other numbers than those stored"),
    ):
        with pytest.raises(SystemExit) as exit:
            here(wrong)
        assert exit.value.code == 2
        assert message in capsys.readouterr().err


def test_check_recomputes_and_compares(here, capsys, tmp_path, monkeypatch):
    """Nothing is kept, and what differs is named; of all 30 the continuous integration does so."""
    kept = {path: path.read_bytes() for path in (runner.NUMBERS, ROOT / "figures" / "ncsn-fig3.png")}
    assert here(["--only", "ncsn-fig3", "--check"]) == 0
    assert "ncsn-fig3: agrees" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in kept} == kept
    other = json.loads(runner.NUMBERS.read_text())
    monkeypatch.setattr(runner, "make", lambda name, *_: other[name] | {"numbers": STORED[name]["numbers"]})
    other["ncsn-fig3"]["numbers"]["weight_plain"]["value"] += 1
    monkeypatch.setattr(runner, "NUMBERS", tmp_path / "numbers.json")
    runner.NUMBERS.write_text(json.dumps(other))
    assert here(["--only", "ncsn-fig3", "--check"]) == 1
    assert "ncsn-fig3: weight_plain is " in capsys.readouterr().out


WAVE = """
import numpy as np
import torch

def compute(seed, quick):
    names = {str(k) for k in range(50)}  # in an order that the hash of a string decides
    return {"x": torch.rand(20, 30, 30, 3, generator=torch.Generator().manual_seed(seed)).numpy(), "n": np.array(len(names))}

def numbers(arrays):
    return {"n": (arrays["n"], 0.0)}

def caption(arrays):
    return f"{arrays['n']} names."

def frames(arrays):
    return iter((255 * arrays["x"]).astype("uint8")), 10.0
"""


def test_two_processes_draw_the_same_bytes_and_a_failure_stops_neither(tmp_path):
    """A picture and an animation, by the command line and in this process, whose strings hash otherwise; a broken figure is named."""
    folder, mine = tmp_path / "figures", tmp_path / "mine"
    folder.mkdir(), mine.mkdir()
    for name in ("run.py", "ncsn-fig3.py"):
        shutil.copy(ROOT / "figures" / name, folder)
    (folder / "wave.py").write_text(WAVE)
    (folder / "broken.py").write_text("def compute(seed, quick):\n    raise RuntimeError('no such paper')\n")
    command = [sys.executable, str(folder / "run.py")]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "1"})
    assert run.returncode == 1
    assert "broken  FAILED" in run.stderr
    assert "no such paper" in run.stderr
    assert "2 of 3 figures" in run.stdout
    stored = json.loads((folder / "numbers.json").read_text())
    assert list(stored) == ["ncsn-fig3", "wave"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "FOLDER", folder)
        for name in stored:
            assert runner.same(stored[name], runner.make(name, quick=False, out=str(mine)))
    for name in ("ncsn-fig3.png", "wave.gif"):
        assert (folder / name).read_bytes() == (mine / name).read_bytes()


@pytest.mark.parametrize(
    ("line", "whose"),
    [
        ("torch.rand(1)", "torch"),
        ("torch.manual_seed(5)", "torch"),
        ("np.random.normal()", "NumPy"),
        ("random.shuffle([1, 2])", "Python"),
    ],
)
def test_a_figure_keeps_its_hands_off_global_random_numbers(tmp_path, monkeypatch, line, whose):
    """So no figure depends on what ran before it: ``make`` refuses one that reads or changes them."""
    source = WAVE.replace("    names =", f"    {line}\n    names =").replace(
        "import torch", "import random\nimport torch"
    )
    (tmp_path / "wave.py").write_text(source)
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    before = random.getstate(), np.random.get_state()
    with (
        torch.random.fork_rng(devices=[]),
        pytest.raises(RuntimeError, match=f"wave moved .* random numbers of {whose}:"),
    ):
        runner.make("wave", quick=True, out=None)
    random.setstate(before[0])
    np.random.set_state(before[1])


def test_built_things_have_seeds_of_their_own():
    state = torch.get_rng_state()
    a, b, c = (shared.seeded(seed, lambda: torch.rand(3)) for seed in (1, 1, 2))
    assert a.tolist() == b.tolist() != c.tolist()
    assert torch.get_rng_state().equal(state)


def test_a_remembered_score_is_computed_once_per_x_and_sigma():
    calls = []
    score = shared.remembered(lambda x, sigma: calls.append(sigma) or -x / sigma)
    x = torch.ones(2, 3)
    leaf = x.clone().requires_grad_()
    found = [score(leaf, 2.0), score(x, torch.tensor(2.0)), score(x, 4.0), score(2 * x, 4.0), score(leaf, 4.0)]
    assert [s.detach()[0, 0].item() for s in found] == [-0.5, -0.5, -0.25, -0.5, -0.25]
    assert [s.requires_grad for s in found] == [True, False, False, False, True]
    assert calls == [2.0, 4.0, 4.0, 4.0]


COUNTED = """
import numpy as np
from shared import once

calls = []

@once
def squares(n, p):
    calls.append(n)
    return {"squares": np.arange(n) ** 2}
"""


@pytest.fixture
def squares(tmp_path, monkeypatch):
    """A function whose arrays are kept, and the calls that computed; of this source or another."""
    monkeypatch.setattr(shared, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(runner, "FOLDER", tmp_path)

    def load(source=COUNTED):
        (tmp_path / "counted.py").write_text(source)
        module = runner.load("counted")
        return module.squares, module.calls

    return load


def test_what_is_kept_follows_from_source_and_arguments(squares, monkeypatch):
    f, calls = squares()
    p, q = (GaussianMixture([[0.0, 0.0]], v) for v in (1.0, 2.0))
    for arguments in ((3, p), (3, p), (4, p), (3, q), (3, GaussianMixture([[0.0, 0.0]]))):
        assert f(*arguments)["squares"].tolist() == [0, 1, 4, 9][: arguments[0]]
    assert calls == [3, 4, 3]
    f, calls = squares()
    f(3, p)
    assert calls == []  # another module of the same source finds it
    f, calls = squares(COUNTED.replace("** 2", "**  3"))  # Python knows a source by its length and the second
    assert f(3, p)["squares"].tolist() == [0, 1, 8]
    assert calls == [3]
    monkeypatch.setattr(shared, "package", lambda: "another release")
    f(3, p)
    assert calls == [3, 3]


def test_a_damaged_file_is_computed_anew(squares):
    f, calls = squares()
    f(3, None)
    (path,) = shared.CACHE.glob("*.npz")
    whole = path.read_bytes()
    at = whole.index(np.array([0, 1, 4]).tobytes())
    for damaged in (b"", whole[: len(whole) // 2], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
        path.write_bytes(damaged)
        assert f(3, None)["squares"].tolist() == [0, 1, 4]
        assert path.read_bytes() == whole
    assert len(calls) == 4


def test_a_second_process_waits_for_the_first(squares):
    """It reads what the other wrote while it held the lock, and computes nothing."""
    f, calls = squares()
    f(3, None)
    (path,) = shared.CACHE.glob("*.npz")
    aside = path.rename(path.with_suffix(".aside"))
    code = (
        "import sys, time, pathlib, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print(flush=True)\n    time.sleep(0.5)\n"
        "    pathlib.Path(sys.argv[2]).rename(sys.argv[3])"
    )
    command = [sys.executable, "-c", code, str(path.with_suffix(".lock")), str(aside), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert f(3, None)["squares"].tolist() == [0, 1, 4]
    assert other.returncode == 0
    assert calls == [3]


MINE = """
from toyscore.losses import denoising_score_matching as clean, sliced_score_matching as good

def reduced(score, x, sigma, *, generator=None):
    return good(score, x, sigma, generator=generator).mean()

table = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A reader's folder with losses, one that does not parse, and a copy of the figure to draw next to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "half.py").write_text("def loss(")
    (tmp_path / "figures").mkdir()
    for name in ("objectives.py", "toys.py"):
        shutil.copy(ROOT / "figures" / name, tmp_path / "figures")
    monkeypatch.setattr(runner, "FOLDER", tmp_path / "figures")
    monkeypatch.setattr(runner, "NUMBERS", tmp_path / "figures" / "numbers.json")
    for name in ("mine", "half"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "figures"


def test_a_loss_of_ones_own_joins_the_picture(here, mine, capsys):
    """The library's own loss by another name reaches what the library's does; nothing is stored. A backward pass costs two forward
    passes: 3 in all where the network is passed once, (1 + D) times that for the exact trace, 3 passes for differences.
    """
    assert here(["--only", "objectives", "--quick", "--loss", "mine:good"]) == 0
    reached = dict(re.findall(r"(\w+) ([\d.]+ \([^)]*\))", capsys.readouterr().out))
    assert reached["yours"] == reached["sliced"]
    for role, passes in {"explicit": 3, "denoising": 3, "sliced": 6, "implicit": 9, "difference": 9}.items():
        assert re.search(rf"; {240 // passes} steps\)", reached[role]), role
    with Image.open(mine / "custom" / "objectives.png") as image:
        assert "; yours from " in image.info["Description"]
    assert {path.name for path in mine.iterdir()} - {"__pycache__"} == {"custom", "objectives.py", "toys.py"}


def test_a_loss_of_clean_data_adds_the_noise_itself(here, mine):
    figure = runner.load("objectives")
    x = figure.mixture().sample(64, generator=torch.Generator().manual_seed(0))
    loss = runner.find_loss("mine:clean")
    a, b = (figure.trained(which, 0, 20, [20], x) for which in (loss, figure.objectives()["denoising"]))
    assert a == b


def test_a_loss_that_fails_meets_the_librarys_error(here, mine):
    figure = runner.load("objectives")
    x = figure.mixture().sample(64, generator=torch.Generator().manual_seed(0))
    error = r"the loss returned shape \[\] for 128 examples: it must be per example, \[128\]"
    with pytest.raises(ValueError, match=error):
        figure.trained(perturbed(runner.find_loss("mine:reduced")), 0, 1, [0], x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["objectives", "--loss", "mine"], "--loss mine: it must be module:function; write e.g. mine:my_loss"),
        (["objectives", "--loss", "nine:good"], "importing nine gave ModuleNotFoundError: No module named 'nine'; it must"),
        (["objectives", "--loss", "half:loss"], "--loss half:loss: importing half gave SyntaxError: "),
        (["objectives", "--loss", "mine:goood"], "mine has no goood: it must be a function of it; pass good"),
        (["objectives", "--loss", "mine:table"], "table is int: it must be callable as loss(score, x, sigma, *, generator)"),
        (["toys", "--loss", "mine:good"], "--loss mine:good: toys takes no loss; pass --only objectives"),
        (["objectives", "--loss", "mine:good", "--check"], "--check has nothing to compare; pass one of the two"),
        (["objectives", "--loss", "mine:good", "--spread", "2"], "none of --quick, --check and --loss; pass --spread 8"),
        (["objectives", "--clean"], "--clean says what x a loss takes, and there is none; pass --loss module:function"),
    ],
)  # fmt: skip
def test_bad_losses_are_refused_with_the_remedy(here, mine, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit:
        here(["--only", *arguments])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_compute_is_counted_as_torch_counts_it():
    """The figure's counter takes what torch's own refuses (a leaf under autograd.grad), and agrees with it elsewhere."""
    from torch.utils.flop_counter import FlopCounterMode

    figure = runner.load("objectives")
    x = figure.mixture().sample(32, generator=torch.Generator().manual_seed(0))
    for role, passes in (("denoising", 3), ("finite_difference", 9), ("sliced", 6), ("implicit", 9)):
        loss, model = figure.objectives()[role], figure.MLP()
        with torch.no_grad(), FlopCounterMode(display=False) as forward:
            model(x)
        with FlopCounterMode(display=False) as step:
            loss(model, x, 0.5, generator=torch.Generator()).mean().backward()
        counted = figure.cost(loss, x, by_hand=True)[0]
        assert counted == step.get_total_flops() / forward.get_total_flops()
        assert counted == pytest.approx(passes, abs=0.05)
    assert figure.cost(loss, x, by_hand=False)[0] == pytest.approx(counted, abs=0.05)
