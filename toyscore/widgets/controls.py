"""What a reader can move: each control knows its values, how to read one from a state string, and its widget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import ipywidgets

from toyscore import operators as ops


@dataclass(frozen=True)
class Slider:
    """A number from ``low`` to ``high`` in steps of ``step`` (a hundredth of the range by default); integers stay integers.

    Raises:
        ValueError: not low <= value <= high, low = high, a step that is not positive, or a value between two steps.
    """

    low: float
    high: float
    value: float
    step: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"a slider from {self.low} to {self.high}: it must be finite and rise; pass e.g. Slider(0.0, 1.0, 0.5)"
            )
        if not self.low <= self.value <= self.high:
            raise ValueError(
                f"a slider at {self.value}: it must start within [{self.low}, {self.high}]; pass a value in between"
            )
        if self.step is not None:
            ops.check_positive(self.step, "step")
        if not self.on_step(self.value):
            raise ValueError(
                f"a slider at {self.value} in steps of {self.stride:g} from {self.low}: it must start on a step, the nearest is "
                f"{self.nearest(self.value)}; pass another step or value"
            )

    @property
    def stride(self) -> float:
        """The step that is taken."""
        if self.step is not None:
            return self.step
        return 1 if all(isinstance(v, int) for v in (self.low, self.high, self.value)) else (self.high - self.low) / 100

    @property
    def whole(self) -> bool:
        """Whether the values are integers."""
        return isinstance(self.low, int) and isinstance(self.stride, int)

    def on_step(self, value: float) -> bool:
        """Whether a number is one of the slider's values, but for rounding."""
        return abs(self.nearest(value) - value) <= 1e-4 * self.stride

    def parse(self, text: str) -> float:
        """A value from the state string, which must be one of the slider's."""
        try:
            value = float(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no number; give one from {self.low} to {self.high}") from error
        if not self.low <= value <= self.high:
            raise ValueError(f"{text} is out of range; give a number from {self.low} to {self.high}")
        if not self.on_step(value):
            raise ValueError(f"{text} is between two steps of {self.stride:g}; the nearest is {self.nearest(value)}")
        return self.nearest(value)

    def at(self, n: int) -> float:
        """The value n strides above ``low``."""
        ops.check_count(n, "n", 0)
        value = self.low + n * self.stride
        return (
            value if self.whole else round(value, 5 - math.floor(math.log10(self.stride)))
        )  # 0.3, not 0.30000000000000004

    def place(self, value: float) -> int:
        """The n for which ``at(n)`` is nearest."""
        if not math.isfinite(value):
            raise ValueError(
                f"value = {value}: no place on a slider is near it; pass a number from {self.low} to {self.high}"
            )
        return max(0, min(round((value - self.low) / self.stride), self.n_values - 1))

    def nearest(self, value: float) -> float:
        """The slider's own value next to a number."""
        return self.at(self.place(value))

    @property
    def n_values(self) -> int:
        """How many values there are."""
        return math.floor((self.high - self.low) / self.stride + 1e-9) + 1

    def widget(self, label: str) -> Any:
        """The ipywidgets control; its handle has the label of :meth:`number`, which stands beside it."""
        kind = ipywidgets.IntSlider if self.whole else ipywidgets.FloatSlider
        slider = kind(self.value, min=self.low, max=self.high, step=self.stride, readout=False)
        slider.tooltip = label
        return slider

    def number(self, label: str) -> Any:
        """The same value as a number to type, which a screen reader finds by its name."""
        kind = ipywidgets.BoundedIntText if self.whole else ipywidgets.BoundedFloatText
        return kind(self.value, min=self.low, max=self.high, step=self.stride, description=label)


@dataclass(frozen=True)
class Choice:
    """One of ``options``.

    Raises:
        ValueError: no options, or a value that is not among them.
    """

    options: Sequence[str]
    value: str

    def __post_init__(self) -> None:
        if not all(isinstance(option, str) for option in self.options):
            raise TypeError(f"options = {self.options!r}: they must be strings; pass e.g. ('few', 'many')")
        if self.value not in self.options:
            raise ValueError(f"a choice of {self.value!r}: the options are {', '.join(self.options)}; pass one of them")

    def parse(self, text: str) -> str:
        """A value from the state string."""
        if text not in self.options:
            raise ValueError(f"{text!r} is no option; choose from {', '.join(self.options)}")
        return text

    def widget(self, label: str) -> Any:
        """The ipywidgets control."""
        return ipywidgets.Dropdown(options=list(self.options), value=self.value, description=label)


@dataclass(frozen=True)
class Toggle:
    """Yes or no."""

    value: bool = False

    def parse(self, text: str) -> bool:
        """A value from the state string."""
        if text not in ("True", "False"):
            raise ValueError(f"{text!r} is neither True nor False; give one of them")
        return text == "True"

    def widget(self, label: str) -> Any:
        """The ipywidgets control."""
        return ipywidgets.Checkbox(self.value, description=label)


@dataclass(frozen=True)
class Seed:
    """A seed from 0 to 2³¹ - 1, part of the state like every other value."""

    value: int = 0

    def __post_init__(self) -> None:
        self.parse(str(self.value))

    def parse(self, text: str) -> int:
        """A value from the state string."""
        if not (text.isdecimal() and int(text) < 2**31):
            raise ValueError(f"{text!r} is no seed; give a whole number from 0 to {2**31 - 1}")
        return int(text)

    def widget(self, label: str) -> Any:
        """The ipywidgets control."""
        return ipywidgets.BoundedIntText(self.value, min=0, max=2**31 - 1, description=label)


Control: TypeAlias = Slider | Choice | Toggle | Seed
