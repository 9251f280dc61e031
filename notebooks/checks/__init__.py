"""What the notebooks check: the set-up, and the reader's own answers. Nothing here uses toyscore to judge them.

A check prints what is right or wrong, with a hint, and never raises: a notebook runs from top to bottom whatever the reader
has written so far. ``judge`` does the printing; there is a module for each subject.
"""

from checks.score import mixture_score
from checks.setup import setup

__all__ = ["mixture_score", "setup"]
