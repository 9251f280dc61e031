"""The documentation: made without a warning, a dead link or a network, searched without a server, read on a laptop and on a phone."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from test_browser import browser  # noqa: F401  (a fixture)

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import make_site  # noqa: E402

KINDS = [
    "index.html",
    "notebooks/README.html",
    "notebooks/09_annealed_langevin.html",
    "figures/README.html",
    "figures/ncsn-fig2.html",
    "docs/api/samplers.html",
    "docs/conventions.html",
    "docs/equations.html",
    "docs/reliability.html",
    "benchmarks/results.html",
]


@pytest.fixture(scope="module")
def site():
    """All pages, as `make docs` makes them: those in build/site, if they were made from the sources as they are."""
    make_site.SITE.parent.mkdir(exist_ok=True)
    with FileLock(make_site.SITE.parent / "site.lock"):
        if not make_site.current():
            run = subprocess.run([sys.executable, make_site.__file__], capture_output=True, text=True)
            assert run.returncode == 0, run.stdout + run.stderr
    return make_site.SITE


def test_a_site_is_current_until_a_source_changes(tmp_path, monkeypatch):
    source = tmp_path / "README.md"
    source.write_text("one")
    monkeypatch.setattr(make_site, "ROOT", tmp_path)
    assert not make_site.current(tmp_path)
    (tmp_path / make_site.MADE_FROM).write_text(make_site.digest())
    assert make_site.current(tmp_path)
    source.write_text("two")
    assert not make_site.current(tmp_path)
    assert source in make_site.sources()


@pytest.mark.slow
def test_everything_has_its_page(site):
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert set(KINDS) <= pages
    for path in ROOT.glob("notebooks/[0-9]*.ipynb"):
        assert f"notebooks/{path.stem}.html" in pages
    for path in ROOT.glob("figures/*.py"):
        if path.stem not in ("run", "shared"):
            assert f"figures/{path.stem}.html" in pages
    modules = {path.stem for path in (ROOT / "toyscore").glob("[a-z]*") if path.suffix in ("", ".py")}
    private = {"__pycache__", "cli", "weights"}  # the command line has its own help
    assert {f"docs/api/{name}.html" for name in modules - private} <= pages


@pytest.mark.slow
def test_a_figures_page_has_its_numbers_and_its_script(site):
    text = re.sub(r"<[^>]*>", "", (site / "figures" / "ncsn-fig3.html").read_text())
    assert re.search(r"predicted_annealed\s+0\.78\d+\s+0\.0001\s", text)
    assert "figures/run.py --only ncsn-fig3" in text
    assert "def compute(seed: int, quick: bool)" in text


@pytest.mark.slow
def test_a_notebooks_page_shows_outputs_and_keeps_solutions_closed(site):
    text = (site / "notebooks" / "05_langevin_dynamics.html").read_text()
    assert text.count('class="cell_output') > 5
    assert "google.colab" not in text
    before, _, _ = text.partition('def</span><span class="w"> </span><span class="nf">solution')
    assert before.rfind("<details") > before.rfind("</details>")


def test_what_is_dead_is_found(tmp_path, monkeypatch):
    """A link to no file, out of the site, to no anchor here and there, and a script from a network; nothing else; by any path."""
    (tmp_path / "outside.html").write_text("")
    (tmp_path / "site").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site" / "a.html").write_text(
        '<p id="here"><a href="#here">x</a><a href="b.html#there">x</a><a href="https://elsewhere.org">x</a>'
        '<a href="#gone">x</a><a href="c.html">x</a><a href="b.html#gone">x</a><a href="../outside.html">x</a><script src="https://cdn.org/x.js"></script>'
    )
    (tmp_path / "site" / "b.html").write_text('<p id="there">')
    for folder in (tmp_path / "site", Path("site")):
        dead = "\n".join(make_site.dead_links(folder))
        assert len(dead.splitlines()) == 5
        for words in (
            "a.html: #gone has no such anchor",
            "c.html is no file",
            "outside.html is no file",
            "b.html#gone has no such",
            "asks for a network",
        ):
            assert words in dead


def test_a_folder_with_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(SystemExit) as stop:
        make_site.main(["--out", str(tmp_path)])
    assert stop.value.code == 2
    assert "holds something else, which would be lost; name a new folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "all of it"


def test_the_bibliography_is_read():
    found = dict(make_site.entries((ROOT / "docs" / "references.bib").read_text()))
    assert found["hyvarinen2005"]["author"] == "Hyvärinen, Aapo"
    assert all({"title", "author", "year"} <= entry.keys() for entry in found.values())
    assert r"$\widehat{R}$" in found["vehtari2021"]["title"]
    assert not [entry for entry in found.values() if "\\" in entry["author"]]


@pytest.mark.slow
def test_the_search_works_without_a_server(site, browser):  # noqa: F811
    browser.get((site / "search.html").as_uri() + "?q=freeze")
    for _ in range(60):
        found = browser.find_elements("css selector", "#search-results li a")
        if any("freeze" in link.get_attribute("href") for link in found):
            return
        time.sleep(0.5)
    pytest.fail(f"the search for freeze found {[link.text for link in found]}")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844)], ids=["laptop", "phone"])
def test_pages_fit_a_laptop_and_a_phone(site, browser, width, height):  # noqa: F811
    """No page is wider than the window, every picture has words, and equations are set, not shown as source."""
    form = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", form)
    try:
        for page in KINDS:
            browser.get((site / page).as_uri())
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width, page
            assert not browser.execute_script(
                "return [...document.images].filter(i => !i.alt || !i.naturalWidth).length"
            ), page
        browser.get((site / "notebooks" / "09_annealed_langevin.html").as_uri())
        for _ in range(60):
            if browser.find_elements("css selector", "mjx-container"):
                break
            time.sleep(0.5)
        assert len(browser.find_elements("css selector", "mjx-container")) > 20
        assert not browser.find_elements("css selector", "mjx-merror, [data-mjx-error]")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
