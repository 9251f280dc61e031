"""Folders beside the package in a clone, which a wheel carries inside it."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def shipped(clone: str, wheel: str, member: str) -> Path:
    """The folder with a member: ``clone``, next to the package, or ``wheel``, in it.

    Raises:
        FileNotFoundError: where neither has it.
    """
    folders = PACKAGE.parent / clone, PACKAGE / wheel
    for folder in folders:
        if (folder / member).exists():
            return folder
    raise FileNotFoundError(
        f"no {clone} in {folders[0]} or {folders[1]}: install toyscore from a clone, with pip install -e ."
    )
