"""What a command says when it cannot go on: at most five lines and an exit code of its own, never a traceback unasked.

===  ==========================================================
  1  an error nobody foresaw; ``--debug`` shows where
  2  the configuration or the command line
  3  a file or folder that is missing, unreadable or not what it should be
  4  no space left on the disk
  5  too little memory
  6  a download that failed
  7  training or sampling that diverged
  8  a checkpoint that is damaged or missing
  9  a run folder that is in use, or holds another run
 10  a package that is not installed, or another thing that the doctor misses
129  SIGHUP, as when the terminal is closed, like Ctrl-C
130  Ctrl-C; train saves first, others leave the files that are there as they were
143  SIGTERM, likewise
===  ==========================================================
"""

from __future__ import annotations

import errno
import re
import sys

from toyscore.config import ConfigError

_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


class FolderError(ValueError):
    """A run folder that is in use or holds another run."""


class StoppedError(KeyboardInterrupt):
    """A signal asked for the end; like Ctrl-C, it passes by those who handle every ``Exception``."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the words for an error."""
    text = str(error) or type(error).__name__
    if isinstance(error, StoppedError):
        return 128 + error.signum, text
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped"
    parser = sys.modules.get("jsonargparse")  # missing where the extra is not installed
    if parser is not None and isinstance(error, parser.ArgumentError):
        return 2, _reworded(text)
    if isinstance(error, ConfigError):
        return 2, text
    if isinstance(error, FolderError):
        return 9, text
    if isinstance(error, ImportError):
        return 10, text
    return _library(error, text)


def printable(text: str) -> str:
    """Words on one line, whose signs a terminal shows and does not obey: names of files may hold any."""
    line = re.sub(r"\s*\n\s*", " ", text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def _library(error: BaseException, text: str) -> tuple[int, str]:
    """Errors of what was imported to do the work."""
    from toyscore.data import DownloadError
    from toyscore.operators import DivergenceError
    from toyscore.train import CheckpointError

    if isinstance(error, DownloadError):
        return 6, text
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return (
                4,
                f"no space left to write {error.filename or 'the files of the run'}: what was saved before is whole; free some space",
            )
        named = f"{error.filename}: {error.strerror}" if error.filename else text
        return 3, named
    if isinstance(error, DivergenceError):
        return 7, text
    if isinstance(error, CheckpointError):
        return 8, text
    if isinstance(error, MemoryError) or re.search(r"out of memory|can't allocate memory|not enough memory", text):
        return 5, (
            "too little memory for this run: raise training.n_shards (the batch in smaller pieces), or lower training.batch_size "
            "or network.width; where samples are drawn, lower --batch or --samples"
        )
    if isinstance(error, ValueError | TypeError):
        return 2, text
    return (
        1,
        f"{type(error).__name__}: {text.splitlines()[0]}; this should not happen: run again with --debug and report it",
    )


def _reworded(text: str) -> str:
    """The parser's messages without Python's words."""
    union = re.search(r'"([\w.]+)".*?Subtypes: \[([^\n]*)\]\n.*Given value: (.*)', text, re.DOTALL)
    if union:  # each of the types is tried, and each failure told; which they were is enough
        text = f"{union[1]} = {union[3].strip() or repr('')}: it must be {union[2].replace(', <', ' or <')}"
    text = re.sub(
        r"Unexpected config: .*", "it must hold groups of keys, as in training: {n_steps: 100}", text, flags=re.DOTALL
    )
    text = re.sub(r"required: (?:course|figure)\.(\w+)", r"required: \1", text)  # which have no dashes
    text = re.sub(r"required: [\w-]+\.(\w+)", r"required: --\1", text)
    text = re.sub(r"<class '(\w+)'>", lambda m: _TYPES.get(m[1], m[1]), text)
    text = re.sub(r"(?:typing\.)?Literal\[(.*?)\]", lambda m: "one of " + m[1].replace("'", ""), text)
    text = re.sub(r"(?:typing\.)?(?:Union|Optional)\[(.*?)\]", r"\1", text).replace("NoneType", "null")
    text = re.sub(r"Expected an? ((?:one of|a whole|a number|true|text))", r"Expected \1", text)
    text = re.sub(r'Parser key "([\w.]+)":\s*Expected (.*?)\. Got value: (.*)', _allowed, text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:5])


def _allowed(match: re.Match[str]) -> str:
    key, allowed, value = match.groups()
    value = {"": "''", "None": "null", "True": "true", "False": "false"}.get(value, value)
    return f"{key} = {value}: it must be {allowed}"
