"""The runner and its figures: numbers, not pixels."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from filelock import FileLock
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "figures"))
import run as runner  # noqa: E402

STORED = json.loads(runner.NUMBERS.read_text())


def picture(name):
    """The file name of a figure."""
    return f"{name}.{'gif' if hasattr(runner.load(name), 'frames') else 'png'}"


def words(path):
    """The description inside a picture."""
    with Image.open(path) as image:
        return image.info["Description"] if path.suffix == ".png" else image.info["comment"].decode()


@pytest.fixture(scope="module")
def quick(tmp_path_factory, request):
    """Every figure and animation drawn quickly by the command line, once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if hasattr(request.config, "workerinput") else base) / "figures"
    with FileLock(f"{folder}.lock"):
        if not (folder / "quick").exists():
            folder.mkdir()
            for path in (ROOT / "figures").glob("*.py"):
                shutil.copy(path, folder)
            subprocess.run([sys.executable, str(folder / "run.py"), "--quick"], check=True, capture_output=True)
    return folder / "quick"


@pytest.mark.slow
@pytest.mark.parametrize("name", runner.ids())
def test_two_processes_draw_the_same_bytes(name, quick, tmp_path, measured):
    """By the command line and in this process, from one seed; with the numbers that are stored."""
    entry = runner.make(name, quick=True, out=str(tmp_path))
    assert entry["numbers"].keys() == STORED[name]["numbers"].keys()
    assert any(c.isdigit() for c in entry["caption"])
    first, second = (folder / picture(name) for folder in (quick, tmp_path))
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size > 10_000
    assert any(c.isdigit() for c in words(first))
    measured.count("figures drawn to the same bytes by two processes")


@pytest.mark.parametrize("name", runner.ids())
def test_committed_pictures_belong_to_the_committed_numbers(name):
    assert words(ROOT / "figures" / picture(name)).startswith(STORED[name]["caption"])
    gallery = (ROOT / "figures" / "README.md").read_text()
    assert STORED[name]["caption"] in gallery
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
    from toyscore.distributions import GaussianMixture

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


def test_the_objectives_cost_what_their_passes_cost():
    """A backward pass is two forward passes: 3 for one network pass, (1 + D) times that for the exact trace, 3 passes for differences."""
    costs = runner.load("objectives").compute(0, True)
    for role, passes in {"explicit": 3, "denoising": 3, "sliced": 6, "implicit": 9, "finite_difference": 9}.items():
        assert costs[f"cost.{role}"][0][0] == pytest.approx(passes, abs=0.1), role
        assert costs[f"n_steps.{role}"] == 240 // costs[f"cost.{role}"][0][0]


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


def call(*arguments, **options):
    command = [sys.executable, str(ROOT / "figures" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_the_command_line():
    known = call("--list", check=True).stdout.split()
    assert known == sorted(known)
    assert known == list(STORED)
    unknown = call("--only", "ncsn-fig9")
    assert unknown.returncode == 2
    assert f"--only ncsn-fig9: there is no such figure; choose from {', '.join(known)}" in unknown.stderr
    assert call("--quick", "--check").returncode == 2


def test_check_recomputes_and_compares():
    run = call("--only", "ncsn-fig3", "--check")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "ncsn-fig3: agrees" in run.stdout


MINE = """
from toyscore.losses import denoising_score_matching as clean, sliced_score_matching as good

def reduced(score, x, sigma, *, generator=None):
    return good(score, x, sigma, generator=generator).mean()

table = 3
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder with a reader's losses, one that does not parse, and a copy of the figures to draw into."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "mine.py").write_text(MINE)
    (folder / "half.py").write_text("def loss(")
    (folder / "figures").mkdir()
    for name in ("run.py", "objectives.py", "toys.py"):
        (folder / "figures" / name).write_text((ROOT / "figures" / name).read_text())
    return folder


def with_loss(folder, *arguments):
    command = [sys.executable, str(folder / "figures" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize(("arguments", "twin"), [(["mine:good"], "sliced"), (["mine:clean", "--clean"], "denoising")])
def test_a_loss_of_ones_own_joins_the_picture(mine, arguments, twin):
    """The library's own loss by another name reaches what the library's does; nothing is stored."""
    run = with_loss(mine, "--only", "objectives", "--quick", "--loss", *arguments)
    assert run.returncode == 0, run.stderr
    assert re.search(r"yours (\S+ \([^)]*\))", run.stdout)[1] == re.search(rf"{twin} (\S+ \([^)]*\))", run.stdout)[1]
    with Image.open(mine / "figures" / "custom" / "objectives.png") as image:
        assert "; yours from " in image.info["Description"]
    assert not (mine / "figures" / "numbers.json").exists()
    assert not (mine / "figures" / "quick").exists()


def test_a_loss_that_fails_meets_the_librarys_error(mine):
    run = with_loss(mine, "--only", "objectives", "--quick", "--loss", "mine:reduced")
    assert run.returncode == 1
    assert "ValueError: the loss returned shape [] for 128 examples: it must be per example, [128]" in run.stderr


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
def test_bad_losses_are_refused_with_the_remedy(mine, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(mine)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as exit:
        runner.main(["--only", *arguments])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_compute_is_counted_as_torch_counts_it():
    """The figure's counter takes what torch's own refuses (a leaf under autograd.grad), and agrees with it elsewhere."""
    import torch
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


def test_one_failing_figure_does_not_stop_the_others(tmp_path):
    """A copy of the folder with a broken figure: the good one is drawn, the exit code says so."""
    (tmp_path / "run.py").write_text((ROOT / "figures" / "run.py").read_text())
    (tmp_path / "ncsn-fig3.py").write_text((ROOT / "figures" / "ncsn-fig3.py").read_text())
    (tmp_path / "broken.py").write_text("def compute(seed, quick):\n    raise RuntimeError('no such paper')\n")
    run = subprocess.run([sys.executable, str(tmp_path / "run.py")], capture_output=True, text=True)
    assert run.returncode == 1
    assert "broken  FAILED" in run.stderr
    assert "no such paper" in run.stderr
    assert "1 of 2 figures" in run.stdout
    assert (tmp_path / "ncsn-fig3.png").exists()
    assert list(json.loads((tmp_path / "numbers.json").read_text())) == ["ncsn-fig3"]
