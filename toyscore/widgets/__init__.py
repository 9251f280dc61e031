"""Live figures in a notebook: controls over a plain function that changes the artists of one kept figure.

.. code-block:: python

    figure, ax = plotting.canvas()
    image = plotting.density(ax, p.log_prob)

    def draw(sigma):
        plotting.density(ax, p.log_prob, sigma=sigma, update=image)

    panel(figure, draw, play="sigma", sigma=Slider(0.0, 4.0, 0.0))

Nothing is drawn anew: a change of a control calls ``draw`` with all values, the figure is rendered by Agg and sent as one
picture. ``draw`` should look things up (a stored trajectory, a closed form), not run them.

- *Play, step, stop, reset* move one control, in the kernel, so that frames never queue up.
- *The state* (every value, a seed among them) is one line of text, ``sigma=1.5&seed=3``: copy it to the class, paste it to
  be where the sender was. A whole link that ends in ``?sigma=1.5`` is taken, too.
- *The picture* can be saved as PNG, SVG or, over the range of the played control, GIF; its description in words and
  numbers goes with it.
- *Without a kernel* the stored notebook shows the first frame and its description.

Controls work from the keyboard. The handle of a slider has its control's name, and so has a number before it, to read or to
type; the words are the picture's alternative text, also to be read where *in words* is pressed. ipywidgets 8.1 has no place for
either, so a small anywidget in each panel sets them. What ``draw`` raises is shown under the picture; the last good
picture and its words stay.
"""

from toyscore._extras import missing

try:
    from toyscore.widgets.controls import Choice, Control, Seed, Slider, Toggle
    from toyscore.widgets.panel import Panel, panel
except ModuleNotFoundError as error:
    raise missing("toyscore.widgets", "ipywidgets", "notebooks") from error

__all__ = ["Choice", "Control", "Panel", "Seed", "Slider", "Toggle", "panel"]
