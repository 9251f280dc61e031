"""Make the documentation: ``python docs/make_site.py``, or ``make docs``. Needs no network; fails on any warning and on any dead link.

Its sources are a copy of what is read in the repository, at the same places, so that links between files hold as they are. Added are a
page for each figure (its picture, its numbers, its script), a page for each module (its docstrings), and the list of papers.
"""

from __future__ import annotations

import argparse
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import make_gallery

ROOT = Path(__file__).parent.parent
SITE = ROOT / "build" / "site"
MADE_FROM = "sources.sha256"  # in a site: the digest of its sources
COPIED = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "CITATION.cff",
    "pyproject.toml",
    "environment.yml",
    "constraints.txt",
    "docs/conventions.md",
    "docs/equations.md",
    "docs/reliability.md",
    "docs/scaling.md",
    "docs/references.bib",
    "docs/static/*",
    "docs/conf.py",
    "notebooks/README.md",
    "notebooks/*.toml",
    "figures/*.png",
    "figures/*.gif",
    "figures/*.py",
    "figures/numbers.json",
    "figures/README.md",
    "benchmarks/results.md",
    "benchmarks/*.json",
    "benchmarks/*.py",
    "configs/*.yaml",
    "tests/**/*.py",
    "toyscore/**/*.py",
)
MODULES = (
    "operators",
    "distributions",
    "noise",
    "losses",
    "sde",
    "samplers",
    "likelihood",
    "diagnostics",
    "metrics",
    "models",
    "train",
    "data",
    "plotting",
    "widgets",
    "config",
    "build",
    "pretrained",
    "evaluation",
    "course",
)
MARKS = {'"': "\u0308", "'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303"}  # of TeX, to be put after a letter
FIGURE = """# {title}

```{{image}} {file}
:alt: {words}
```

{caption}

{table}

{source}To draw it: `.venv/bin/python figures/run.py --only {name}` ({seconds} seconds where it was made, on one thread).

## Numbers

`make check-figures` computes them anew and compares.

| number | value | tolerance |
| --- | --- | --- |
{rows}

## Script

```{{literalinclude}} {name}.py
:language: python
```
"""
MODULE = """# toyscore.{name}

```{{eval-rst}}
.. automodule:: toyscore.{name}
   :members:
   :show-inheritance:
```
"""
API = """# Modules

In the order in which they build on each other; what each holds is in its first lines. How they hang together:
[ARCHITECTURE](../../ARCHITECTURE.md).
"""
TREES = {
    "The course": ["notebooks/README", "notebooks/[0-9]*"],
    "Pictures": ["figures/README"],
    "Reference": ["docs/conventions", "docs/equations", "docs/papers", "docs/api/index"],
    "How good it is": ["docs/reliability", "benchmarks/results", "docs/scaling"],
    "The project": ["ARCHITECTURE", "CONTRIBUTING", "CHANGELOG"],
}


def sources() -> list[Path]:
    """What the documentation is made from. Notebooks are those of the course; a reader may have made copies and others."""
    notebooks = [path.with_suffix(".ipynb") for path in ROOT.glob("notebooks/[0-9][0-9]_*.py")]
    return [*sorted({path for pattern in COPIED for path in ROOT.glob(pattern)}), *sorted(notebooks)]


def digest() -> str:
    """Of the sources, and of what makes the documentation from them."""
    found = hashlib.sha256()
    for path in (*sources(), Path(__file__), Path(make_gallery.__file__)):
        found.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def current(site: Path = SITE) -> bool:
    """Whether a site was made from the sources as they are, without a warning or a dead link."""
    made = site / MADE_FROM
    return made.exists() and made.read_text() == digest()


def stage(folder: Path) -> None:
    """Gather the sources in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in sources():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    front(folder)
    gallery(folder)
    course(folder)
    api(folder)
    papers(folder)
    for path in folder.rglob("*.md"):
        path.write_text(adapted(path, folder))


def front(folder: Path) -> None:
    """README.md as the first page, its thumbnails as a grid, and the table of contents."""
    text = (folder / "README.md").read_text()
    (folder / "README.md").unlink()
    begin, end = make_gallery.THUMBNAILS
    before, _, rest = text.partition(begin)
    trees = [tree(found(folder, patterns), ":hidden:", f":caption: {title}") for title, patterns in TREES.items()]
    (folder / "index.md").write_text("\n".join([before, grid("figures/"), rest.partition(end)[2], *trees]))


def found(folder: Path, patterns: list[str]) -> list[str]:
    """Notebooks that a pattern with a bracket finds; other names as they stand, since those pages may not be written yet."""
    pages = []
    for pattern in patterns:
        files = sorted(folder.glob(f"{pattern}.ipynb")) if "[" in pattern else [folder / f"{pattern}.md"]
        pages += [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    return pages


def tree(pages: Iterable[str], *options: str) -> str:
    """A table of contents."""
    return "\n".join(["```{toctree}", *options, "", *pages, "```", ""])


def grid(prefix: str) -> str:
    """Every figure as a tile that leads to its page."""
    tiles = [
        f":::{{figure}} {prefix}{found.file}\n:target: {prefix}{found.name}.html\n:alt: {found.title}\n\n{found.title}\n:::"
        for found in map(make_gallery.picture, make_gallery.names())
    ]
    return "\n".join(["::::{container} gallery", *tiles, "::::", ""])


def gallery(folder: Path) -> None:
    """A page for each figure, and the gallery with a link to it in place of the script's."""
    stored = json.loads((ROOT / "figures" / "numbers.json").read_text())
    index = (folder / "figures" / "README.md").read_text()
    for picture in map(make_gallery.picture, make_gallery.names()):
        entry = stored[picture.name]
        rows = [f"| {key} | {n['value']:.6g} | {n['tolerance']:.3g} |\n" for key, n in entry["numbers"].items()]
        source = f"Source: {picture.source} (see [papers](../docs/papers.md)). " if picture.source else ""
        words, seconds = " ".join(picture.words.split()), f"{entry['seconds']:.0f}"
        fields = vars(picture) | {"words": words, "source": source, "seconds": seconds, "rows": "".join(rows)}
        (folder / "figures" / f"{picture.name}.md").write_text(FIGURE.format(**fields))
        index = index.replace(f"[{picture.name}.py]({picture.name}.py)", f"[Numbers and script]({picture.name}.md)")
    (folder / "figures" / "README.md").write_text(f"{index}\n{tree(make_gallery.names(), ':hidden:')}")


def course(folder: Path) -> None:
    """Notebooks with their solutions closed, and without the cell that is for Colab alone."""
    import nbformat

    for path in folder.glob("notebooks/*.ipynb"):
        notebook = nbformat.read(path, 4)
        notebook.cells = [cell for cell in notebook.cells if "colab" not in cell.metadata.get("tags", ())]
        for cell in notebook.cells:
            cell.source = cell.source.replace("](../README.md)", "](../index.md)")
            if "solution" in cell.metadata.get("tags", ()):
                cell.metadata.tags.append("hide-input")
        nbformat.write(notebook, path)


def api(folder: Path) -> None:
    """A page for each module, from its docstrings."""
    (folder / "docs" / "api").mkdir()
    for name in MODULES:
        (folder / "docs" / "api" / f"{name}.md").write_text(MODULE.format(name=name))
    (folder / "docs" / "api" / "index.md").write_text(f"{API}\n{tree(MODULES)}")


def papers(folder: Path) -> None:
    """The bibliography as a page; each key is an address."""
    lines = ["# Papers\n\nThe keys that docstrings, captions and [equations](equations.md) name.\n"]
    for key, entry in entries((ROOT / "docs" / "references.bib").read_text()):
        where = entry.get("journal") or entry.get("booktitle") or ""
        volume = f" {entry['volume']}" if "volume" in entry else ""
        link = f" [arXiv:{entry['eprint']}](https://arxiv.org/abs/{entry['eprint']})" if "eprint" in entry else ""
        authors = entry["author"].replace(" and ", "; ")
        lines.append(f"## {key}\n\n{authors} ({entry['year']}). *{entry['title']}*. {where}{volume}.{link}\n")
    (folder / "docs" / "papers.md").write_text("\n".join(lines))


def entries(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(key, fields) of a bibliography whose fields stand on lines of their own, in braces."""
    for kept in re.split(r"^@\w+", text, flags=re.MULTILINE)[1:]:
        fields = re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", kept, re.MULTILINE)
        yield kept[1 : kept.index(",")], {key: plain(value) for key, value in fields}


def plain(text: str) -> str:
    """TeX's accents as letters, its braces gone, its formulas kept."""
    accented = re.sub(
        r"""\{?\\(["'`^~])\{?([A-Za-z])\}?\}?""",
        lambda found: unicodedata.normalize("NFC", found[2] + MARKS[found[1]]),
        text,
    )
    parts = re.split(r"(\$.*?\$)", accented.replace(r"{\l}", "ł"))
    parts[::2] = [re.sub(r"[{}]", "", part).replace("--", "–") for part in parts[::2]]
    return "".join(parts)


def adapted(path: Path, folder: Path) -> str:
    """A page with what code hosts do differently from Sphinx put right: the first page's name, and anchors in HTML."""
    text = path.read_text()
    text = re.sub(r"\]\(((?:\.\./)*)README\.md", r"](\1index.md", text) if path.parent == folder else text
    text = re.sub(r"\]\(((?:\.\./)+)README\.md", r"](\1index.md", text)
    text = re.sub(r"(?<=results\.md#)[\w.-]+", lambda found: found[0].replace(".", "-"), text)
    return re.sub(r'<a id="([\w.-]+)"></a>', lambda found: f"[]{{#{found[1].replace('.', '-')}}}", text)


class Page(html.parser.HTMLParser):
    """What a page links to, and what it can be linked at."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.needed: set[str] = set()  # what the browser fetches to show the page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note its addresses."""
        for key, value in attrs:
            if key in ("href", "src") and value:
                self.links.add(value)
                if key == "src" or tag == "link":
                    self.needed.add(value)
            if key in ("id", "name") and value:
                self.anchors.add(value)


def dead_links(site: Path) -> list[str]:
    """Every local link of every page that leads nowhere; those to other sites are not looked at, but for what is shown."""
    site, pages = site.resolve(), {}
    for path in site.rglob("*.html"):
        pages[path] = Page()
        pages[path].feed(path.read_text())
    dead = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                if link in page.needed:
                    dead.append(f"{path.relative_to(site)}: {link} is needed to show the page, and asks for a network")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not (target.is_file() and target.is_relative_to(site)):
                dead.append(f"{path.relative_to(site)}: {link} is no file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                dead.append(f"{path.relative_to(site)}: {link} has no such anchor")
    return dead


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the documentation in build/site.")
    parser.add_argument("--out", type=Path, default=SITE, metavar="FOLDER", help=f"default {SITE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "objects.inv").exists())):
        parser.error(f"--out {options.out} holds something else, which would be lost; name a new folder")
    source = out.with_name(f"{out.name}-source")
    if source.exists() and not (source / "docs" / "conf.py").exists():
        parser.error(f"{source} is needed, and holds something else, which would be lost; pass another --out")
    made_from = digest()
    stage(source)
    shutil.rmtree(out, ignore_errors=True)
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(source / "docs"), str(source), str(out)]
    failed = subprocess.run([sys.executable, *command], check=False).returncode
    if failed:
        return failed
    dead = dead_links(out)
    print(*dead, sep="\n", end="\n" if dead else "")
    if dead:
        return 1
    (out / MADE_FROM).write_text(made_from)
    print(f"{sum(1 for _ in out.rglob('*.html'))} pages; open {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
