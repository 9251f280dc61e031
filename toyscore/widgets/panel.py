"""The panel: a figure, its controls, and what their events do."""

from __future__ import annotations

import asyncio
import base64
import html
import inspect
import io
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

import anywidget
import ipywidgets
import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image
from traitlets import Unicode

from toyscore import operators as ops
from toyscore import plotting
from toyscore.widgets import states
from toyscore.widgets.controls import Control, Slider

_LINE = 96  # characters
_MIME = {"png": "image/png", "svg": "image/svg+xml", "gif": "image/gif"}


class _Names(anywidget.AnyWidget):  # type: ignore[misc]
    """What ipywidgets keeps from a screen reader: the picture's alternative text, names of sliders' handles, and that text has changed."""

    alt = Unicode("").tag(sync=True)
    _esm = """
    export default {
      render({ model, el }) {
        let panel;
        const name = () => {
          for (const image of panel.querySelectorAll(".widget-image")) image.alt = model.get("alt");
          for (const row of panel.querySelectorAll(".toyscore-slider")) {
            const label = row.querySelector(".widget-label"), handle = row.querySelector("[role=slider]");
            if (label && handle) handle.setAttribute("aria-label", label.textContent);
          }
          for (const text of panel.querySelectorAll(".widget-html-content")) text.setAttribute("aria-live", "polite");
        };
        const observer = new MutationObserver(name);  // the parts of a panel come one by one
        const begin = () => {
          panel = el.closest(".toyscore-panel");
          if (!panel) return (waiting = requestAnimationFrame(begin));
          observer.observe(panel, { childList: true, subtree: true });
          model.on("change:alt", name);
          name();
        };
        let waiting = requestAnimationFrame(begin);
        return () => {
          cancelAnimationFrame(waiting);
          observer.disconnect();
          model.off("change:alt", name);
        };
      },
    };
    """


class Panel:
    """A figure with controls; made by :func:`panel`, shown by being the last line of a cell."""

    def __init__(
        self,
        figure: Figure,
        draw: Callable[..., object],
        controls: Mapping[str, Control],
        play: str | None,
        interval: float,
        name: str,
    ) -> None:
        self.figure, self.name, self.interval = figure, name, interval
        self.controls = MappingProxyType(dict(controls))
        self._draw, self._played = draw, play
        labels = {key: key.replace("_", " ") for key in controls}
        self._inputs = {key: control.widget(labels[key]) for key, control in controls.items()}
        self._numbers = {
            key: control.number(labels[key]) for key, control in controls.items() if isinstance(control, Slider)
        }
        self._start = {key: control.value for key, control in controls.items()}
        self._picture, self._names = ipywidgets.Image(format="png"), _Names(layout={"display": "none"})
        self._picture.layout = {
            "max_width": "100%",
            "margin": "2px 0",
            "align_self": "flex-start",
        }  # else a narrow one is stretched
        self._words, self._status = ipywidgets.HTML(layout={"display": "none"}), ipywidgets.HTML()
        self._worded = ipywidgets.ToggleButton(
            description="in words", tooltip="the picture in words and numbers", layout={"width": "auto"}
        )
        self._state = ipywidgets.Text(
            description="state",
            tooltip="every value: copy it, or paste one and press enter",
            continuous_update=False,
        )
        self._state.layout.width = "auto"
        self._task: asyncio.Task[None] | None = None
        self._quiet = False
        self._render = plotting.renderer(figure)
        if figure in _PANELS:
            _PANELS[figure].stop()  # of a cell that was run before
        _PANELS[figure] = self
        self._show()
        self.box = self._assemble()

    def _assemble(self) -> Any:
        for key, control in self._inputs.items():
            control.observe(self._handler(lambda _: self._show()), "value")
            if key in self._numbers:
                self._numbers[key].observe(self._handler(partial(self._take_number, key)), "value")
        self._state.observe(self._handler(lambda change: self.restore(change["new"])), "value")
        row = []
        for label, (action, tooltip) in self._actions().items():
            button = ipywidgets.Button(description=label, tooltip=tooltip, layout={"width": "auto"})
            button.on_click(self._handler(_ignoring(action)))
            row.append(button)
        self._worded.observe(self._handler(lambda change: self._show_words(change["new"])), "value")
        row.append(self._worded)
        box = ipywidgets.VBox(
            [
                *(self._row(key) for key in self.controls),
                ipywidgets.HBox(row, layout={"flex_flow": "row wrap"}),
                self._picture,
                self._status,
                self._words,
                self._names,
                self._state,
            ]
        )
        return box.add_class("toyscore-panel")

    def _actions(self) -> dict[str, tuple[Callable[[], object], str]]:
        """The buttons: what each does, as a function and in words."""
        actions: dict[str, tuple[Callable[[], object], str]] = {}
        if self._played is not None:
            played = self._played.replace("_", " ")
            actions["play"] = self.play, f"move {played} to its end"
            actions["step"] = self.step, f"move {played} on by one"
            actions["stop"] = self.stop, "stop playing"
        actions["reset"] = self.reset, "put every control back to where it began"
        for kind in ("png", "svg", "gif") if self._played is not None else ("png", "svg"):
            actions[kind.upper()] = partial(self._offer, kind), f"a link to save the picture as {kind.upper()}"
        return actions

    def _row(self, key: str) -> Any:
        """A control as it is shown: a slider follows the number that has its name."""
        control, number = self._inputs[key], self._numbers.get(key)
        named = control if number is None else number
        named.style.description_width, named.tooltip = "7em", named.description
        if number is None:
            control.layout.width = "32em"
            return control
        number.layout.width, control.layout.width = "13.5em", "24em"
        return ipywidgets.HBox([number, control]).add_class("toyscore-slider")

    def _take_number(self, key: str, change: Mapping[str, Any]) -> None:
        """Move a slider to the step next to what was typed, and say so where that is another number."""
        control, typed = self.controls[key], change["new"]
        assert isinstance(control, Slider)
        nearest = control.nearest(typed)
        with self._silence():
            self._inputs[key].value = nearest
        self._show()
        if not control.on_step(typed):
            self.say(f"{typed:g} is between two steps of {control.stride:g}; the nearest, {nearest:g}, is taken")

    def _show_words(self, shown: bool) -> None:
        self._words.layout.display = "" if shown else "none"
        # A screen reader is not told that a toggle button is pressed.
        self._worded.description = "words off" if shown else "in words"

    def _handler(self, action: Callable[[Any], object]) -> Callable[[Any], None]:
        def handle(event: Any) -> None:
            if not self._quiet:
                with self._reporting():
                    action(event)

        return handle

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Show the reader what fails in an event, where a traceback would go to a log."""
        try:
            yield
        except Exception as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "  # a reader's slip needs no type
            self.say(f"{kind}{error}", problem=True)
            raise

    def say(self, text: str, *, problem: bool = False) -> None:
        """Show a line under the picture, until the next change."""
        colour = "#b00020" if problem else "inherit"
        self._status.value = f'<span role="status" style="color: {colour}">{html.escape(text)}</span>' if text else ""

    @property
    def values(self) -> dict[str, Any]:
        """What ``draw`` is called with."""
        return {
            key: control.nearest(self._inputs[key].value) if isinstance(control, Slider) else self._inputs[key].value
            for key, control in self.controls.items()
        }

    @property
    def state(self) -> str:
        """Every value as one line, ``sigma=1.5&seed=3``; ``restore`` takes it back."""
        return states.written(self.values)

    @property
    def alt(self) -> str:
        """What the picture that is shown says, in words and numbers."""
        return str(self._names.alt)

    @property
    def words(self) -> str:
        """``alt`` in lines that a notebook's cell need not break, to be printed."""
        return textwrap.fill(self.alt, _LINE, break_long_words=False, break_on_hyphens=False)

    @property
    def png(self) -> bytes:
        """The picture that is shown."""
        return bytes(self._picture.value)

    def set(self, **values: Any) -> None:
        """Change some values and draw once.

        Raises:
            ValueError: an unknown name, or a value that its control does not have. Then nothing changes.
        """
        self.restore(states.written(values))

    def restore(self, state: str) -> None:
        """Take the values of a state string, or of a link that ends in one; those it does not name stay.

        Raises:
            ValueError: as :func:`toyscore.widgets.states.read`. Then nothing changes.
        """
        new = states.read(state, self.controls, self.name)
        with self._silence():
            for key, value in new.items():
                self._inputs[key].value = value
        self._show()

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Change controls without drawing at each."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def reset(self) -> None:
        """Stop, and put every control back to where it began."""
        self.stop()
        self.set(**self._start)

    def begin_here(self) -> None:
        """Make the present values those that :meth:`reset` goes back to."""
        self._start = self.values

    def step(self) -> bool:
        """Move the played control on by one step; False at its end, where nothing is drawn."""
        key, slider = self._play_control()
        n = slider.place(self.values[key]) + 1
        if n == slider.n_values:
            return False
        self.set(**{key: slider.at(n)})
        return True

    def play(self) -> None:
        """Step until the end or :meth:`stop`, in the kernel's event loop; at the end, from the beginning.

        Raises:
            RuntimeError: there is no event loop, as in a script.
        """
        key, slider = self._play_control()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise RuntimeError("play needs a notebook's event loop: call step(), or export a GIF") from error
        if self.playing:
            return
        if slider.place(self.values[key]) == slider.n_values - 1:
            self.set(**{key: slider.low})
        self._task = loop.create_task(self._run())

    async def _run(self) -> None:
        with self._reporting():
            while self.step():
                await asyncio.sleep(self.interval)

    @property
    def playing(self) -> bool:
        """Whether the play button is at work."""
        return self._task is not None and not self._task.done()

    def stop(self) -> None:
        """Stop playing, where it is."""
        if self._task is not None:
            self._task.cancel()

    def _play_control(self) -> tuple[str, Slider]:
        control = self.controls.get(self._played or "")
        if self._played is None or not isinstance(control, Slider):
            raise ValueError('this panel plays nothing: make it with play="the name of a slider"')
        return self._played, control

    def export(self, path: str | Path) -> None:
        """Write the picture as .png or .svg, or its run over the played control as .gif, with its description.

        Raises:
            ValueError: another ending; a GIF of a panel that plays nothing.
        """
        path = Path(path)
        self._show()  # the figure may have been drawn on since
        with mpl.rc_context(plotting.STYLE):
            if path.suffix != ".gif":
                plotting.save(self.figure, path)
                return
            key, slider = self._play_control()
            values, words = self.values, []

            def update(n: int) -> None:
                self.say(f"frame {n + 1} of {slider.n_values}")
                self._draw(**values | {key: slider.at(n)})
                words.append(plotting.alt_text(self.figure))

            try:
                frames = list(plotting.animate(self.figure, update, range(slider.n_values)))
            finally:
                self._show()
        plotting.save_gif(
            frames, path, fps=min(50.0, 1 / self.interval), description=f"From: {words[0]} To: {words[-1]}"
        )

    def _offer(self, kind: str) -> None:
        """Put a link to the exported picture under it, which works wherever the reader's browser is."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{self.name}.{kind}"
            self.export(path)
            data = path.read_bytes()
        address = f"data:{_MIME[kind]};base64,{base64.b64encode(data).decode()}"
        name = html.escape(path.name)
        link = f'<a style="text-decoration: underline" download="{name}" href="{address}">save {name}</a>'
        self._status.value = f'<span role="status">{link} ({len(data) / 1000:.0f} kB)</span>'

    def _show(self) -> None:
        """Draw with the values that are, render, and send."""
        values = self.values
        with self._silence():
            for key, number in self._numbers.items():
                number.value = values[key]  # the slider's own may be 2.0000000298
        with mpl.rc_context(plotting.STYLE):
            self._draw(**values)
            pixels, words = self._render(), plotting.alt_text(self.figure)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        self._picture.value = buffer.getvalue()
        self._names.alt = words
        self._words.value = html.escape(words)
        self.say("")
        with self._silence():
            self._state.value = self.state

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live panel; for readers without a kernel, the picture and its description, which a page made of the notebook shows too."""
        live = self.box._repr_mimebundle_()
        picture = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}
        return {**live, **picture}, {"image/png": {"alt": self.alt}}


_PANELS: WeakKeyDictionary[Figure, Panel] = WeakKeyDictionary()  # the one that draws on each figure


def _ignoring(action: Callable[[], object]) -> Callable[[Any], object]:
    """The action of a button, which is passed itself."""
    return lambda _: action()


def panel(
    figure: Figure,
    draw: Callable[..., object],
    /,
    *,
    play: str | None = None,
    interval: float = 0.06,
    name: str = "toyscore",
    **controls: Control,
) -> Panel:
    """Controls over ``draw``, which is called with all their values and changes the artists of ``figure``.

    Args:
        figure: from ``plotting.canvas``; it is kept.
        draw: called by keyword, ``draw(sigma=..., seed=...)``; what it returns is ignored.
        play: the slider that the play button moves.
        interval: seconds between the steps of playing.
        name: of exported files.
        controls: ``name=Slider(...)``, ``Choice``, ``Toggle`` or ``Seed``, in the order shown.

    Raises:
        TypeError: not a figure; ``draw`` does not take these controls, or a control is none.
        ValueError: no control; ``play`` is not the name of a slider; a name that no file can have.
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"figure is {type(figure).__name__}: it must be a figure; pass the first of plotting.canvas()")
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"name = {name!r}: it becomes a file's name; pass letters, digits, dots and dashes")
    if not controls:
        raise ValueError("a panel without controls: pass e.g. sigma=Slider(0.0, 4.0, 1.0)")
    for key, control in controls.items():
        if not isinstance(control, Control):
            raise TypeError(
                f"{key} is {type(control).__name__}: a control is a Slider, Choice, Toggle or Seed; pass one"
            )
    try:
        inspect.signature(draw).bind(**controls)
    except TypeError as error:
        raise TypeError(f"draw does not take the controls {', '.join(controls)}: {error}; name them alike") from error
    if play is not None and not isinstance(controls.get(play), Slider):
        raise ValueError(
            f"play = {play!r}: it must name a slider, of {', '.join(k for k, c in controls.items() if isinstance(c, Slider))}"
        )
    ops.check_positive(interval, "interval")
    return Panel(figure, draw, controls, play, interval, name)
