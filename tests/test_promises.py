"""docs/reliability.md names the tests of each promise, and counts their cases."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text()
# [words](../tests/file.py) or [words](../tests/file.py)::test_name, then the number of cases
NAMED = re.findall(r"\[[^]]+\]\(\.\./(tests/[\w/]+\.py)\)(?:`::(test_\w+)`)? \(([\d,]+)\)", PAGE)


def test_every_promise_has_a_test_with_its_number_of_cases(request):
    """Of the files that are collected whole; a run of one test counts nothing"""
    cases, wrong = request.config.cases, []
    for path, test, stated in NAMED:
        if path in cases:
            n = cases[path].get(test, 0) if test else sum(cases[path].values())
            if n != int(stated.replace(",", "")):
                wrong.append(f"{path} {test}: {n:,} cases, the page says {stated}")
    assert not wrong, "\n".join(wrong)


def test_every_row_names_a_test_and_every_test_of_the_folder_has_a_row():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| promise", "| ---"))]
    assert len(rows) >= 20
    assert all(re.search(r"\(\.\./tests/[\w/]+\.py\)\S* \(", row) for row in rows)
    named = {path for path, _, _ in NAMED}
    assert {f"tests/reliability/{path.name}" for path in (ROOT / "tests/reliability").glob("test_*.py")} <= named
    for path, test, _ in NAMED:
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path} has no {test}"
