"""States: every value of a panel as one line, ``sigma=1.5&seed=3``, which may come as the end of a link."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, urlencode

from toyscore.widgets.controls import Control

_LONGEST = 4_000  # characters


def written(values: Mapping[str, Any]) -> str:
    """The state of these values."""
    return urlencode(values)


def read(state: str, controls: Mapping[str, Control], name: str) -> dict[str, Any]:
    """The values that a state, or a link, has for the panel of that name and controls.

    Raises:
        ValueError: too long, for another panel, an unknown name, or a value that its control does not have.
    """
    values = {}
    for key, text in _pairs(state, name):
        if key not in controls:
            near = get_close_matches(key, controls, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"state has {key}={text}: the controls are {', '.join(controls)}{meant}")
        try:
            values[key] = controls[key].parse(text)
        except ValueError as error:
            raise ValueError(f"state has {key}={text}: {error}") from error
    return values


def _pairs(state: str, name: str) -> list[tuple[str, str]]:
    """Names and values of a state; of a link, without its token, and of the part that is for this panel."""
    state = state.strip()
    if len(re.sub(r"\btoken=[^&#]*", "", state)) > _LONGEST:
        raise ValueError(f"state has {len(state):,} characters: no panel's is longer than {_LONGEST:,}; copy one anew")
    query = state.partition("?")[2]
    if not query:
        return parse_qsl(state, keep_blank_values=True, strict_parsing=bool(state))
    pairs = [pair for pair in parse_qsl(query.partition("#")[0], keep_blank_values=True) if pair[0] != "token"]
    mine = addressed(pairs, name)
    if pairs and not mine:
        raise ValueError(f"the link has nothing for this panel, {name}: it is for {pairs[0][1]}; paste it there")
    return mine


def addressed(pairs: Iterable[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    """Of a link's names and values those for one panel: after ``panel=NAME`` they are for the panel of that name alone."""
    found, wanted = [], name
    for key, value in pairs:
        if key == "panel":
            wanted = value
        elif wanted == name:
            found.append((key, value))
    return found
