# %% [markdown]
# # 00 · Set-up check
#
# Run all cells (menu *Run → Run All Cells*). Every line of the first output but the last should begin with *ok*; the last should
# say *Everything is ready.* The slider at the end should move the picture. Nothing here needs a GPU or the network.
# Running time: under 10 seconds.

# %%
import checks

checks.setup()

# %% [markdown]
# ## A picture that moves
#
# The arrows are the score of a single Gaussian (notebook 01 says what a score is), `(mean - x) / variance`: they point to the
# mean, and they grow with the distance. Drag *mean x*, or click its handle and press the arrow keys; then press *play*.

# %%
from toyscore import plotting
from toyscore.distributions import GaussianMixture
from toyscore.widgets import Slider, panel

figure, ax = plotting.canvas()
arrows = plotting.vector_field(ax, GaussianMixture([[0.0, 0.0]], 4.0).score, scale=0.3)


def draw(mean_x):
    p = GaussianMixture([[mean_x, 0.0]], 4.0)
    plotting.vector_field(ax, p.score, scale=0.3, update=arrows)
    ax.set_title(f"score of a Gaussian at ({mean_x:g}, 0)")


view = panel(figure, draw, play="mean_x", mean_x=Slider(-6.0, 6.0, 0.0, step=0.25))
view

# %%
print(view.words)

# %% [markdown]
# ## When something is missing
#
# - **`ModuleNotFoundError: No module named 'checks'`**: the notebook was moved. Open it in the folder it came in.
# - **MISSING toyscore and what it needs**: this kernel is another Python than the one you installed into. In a terminal, in
#   toyscore's folder, `make lab` installs and starts the right one.
# - **Text such as `IntSlider(...)`, or only a still picture**: a reader without a kernel shows the stored picture, so start
#   JupyterLab. If you did, the widgets' browser half is missing: `pip install jupyterlab_widgets`, then reload the page.
# - **The slider moves, the picture does not**: the kernel is busy or gone. *Kernel → Restart Kernel and Run All Cells*.
# - **A red line under the picture**: it says what is wrong; *reset* puts every control back.
#
# Still stuck? Copy the whole output of the first cell into your question: it says what is missing.
#
# **Next:** notebook 01 says what a score is.
