"""Controls, state, playing and export, in the kernel; the browser's side is in test_browser.py."""

import asyncio
import base64
import html
import io
import re

import anywidget
import ipywidgets
import pytest
from PIL import Image

from toyscore import plotting
from toyscore.distributions import asymmetric
from toyscore.widgets import Choice, Seed, Slider, Toggle, panel

P = asymmetric()


class Recorder:
    """A figure with a density, a draw function that keeps what it was called with, and its panel."""

    def __init__(self, play="sigma"):
        self.calls = []
        self.figure, self.ax = plotting.canvas(size=3.0)
        self.image = plotting.density(self.ax, P.log_prob, n=20)
        controls = {
            "sigma": Slider(0.0, 2.0, 0.5, step=0.5),
            "toy": Choice(("a", "b & c"), "a"),
            "on": Toggle(),
            "seed": Seed(3),
        }
        self.panel = panel(self.figure, self.draw, play=play, interval=0.001, **controls)

    def draw(self, sigma, toy, on, seed):
        if sigma == 1.5 and on:
            raise RuntimeError("no such <picture>")
        self.calls.append({"sigma": sigma, "toy": toy, "on": on, "seed": seed})
        plotting.density(self.ax, P.log_prob, sigma=sigma, n=20, update=self.image)
        self.ax.set_title(f"sigma {sigma}, {toy}")

    def widget(self, kind, description):
        def walk(box):
            yield box
            for child in getattr(box, "children", ()):
                yield from walk(child)

        (found,) = (w for w in walk(self.panel.box) if isinstance(w, kind) and w.description == description)
        return found

    def slider(self, key):
        (row,) = (
            row
            for row in self.panel.box.children
            if key == getattr(getattr(row, "children", [row])[0], "description", "")
        )
        return row.children[1]

    def press(self, label):
        self.widget(ipywidgets.Button, label).click()

    @property
    def status(self):
        return " ".join(
            w.value for w in self.panel.box.children if isinstance(w, ipywidgets.HTML) and "status" in w.value
        )


@pytest.fixture
def live():
    return Recorder()


START = {"sigma": 0.5, "toy": "a", "on": False, "seed": 3}


def test_a_change_in_the_browser_draws_once_with_all_values(live):
    before, n = live.panel.png, len(live.calls)
    live.slider("sigma").value = 1.0
    assert live.calls[n:] == [START | {"sigma": 1.0}]
    assert live.panel.png != before
    with Image.open(io.BytesIO(live.panel.png)) as image:
        assert image.size == (300, 300)


def test_a_number_with_the_controls_name_stands_beside_a_slider(live):
    number, slider, n = live.widget(ipywidgets.BoundedFloatText, "sigma"), live.slider("sigma"), len(live.calls)
    slider.value = 1.0000000298  # as the browser sends it
    assert (number.value, live.panel.values["sigma"]) == (1.0, 1.0)
    number.value = 2.0
    assert (slider.value, live.panel.values["sigma"]) == (2.0, 2.0)
    assert live.status == ""
    number.value = 0.7
    assert (slider.value, number.value) == (0.5, 0.5)
    assert "0.7 is between two steps of 0.5; the nearest, 0.5, is taken" in live.status
    assert [call["sigma"] for call in live.calls[n:]] == [1.0, 2.0, 0.5], "each draws once"
    live.panel.set(sigma=1.5)
    assert number.value == 1.5
    assert live.status == ""


def test_every_control_has_words_to_hover_over_and_to_read(live):
    """ipywidgets shows None as null. The picture has its words as alternative text instead."""

    def walk(box):
        yield box
        for child in getattr(box, "children", ()):
            yield from walk(child)

    silent = ipywidgets.HTML | ipywidgets.Box | ipywidgets.Image | anywidget.AnyWidget
    named = [w for w in walk(live.panel.box) if hasattr(w, "tooltip") and not isinstance(w, silent)]
    assert len(named) > 12
    assert all(w.tooltip for w in named)
    assert live.widget(ipywidgets.Button, "step").tooltip == "move sigma on by one", "a slider may be called step, too"


def test_a_link_is_as_good_as_its_state(live):
    link = "http://10.0.0.7:8866/voila/render/01.ipynb?token=abc&"
    live.panel.restore(f"{link}sigma=1.5&seed=7#Vote-1")
    assert live.panel.values == START | {"sigma": 1.5, "seed": 7}
    live.panel.restore(f" {link}panel=other&sigma=9&panel=toyscore&sigma=2\n")
    assert live.panel.values["sigma"] == 2.0
    live.panel.restore("?sigma=1.0")
    assert live.panel.values["sigma"] == 1.0
    with pytest.raises(
        ValueError, match="the link has nothing for this panel, toyscore: it is for other; paste it there"
    ):
        live.panel.restore(f"{link}panel=other&sigma=2")
    with pytest.raises(ValueError, match="state has sgima=1: the controls are"):
        live.panel.restore(f"{link}sgima=1")


def test_reset_goes_back_to_where_the_panel_was_told_to_begin(live):
    live.panel.set(sigma=1.5, toy="b & c")
    live.panel.begin_here()
    live.panel.set(sigma=0.0, toy="a", seed=9)
    live.press("reset")
    assert live.panel.values == START | {"sigma": 1.5, "toy": "b & c"}


def test_state_goes_round(live):
    live.panel.set(sigma=2.0, toy="b & c", on=True, seed=11)
    state = live.panel.state
    assert state == "sigma=2.0&toy=b+%26+c&on=True&seed=11"
    other = Recorder()
    other.widget(ipywidgets.Text, "state").value = f"  {state}\n"
    assert other.panel.values == live.panel.values == other.calls[-1]
    assert other.panel.png == live.panel.png
    other.panel.restore("seed=5")
    assert other.panel.values == live.panel.values | {"seed": 5}
    assert other.widget(ipywidgets.Text, "state").value == other.panel.state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("sigma=3", "state has sigma=3: 3 is out of range; give a number from 0.0 to 2.0"),
        ("sigma=0.7", "state has sigma=0.7: 0.7 is between two steps of 0.5; the nearest is 0.5"),
        ("sigma=nan", "state has sigma=nan: nan is out of range"),
        ("sigma=two", "state has sigma=two: 'two' is no number; give one from 0.0 to 2.0"),
        ("sgima=1", "state has sgima=1: the controls are sigma, toy, on, seed; did you mean sigma?"),
        ("toy=c", "state has toy=c: 'c' is no option; choose from a, b & c"),
        ("on=yes", "state has on=yes: 'yes' is neither True nor False"),
        ("seed=-1", "state has seed=-1: '-1' is no seed; give a whole number from 0 to 2147483647"),
        ("seed=1.5", "'1.5' is no seed"),
        ("seed=2147483648", "is no seed"),
        ("sigma=1&hello", "bad query field"),
    ],
)
def test_a_bad_state_is_named_and_changes_nothing(live, state, message):
    n = len(live.calls)
    with pytest.raises(ValueError, match=re.escape(message)):
        live.panel.restore("seed=4&" + state)
    assert live.panel.values == START
    assert len(live.calls) == n
    with pytest.raises(ValueError, match=re.escape(message)):
        live.widget(ipywidgets.Text, "state").value = state
    assert "ValueError" not in live.status, "a slip of the reader's needs no name of a class"
    assert html.escape(message) in live.status
    live.press("reset")
    assert live.status == ""


def test_what_draw_raises_is_shown_and_the_last_picture_stays(live):
    live.panel.set(on=True)
    before = live.panel.png
    with pytest.raises(RuntimeError, match="no such <picture>"):
        live.slider("sigma").value = 1.5
    assert "RuntimeError: no such &lt;picture&gt;" in live.status
    assert live.panel.png == before
    assert "sigma 0.5" in live.panel.alt
    assert "sigma=0.5" in live.widget(ipywidgets.Text, "state").value
    with pytest.raises(RuntimeError, match="no such <picture>"):
        live.panel.export("never.png")
    live.slider("sigma").value = 2.0
    assert live.status == ""


def test_step_moves_the_played_control_to_its_end(live):
    live.press("step")
    assert live.panel.values == START | {"sigma": 1.0}
    assert live.panel.step()
    assert live.panel.step()
    n = len(live.calls)
    assert not live.panel.step()
    assert live.panel.values["sigma"] == 2.0
    assert len(live.calls) == n
    live.press("reset")
    assert live.panel.values == START


def test_play_runs_to_the_end_and_begins_anew(live):
    async def play():
        for _ in range(2):
            live.press("play")
            task = live.panel._task
            live.press("play")  # a second press does nothing
            assert live.panel._task is task
            while live.panel.playing:
                await asyncio.sleep(0.001)

    asyncio.run(play())
    assert [c["sigma"] for c in live.calls[-9:]] == [0.5, 1.0, 1.5, 2.0, 0.0, 0.5, 1.0, 1.5, 2.0]


def test_stop_and_reset_end_playing(live):
    async def play(button):
        live.panel.reset()
        live.press("play")
        while live.panel.values["sigma"] < 1.5:
            await asyncio.sleep(0)
        live.press(button)
        values = live.panel.values
        await asyncio.sleep(0.05)
        assert live.panel.values == values
        assert not live.panel.playing
        return values["sigma"]

    assert asyncio.run(play("stop")) == 1.5
    assert asyncio.run(play("reset")) == 0.5


def test_an_error_while_playing_is_shown(live):
    async def play():
        live.panel.set(on=True)
        live.press("play")
        while live.panel.playing:
            await asyncio.sleep(0.001)
        with pytest.raises(RuntimeError, match="no such <picture>"):
            await live.panel._task

    asyncio.run(play())
    assert "RuntimeError" in live.status


def test_playing_needs_a_loop_and_a_control(live):
    with pytest.raises(RuntimeError, match="play needs a notebook's event loop: call step"):
        live.panel.play()
    still = Recorder(play=None)
    with pytest.raises(ValueError, match="this panel plays nothing: make it with play="):
        still.panel.step()
    with pytest.raises(ValueError, match="plays nothing"):
        still.panel.export("x.gif")
    (row,) = (
        box for box in still.panel.box.children if isinstance(getattr(box, "children", [0])[0], ipywidgets.Button)
    )
    labels = {button.description for button in row.children}
    assert labels == {"reset", "PNG", "SVG", "in words"}


def test_export_writes_the_same_bytes_again_and_leaves_the_panel_as_it_was(live, tmp_path):
    before = live.panel.png
    for kind in ("png", "svg", "gif"):
        paths = [tmp_path / f"{n}.{kind}" for n in (1, 2)]
        for path in paths:
            live.panel.export(path)
        assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(tmp_path / "1.gif") as image:
        assert image.n_frames == 5
        assert image.info["duration"] == 20  # the interval is a millisecond, and viewers show 50 frames a second
        comment = image.info["comment"].decode()
    assert comment.startswith("From: sigma 0.0, a. Density")
    assert "To: sigma 2.0, a. Density" in comment
    with Image.open(tmp_path / "1.png") as image:
        assert image.info["Description"] == live.panel.alt
    assert live.panel.alt in (tmp_path / "1.svg").read_text()
    live.panel.set()
    assert live.panel.png == before
    with pytest.raises(ValueError, match=re.escape("path ends in '.jpg': it must be .png, .svg or .pdf")):
        live.panel.export(tmp_path / "x.jpg")


def test_the_export_buttons_offer_a_download(live):
    for label, mime in (("PNG", "image/png"), ("SVG", "image/svg+xml"), ("GIF", "image/gif")):
        live.press(label)
        assert f'download="toyscore.{label.lower()}" href="data:{mime};base64,' in live.status


def test_readers_without_a_kernel_get_the_picture_and_its_words(live):
    data, metadata = live.panel._repr_mimebundle_()
    assert data["text/plain"] == live.panel.alt
    assert metadata["image/png"]["alt"] == live.panel.alt  # a page made of the notebook takes it from here
    assert "sigma 0.5, a. Density map with its maximum" in live.panel.alt
    lines = live.panel.words.split("\n")
    assert " ".join(lines) == live.panel.alt
    assert len(lines) > 1
    assert max(map(len, lines)) <= 96
    assert base64.b64decode(data["image/png"]) == live.panel.png
    live.panel.set(sigma=2.0)
    assert "sigma 2.0, a." in live.panel.alt
    (words,) = (w for w in live.panel.box.children if isinstance(w, ipywidgets.HTML) and "Density map" in w.value)
    assert "sigma 2.0, a." in words.value
    assert words.layout.display == "none"
    live.widget(ipywidgets.ToggleButton, "in words").value = True
    live.panel.set(sigma=1.0)
    assert (words.layout.display, "sigma 1.0, a." in words.value) == ("", True)
    live.widget(ipywidgets.ToggleButton, "words off").value = False
    assert words.layout.display == "none"
    assert live.widget(ipywidgets.ToggleButton, "in words")


def test_a_second_panel_on_a_figure_stops_the_first():
    first = Recorder()

    async def both():
        first.press("play")
        second = panel(
            first.figure,
            first.draw,
            sigma=Slider(0.0, 2.0, 2.0, step=1.0),
            toy=Choice(("a",), "a"),
            on=Toggle(),
            seed=Seed(),
        )
        n = len(first.calls)
        await asyncio.sleep(0.05)
        assert len(first.calls) == n
        assert not first.panel.playing
        return second

    second = asyncio.run(both())
    assert "sigma 2.0" in second.alt


def test_each_panel_exports_what_it_shows(tmp_path):
    """Though both draw on one figure"""
    one = Recorder()
    panel(
        one.figure, one.draw, sigma=Slider(0.0, 2.0, 2.0, step=1.0), toy=Choice(("a",), "a"), on=Toggle(), seed=Seed()
    )
    one.panel.export(tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as image:
        assert image.info["Description"].startswith("sigma 0.5, a.")


def test_draw_is_called_once_for_the_first_picture():
    assert len(Recorder().calls) == 1


def test_sliders_stay_on_their_grid():
    assert [Slider(0.0, 1.0, 0.0, step=0.1).at(n) for n in (3, 7)] == [0.3, 0.7]
    whole = Slider(0, 10, 4)
    assert (whole.n_values, whole.at(3), whole.parse("7")) == (11, 3, 7)
    assert isinstance(whole.parse("7"), int)
    assert isinstance(whole.widget("n"), ipywidgets.IntSlider)
    assert Slider(0.0, 1.0, 0.0, step=0.3).n_values == 4
    assert Slider(0.0, 1.0, 0.0, step=0.3).parse("0.9") == 0.9
    assert Slider(0.0, 0.7, 0.0, step=0.1).n_values == 8
    assert Slider(0.0, 1.0, 0.0, step=0.1).place(0.26) == 3
    fine = Slider(1000.0, 1001.0, 1000.0, step=0.001)
    assert [fine.at(n) for n in range(3)] == [1000.0, 1000.001, 1000.002]
    assert Slider(0.0, 1e7, 1234567.0, step=1.0).at(1234567) == 1234567.0
    assert Slider(-1.0, 1.0, 0.0).n_values == 101


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Slider(1.0, 1.0, 1.0), "a slider from 1.0 to 1.0: it must be finite and rise"),
        (lambda: Slider(0.0, float("inf"), 1.0), "a slider from 0.0 to inf: it must be finite and rise"),
        (lambda: Slider(0.0, 1.0, 2.0), r"a slider at 2.0: it must start within \[0.0, 1.0\]"),
        (
            lambda: Slider(0.0, 7.0, 5.0),
            "a slider at 5.0 in steps of 0.07 from 0.0: it must start on a step, the nearest is 4.97",
        ),
        (lambda: Slider(0.0, 1.0, 0.0, step=0.0), "step = 0.0: it must be finite and positive"),
        (lambda: Choice(("a",), "b"), "a choice of 'b': the options are a; pass one of them"),
        (lambda: Slider(1000.0, 1001.0, 1000.005, step=0.01), "a slider at 1000.005 in steps of 0.01"),
        (lambda: Choice((1, 2), 1), r"options = \(1, 2\): they must be strings"),
        (
            lambda: panel(plotting.canvas()[1], lambda a: None, a=Seed()),
            "figure is Axes: it must be a figure; pass the first of",
        ),
        (
            lambda: panel(plotting.canvas()[0], lambda a: None, a=Seed(), name="a/b"),
            "name = 'a/b': it becomes a file's name; pass",
        ),
        (lambda: Seed(-1), "'-1' is no seed"),
        (lambda: panel(plotting.canvas()[0], lambda: None), "a panel without controls: pass e.g. sigma=Slider"),
        (
            lambda: panel(plotting.canvas()[0], lambda a: None, a=3),
            "a is int: a control is a Slider, Choice, Toggle or Seed",
        ),
        (
            lambda: panel(plotting.canvas()[0], lambda b: None, a=Seed()),
            "draw does not take the controls a: .*; name them alike",
        ),
        (lambda: panel(plotting.canvas()[0], lambda a: None, a=Seed(), play="a"), "play = 'a': it must name a slider"),
        (
            lambda: panel(plotting.canvas()[0], lambda a: None, a=Seed(), interval=0),
            "interval = 0: it must be finite and positive",
        ),
    ],
)
def test_bad_controls_are_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
