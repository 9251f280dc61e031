"""Answers to the notebooks' exercises, a module for each of ``notebooks/checks``: right ones, nearly right ones, and the usual mistakes."""

from collections.abc import Callable
from typing import NamedTuple

Answer = Callable | tuple[Callable, ...]  # a function, or those that the check takes together


class Exercise(NamedTuple):
    """What ``check`` says of answers."""

    check: Callable
    right: dict[str, Answer]
    says: str  # how what is said of a right answer begins, as a regular expression
    nearly: list[Answer]  # off by little, or by nothing that a hint could cure
    wrong: dict[str, Answer]  # words of the hint that helps -> the mistake
    before: str = ""  # what is said before "Not yet", as a regular expression


def plus(answer, off):
    """An answer that is off by a little."""
    return lambda *given: answer(*given) + off
