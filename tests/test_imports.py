"""Imports go one way, and ``import toyscore`` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "toyscore"
# What each module may import of its siblings; a folder counts as one module.
CHAIN = ["_precision", "operators", "distributions", "noise", "losses", "sde", "samplers"]
CHAIN += ["likelihood", "diagnostics", "metrics"]
ALLOWED = {name: set(CHAIN[:i]) for i, name in enumerate(CHAIN)} | {
    "distributions": {"operators"},
    "noise": {"operators"},
    "likelihood": {"operators", "distributions", "noise", "losses", "sde"},
    "metrics": {*CHAIN[:-1], "data"},
    "models": {"operators", "noise", "sde"},
    "train": {"operators", "losses", "noise", "models"},
    "data": {"operators", "losses", "noise", "models", "_writing"},
    "plotting": {"operators", "_writing"},
    "widgets": {"operators", "plotting"},
    "config": set(),
    "course": {"_shipped", "_writing"},
    "_extras": set(),
    "_shipped": set(),
    "_writing": set(),
    "_precision": set(),
    "build": {*CHAIN, "models", "data", "train", "config"},
    "pretrained": {"train", "config", "build", "_writing"},
    "evaluation": {*CHAIN, "models", "data", "config", "build"},
}
ALLOWED |= {"cli": {*ALLOWED}, "__main__": {"cli"}}
for name, allowed in ALLOWED.items():
    allowed |= {"_precision"} if "operators" in allowed else set()
    allowed |= {"_extras"} if name in ("cli", "data", "metrics", "models", "sde", "train", "widgets") else set()


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name != "__init__":
            yield pytest.param(name, path, id=str(path.relative_to(PACKAGE)))


def siblings(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "toyscore":
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "toyscore" else [node.module]
            )
            yield from (name.split(".")[1] for name in names if "__" not in name)
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("toyscore."))


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_imports_go_one_way(name, path):
    wrong = set(siblings(path)) - ALLOWED[name] - {name}
    assert not wrong, f"{name} imports {sorted(wrong)}; it may import {sorted(ALLOWED[name])}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_is_imported_relatively(path):
    assert not [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.level
    ]


def test_importing_the_package_is_light():
    code = "import sys, toyscore; print(*[m for m in ('torch', 'matplotlib', 'sklearn', 'ot', 'scipy', 'ipywidgets') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_working_with_images_is_light():
    """What trains and samples a network loads no plots, no command line and no data of others"""
    code = (
        "import sys, toyscore.train, toyscore.models, toyscore.samplers, toyscore.losses, toyscore.data;"
        "print(*[m for m in ('matplotlib', 'sklearn', 'mlxtend', 'pooch', 'PIL', 'accelerate', 'jsonargparse') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_every_module_of_the_package_is_within_reach():
    import toyscore

    for name in toyscore.__all__:
        assert getattr(toyscore, name).__name__ == f"toyscore.{name}"
    with pytest.raises(AttributeError, match="its modules are build, config"):
        _ = toyscore.nothing
