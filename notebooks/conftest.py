"""For ``pytest --nbval notebooks``: a notebook runs once, its outputs are compared by the rule of build.py, and its panels are moved."""

import re
import sys
from collections import defaultdict
from pathlib import Path

import nbformat
from nbval.plugin import IPyNbCell, IPyNbFile

sys.path.insert(0, str(Path(__file__).parent))
import build

PANEL = r"= (?:widgets\.)?panel\("
# Every control of every panel, to both of its ends. A function, for the names that a notebook has are its own.
MOVE = """def _move_everything():
    from toyscore.widgets.panel import _PANELS

    for panel in list(_PANELS.values()):
        for key, control in panel.controls.items():
            ends = getattr(control, "options", None) or ([control.low, control.high] if hasattr(control, "low") else [True, False])
            for value in (ends[0], ends[-1]):
                panel.set(**{key: value})
        panel.reset()
    print(len(_PANELS), "panels moved")


_move_everything()"""


def cells(self):
    """The cells of a notebook, then one that moves its panels: a later cell that takes a name on which a panel draws would break it in
    the reader's hands, not in the stored outputs. Pictures are compared, too, and what is said of them."""
    self.skip_compare = ("output_type", "name", "execution_count", build.LIVE)
    found = list(collect(self))
    number = sum(len(re.findall(PANEL, cell.source)) for cell in self.nb.cells if cell.cell_type == "code")
    said = nbformat.v4.new_output("stream", text=f"{number} panels moved\n")
    last = nbformat.v4.new_code_cell(MOVE, outputs=[said], execution_count=1)
    form = {"cell_num": len(found), "cell": last, "options": defaultdict(bool, check=True)}
    return [*found, *([IPyNbCell.from_parent(self, name="Panels", **form)] if number else [])]


collect, IPyNbFile.collect = IPyNbFile.collect, cells
IPyNbCell.sanitize = lambda _, output: build.comparable(output)  # what nbval compares
