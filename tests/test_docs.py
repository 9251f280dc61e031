"""What stands beside the code stays true."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = {"pytorch": "torch", "matplotlib-base": "matplotlib", "pot": "POT", "docstring_parser": "docstring-parser"}
CONDA |= {"python-build": "build"}


def requirements(*, without=()):
    """name -> Requirement of everything `make setup` installs, less some extras."""
    extras = [found for name, found in PROJECT["optional-dependencies"].items() if name not in without]
    wanted = [*PROJECT["dependencies"], *(r for extra in extras for r in extra)]
    return {r.name: r for r in map(Requirement, wanted) if r.name != "toyscore"}


def conda():
    """pip name -> specifier of environment.yml."""
    specs = [d for d in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if isinstance(d, str)]
    split = [re.fullmatch(r"([A-Za-z0-9_.-]+?)((?:[<>=!]=?).*)?", d).groups() for d in specs]
    return {CONDA.get(name, name): SpecifierSet(spec or "") for name, spec in split}


def test_environment_covers_pyproject_and_fits_what_is_installed():
    """The conda names, mapped: the same packages, ranges and Python as pyproject, satisfied by the versions under test."""
    environment = conda()
    assert environment.pop("python") == SpecifierSet(PROJECT["requires-python"])
    environment.pop("pip")
    wanted = {
        name: r.specifier for name, r in requirements(without=["docs"]).items()
    }  # not all of it is on conda-forge
    assert environment == wanted
    for name, specifier in environment.items():
        assert importlib.metadata.version(name) in specifier, name
    assert "pip install --no-deps -e ." in (ROOT / "environment.yml").read_text()


def test_constraints_pin_every_requirement_exactly():
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    pins = {Requirement(x).name.lower().replace("_", "-"): Requirement(x) for x in lines}
    assert all(re.fullmatch(r"==[^*]+", str(r.specifier)) for r in pins.values())
    for name, requirement in requirements().items():
        pin = str(pins[name.lower()].specifier).removeprefix("==")
        assert pin in requirement.specifier
        assert importlib.metadata.version(name).split("+")[0] == pin


def test_the_gallery_is_current():
    sys.path.insert(0, str(ROOT / "docs"))
    import make_gallery

    assert make_gallery.main(["--check"]) == 0


def test_every_figure_has_its_place_in_the_gallery():
    sys.path.insert(0, str(ROOT / "docs"))
    import make_gallery

    assert sorted(make_gallery.names()) == sorted(
        path.stem for path in (ROOT / "figures").glob("*.py") if path.stem not in ("run", "shared")
    )


def anchors(path):
    """What a Markdown file can be linked at on a code host: its headings, and addresses of its own."""
    text = path.read_text()
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain} | set(
        re.findall(r'<a id="([^"]+)"', text)
    )


def test_a_heading_has_the_anchor_that_code_hosts_give_it():
    sys.path.insert(0, str(ROOT / "docs"))
    import make_gallery

    for title, wanted in {
        "Why annealing stops short of 0.80: weights freeze": "why-annealing-stops-short-of-080-weights-freeze",
        "Noise levels, by NCSNv2's rules": "noise-levels-by-ncsnv2s-rules",
        "Does a corrector pay? And 20,000 chains": "does-a-corrector-pay-and-20000-chains",
        "Learned scores_are wrong-ish": "learned-scores_are-wrong-ish",
    }.items():
        assert make_gallery.anchor(title) == wanted


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("*.md"), *(ROOT / f"{name}/README.md" for name in ("figures", "notebooks"))]),
    ids=lambda p: f"{p.parent.name}-{p.name}",
)
def test_anchors_that_are_linked_are_there(path):
    for target, anchor in re.findall(r"""(?:\]\(|href=")([\w./-]*)#([\w.-]+)""", path.read_text()):
        there = path.parent / target if target else path
        if there.suffix == ".md":
            assert anchor in anchors(there), (target, anchor)


def test_what_the_front_page_counts_is_so():
    text = (ROOT / "README.md").read_text()
    n_figures = len([path for path in (ROOT / "figures").glob("*.py") if path.stem not in ("run", "shared")])
    n_notebooks = len([*(ROOT / "notebooks").glob("[0-9][0-9]_*.py")])
    assert set(re.findall(r"(\d+) (?:figures|pictures)\b", text)) == {str(n_figures)}
    assert set(re.findall(r"(\d+) notebooks\b", text)) == {str(n_notebooks)}


def test_equations_are_current():
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_equations.py"), "--check"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout


def test_every_equation_has_a_test_and_a_reference():
    keys = set(re.findall(r"@\w+\{(\w+),", (ROOT / "docs" / "references.bib").read_text()))
    rows = [line.strip("|\n ").split(" | ") for line in (ROOT / "docs" / "equations.md").read_text().splitlines()[7:]]
    assert len(rows) > 15
    for key, equation, functions, tests, *_ in rows:
        assert key in keys, key
        assert tests.strip() or not functions.strip(), f"{key}, {equation} has no test"
    used = set(
        re.findall(r"\b([a-z]+\d{4}[a-z]*)\b", "".join(p.read_text() for p in (ROOT / "toyscore").rglob("*.py")))
    )
    assert keys <= used | {key for key, *_ in rows}, f"never cited: {sorted(keys - used)}"


@pytest.mark.parametrize("path", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda p: p.name)
def test_links_inside_the_repository_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in link:
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda p: p.name)
def test_no_placeholder_is_left(path):
    assert not re.search(r"^(?:[A-Z]{4,}|TODO.*|XXX.*)$", path.read_text(), re.MULTILINE)


def code_under(heading):
    """The first Python of the README below a heading."""
    _, _, after = (ROOT / "README.md").read_text().partition(f"\n{heading}\n")
    return re.search(r"```python\n(.*?)```", after, re.DOTALL)[1]


def test_the_readmes_adapters_run(tmp_path, monkeypatch):
    """With an exact network of epsilon, and a UNet that diffusers saved"""
    import diffusers
    import torch

    from toyscore.distributions import two_modes

    alpha_bars = torch.linspace(0.9999, 0.0001, 500)
    data = two_modes()

    def network(x_t, t):
        alpha = torch.lerp(alpha_bars[t.floor().long()], alpha_bars[t.ceil().long()], t % 1).sqrt()[:, None]
        sigma = (1 - alpha**2).sqrt() / alpha
        return -sigma * data.score(x_t / alpha, sigma[:, 0])

    monkeypatch.chdir(tmp_path)
    blocks = {"block_out_channels": (8,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, norm_num_groups=4, layers_per_block=1, **blocks
    )
    unet.save_pretrained("folder")
    diffusers.DDPMScheduler().save_pretrained("folder")
    first, second, third = [
        line for line in code_under("### Networks of others").splitlines() if "=" in line or "calibrate(" in line
    ]
    names = {"network": network, "alpha_bars": alpha_bars, "data": data, "sigmas": [5.0, 1.0, 0.2]}
    imports = "from toyscore.models import adapters, calibrate\n"
    exec(
        f"{imports}{first}\nfound = {third}\n{second}\nshape = score(torch.rand(2, 1, 8, 8), 0.5).shape",
        {"torch": torch} | names,
        names,
    )
    assert names["found"].cause is None
    assert names["shape"] == (2, 1, 8, 8)


def test_the_readmes_example_runs(capsys):
    import torch

    code = code_under("## Ten lines")
    with torch.random.fork_rng(devices=[]):
        exec(code, {})
    assert capsys.readouterr().out.startswith("Fisher divergence")
    assert len(code.strip().splitlines()) <= 12


def test_the_loss_that_contributing_shows_is_unbiased():
    """Over 20,000 draws of its axis, five standard errors from the exact trace."""
    import torch

    from helpers import assert_mean, seeded
    from toyscore.distributions import asymmetric
    from toyscore.losses import implicit_score_matching

    names = {}
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    exec(code, names)
    p = asymmetric()
    x = p.sample(1, generator=seeded()).expand(20_000, 2)
    exact = implicit_score_matching(p.score, x[:1], 0.5)
    with torch.no_grad():
        assert_mean(names["coordinate"](p.score, x, 0.5, generator=seeded()), exact)


def results():
    """Row -> its milliseconds, and the ratio where there is one."""
    rows = re.findall(
        r'^\| <a id="([\w.-]+)"></a>.* \| ([\d.e+]+) \| (?:[\d.e+]+)? \| ([\d.e+]+)? \|$',
        (ROOT / "benchmarks" / "results.md").read_text(),
        re.MULTILINE,
    )
    return {key: (float(ms), float(ratio) if ratio else None) for key, ms, ratio in rows}


def test_the_benchmarks_measured_what_was_asked():
    found = results()
    for key in (
        "langevin-1280-textbook",
        "langevin-100000-textbook",
        "training",
        "step-implicit",
        "step-sliced",
        "empirical-0.1",
    ):
        assert found[key][1] > 1, key
    assert found.get("langevin-1280-jax", (0, 1.1))[1] > 1  # the README says "ahead of"
    assert {f"step-{name}" for name in ("explicit", "denoising", "finite-difference")} <= found.keys()
    for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.py"):
        if '"live"' in path.read_text():
            assert found[f"slider-{path.stem[:2]}-median"][0] < 60
            assert found[f"slider-{path.stem[:2]}-p95"][0] < 100
    assert found["import"][0] < 300


@pytest.mark.parametrize("path", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda p: p.name)
def test_every_claim_of_speed_is_a_row_of_the_benchmarks(path):
    """`[9 times](benchmarks/results.md#row)` is the row's ratio, `[30 ms](...)` its time; and no such number stands without a link."""
    text = path.read_text()
    for figure in json.loads((ROOT / "figures" / "numbers.json").read_text()).values():
        text = text.replace(figure["caption"], "")  # computed, and compared elsewhere
    linked = re.findall(r"\[(\d+) (times|ms)\]\(benchmarks/results\.md#([\w.-]+)\)", text)
    for number, unit, key in linked:
        ms, ratio = results()[key]
        assert int(number) == round(ratio if unit == "times" else ms), (key, number)
    assert len(re.findall(r"\d+ (?:times|ms)\b", text)) == len(linked)
    assert len(linked) >= (6 if path.name == "README.md" else 0)


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*_*.py")), ids=lambda p: p.stem)
def test_a_notebook_takes_less_than_it_says(path):
    (seconds,) = re.findall(r"Running time: under (\d+)\s+seconds", path.read_text().replace("\n# ", " "))
    assert results()[f"notebook-{path.stem[:2]}"][0] / 1000 < int(seconds)
