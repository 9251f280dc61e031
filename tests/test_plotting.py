"""Artists and numbers, never pixels."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from helpers import F64, seeded
from toyscore import plotting
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.samplers import langevin

P = asymmetric()


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_density_has_its_maximum_where_the_density_has(ax):
    """Axes not transposed: the asymmetric mixture's highest point comes out at its place."""
    image = plotting.density(ax, P.log_prob, n=200)
    values = image.get_array()
    row, column = np.unravel_index(values.argmax(), values.shape)
    x, y = (-8 + (k + 0.5) * 16 / 200 for k in (column, row))
    grid = torch.cartesian_prod(torch.linspace(-8, 8, 801), torch.linspace(-8, 8, 801))
    best = grid[P.log_prob(grid).argmax()]
    assert (x, y) == pytest.approx(best.tolist(), abs=0.1)
    assert image.get_extent() == [-8, 8, -8, 8] or tuple(image.get_extent()) == (-8, 8, -8, 8)
    assert image.origin == "lower"
    assert ax.get_aspect() == 1
    assert float(values.max()) == pytest.approx(float(P.log_prob(best[None]).exp()), rel=0.02)
    assert f"near ({round(float(best[0]), 1):g}, {round(float(best[1]), 1):g})" in plotting.alt_text(ax.figure)


def test_a_grid_is_the_centres_of_its_cells():
    """x first, the same on both sides of zero: a density on it sums to its mass, whatever the box"""
    centres = [-1.5, -0.5, 0.5, 1.5]
    assert plotting.grid(2.0, 4).tolist() == [[x, y] for x in centres for y in centres]


def test_density_at_a_level_and_in_float64(ax):
    image = plotting.density(ax, P.to(dtype=F64).log_prob, sigma=2.0, box=14.0, like=torch.zeros((), dtype=F64))
    assert float(image.get_array().sum()) * (28 / 160) ** 2 == pytest.approx(1, abs=0.001)


def test_arrows_are_the_score_at_their_points(ax):
    quiver = plotting.vector_field(ax, P.score, n=7, scale=0.25, sigma=0.5)
    points = torch.as_tensor(np.stack([quiver.X, quiver.Y], 1))
    expected = 0.25 * P.score(points.float(), 0.5)
    assert np.allclose(quiver.U, expected[:, 0], rtol=1e-5)
    assert np.allclose(quiver.V, expected[:, 1], rtol=1e-5)
    assert (quiver.angles, quiver.scale_units, quiver.scale) == ("xy", "xy", 1)
    assert "7 x 7 arrows of the exact score: median norm" in plotting.alt_text(ax.figure)


def test_comparison_measures_the_share_of_the_box(ax):
    def half_wrong(x, sigma):
        return P.score(x, sigma) * (1 + 0.8 * (x[:, :1] > 4))

    shown = plotting.field_comparison(ax, half_wrong, P.score, n=40)
    assert shown.share == pytest.approx(0.25)
    values = shown.image.get_array()
    assert values[:, :30].max() == pytest.approx(0, abs=1e-5)
    assert np.allclose(values[:, 30:], 0.8, rtol=1e-4)
    assert "exceeds 50% on 25.0% of the box" in plotting.alt_text(ax.figure)
    stretch = np.hypot(shown.learned.U, shown.learned.V) / np.hypot(shown.truth.U, shown.truth.V)
    assert np.allclose(stretch, np.where(shown.truth.X > 4, 1.8, 1.0), rtol=1e-4)  # both fields in one scale


def test_score_map_shows_norms_and_directions(ax):
    image, quiver = plotting.score_map(ax, P.score, sigma=0.7, n=40, n_arrows=6, limits=(0.1, 10.0))
    points = torch.as_tensor(np.stack([quiver.X, quiver.Y], 1)).float()
    expected = P.score(points, 0.7)
    length = np.hypot(quiver.U, quiver.V)
    assert np.allclose(
        length, 1.5 * 16 / 2 / 6, rtol=1e-5
    )  # one length, three quarters of a cell to each side of its point
    assert np.allclose(
        np.stack([quiver.U, quiver.V], 1) / length[:, None], expected / expected.norm(dim=1, keepdim=True)
    )
    row, column = 31, 4  # not transposed: where this row and column are
    cell = torch.tensor([[-8 + (column + 0.5) * 0.4, -8 + (row + 0.5) * 0.4]])
    assert float(image.get_array()[row, column]) == pytest.approx(float(P.score(cell, 0.7).norm()), rel=1e-4)
    assert (image.norm.vmin, image.norm.vmax, ax.get_aspect()) == (0.1, 10.0, 1)
    assert "Norm and direction of the exact score: least norm" in plotting.alt_text(ax.figure)


def test_samples_and_chains(ax):
    x = P.sample(50, generator=seeded())
    dots = plotting.samples(ax, x, role="learned")
    assert np.allclose(dots.get_offsets(), x.numpy())
    states = torch.stack(list(langevin(P.score, x[:5], step_size=0.1, n_steps=9, generator=seeded())))
    lines, ends = plotting.chains(ax, states, role="annealed")
    assert len(lines.get_segments()) == 5
    assert np.allclose(lines.get_segments()[2], states[:, 2].numpy())
    assert np.allclose(ends.get_offsets(), states[-1].numpy())
    text = plotting.alt_text(ax.figure)
    assert "50 learned samples, mean (" in text
    assert "5 chains of 9 annealed Langevin states" in text
    with pytest.raises(ValueError, match=r"states has shape \[5, 2\]: it must be \[T, B, 2\]"):
        plotting.chains(ax, x[:5])


def test_curves_are_geometric_means_between_the_extremes(ax):
    x = torch.tensor([0.0, 10.0, 20.0])
    values = {"sliced": torch.tensor([[4.0, 2.0, 1.0], [1.0, 0.5, 0.01]]), "denoising": torch.tensor([[3.0, 2.0, 1.0]])}
    artists = plotting.curves(ax, x, values)
    line, band = artists["sliced"]
    assert np.allclose(line.get_ydata(), [2.0, 1.0, 0.1])
    assert np.allclose(line.get_xdata(), x.numpy())
    corners = {(float(a), round(float(b), 6)) for a, b in band.get_paths()[0].vertices}
    assert {(0.0, 1.0), (0.0, 4.0), (20.0, 0.01), (20.0, 1.0)} <= corners
    assert (ax.get_yscale(), [text.get_label() for text in ax.get_lines()]) == ("log", ["sliced", "denoising"])
    text = plotting.alt_text(ax.figure)
    assert (
        "over 1 and 2 seeds (and their range), from 0 to 20: sliced from 2 to 0.1 (0.01 to 1); denoising from 3" in text
    )
    for wrong, message in (
        (torch.ones(3), r"the values of sliced have shape \[3\]: they must be \[n_seeds, 3\]"),
        (torch.ones(2, 4), r"shape \[2, 4\]: they must be \[n_seeds, 3\]; stack one row per seed"),
        (torch.tensor([[1.0, 0.0, 2.0]]), "go from 0 to 2: a logarithmic axis needs them finite and positive"),
    ):
        with pytest.raises(ValueError, match=message):
            plotting.curves(ax, x, {"sliced": wrong})
    with pytest.raises(ValueError, match=r"x has shape \[1, 3\]: it must be \[T\]"):
        plotting.curves(ax, x[None], values)
    dashed, _ = plotting.curves(ax, x, {"annealed": values["denoising"]})["annealed"]
    assert (line.get_linestyle(), dashed.get_linestyle()) == ("-", "--")


@pytest.mark.parametrize("mass", [0.5, 0.95])
def test_the_level_that_holds_a_mass(mass):
    """Of a Gaussian in the plane, whatever its covariance: its peak times one minus the mass."""
    p = GaussianMixture([[1.0, -2.0]], [[[2.0, 0.6], [0.6, 0.5]]]).to(dtype=F64)
    density = p.log_prob(plotting.grid(10.0, 400, torch.empty((), dtype=F64))).exp()
    cell, peak = 0.05**2, float(p.log_prob(p.means).exp()[0])
    assert plotting.mass_level(density.view(400, 400), cell, mass) == pytest.approx(peak * (1 - mass), rel=0.01)
    assert plotting.mass_level(density * cell, 1, mass) == pytest.approx(peak * (1 - mass) * cell, rel=0.01)
    assert plotting.mass_level(density[:100], cell, mass) == float(density[:100].min())  # too little is there
    with pytest.raises(ValueError, match=r"mass = 95: it must be between 0 and 1; pass e.g. mass=0.95"):
        plotting.mass_level(density, cell, 95)
    with pytest.raises(ValueError, match="cell = 0: it must be finite and positive"):
        plotting.mass_level(density, 0, mass)


OBJECTIVES = ["explicit", "implicit", "sliced", "finite_difference", "denoising", "yours"]
PROCESSES = ["ve", "vp", "subvp"]
SAMPLED = [role for role in plotting.ROLES if role not in OBJECTIVES + PROCESSES]


@pytest.mark.parametrize("family", [SAMPLED, PROCESSES, OBJECTIVES])
def test_roles_of_one_family_differ_in_colour_and_all_in_marker(family):
    assert len({plotting.ROLES[role].colour for role in family}) == len(family)
    assert len({role.marker for role in plotting.ROLES.values()}) == len(plotting.ROLES)


def grey(colour):
    """From 0 to 255, as a printer has it."""
    return 255 * np.dot(to_rgb(colour), (0.299, 0.587, 0.114))


@pytest.mark.parametrize("family", [SAMPLED, PROCESSES, ["learned", "plain", "denoising"]])
def test_lines_drawn_together_differ_in_grey_without_markers(family):
    """The last family: the errors by level of figure ``control``. Objectives always have markers."""
    assert len({plotting.ROLES[role].line for role in family}) == len(family)


@pytest.mark.parametrize("family", [PROCESSES, ["truth", "learned", "plain"], ["truth", "vp"]])
def test_what_lies_on_each_other_differs_as_greys(family):
    greys = sorted(grey(plotting.ROLES[role].colour) for role in family)
    assert min(np.diff(greys)) > 30


def test_compared_arrows_are_told_apart_on_every_ground(ax):
    """In grey by their rims and widths: the darkest ground is neither rim, nor either filling."""
    shown = plotting.field_comparison(ax, lambda x, sigma: 2 * P.score(x, sigma), P.score, n=8, n_arrows=4)
    assert [grey(field.get_edgecolor()[0][:3]) for field in (shown.truth, shown.learned)] == pytest.approx([255, 0])
    assert shown.truth.width > 1.5 * shown.learned.width
    ground = shown.image.cmap(np.linspace(0, 1, 99))[:, :3] * shown.image.get_alpha() + 1 - shown.image.get_alpha()
    assert min(map(grey, ground)) > 120


def test_every_title_is_told(ax):
    """Of a panel with and without a description, and of an inset; each description once."""
    figure = ax.figure
    ax.set(title="first\nof two", gid="Described.")
    inset = ax.inset_axes((0.5, 0.5, 0.4, 0.4))
    inset.set(title="a detail", gid="Enlarged.")
    ax.secondary_xaxis("top")
    figure.add_axes((0.9, 0, 0.1, 0.1)).set_title("$x$ alone:\nnearly")
    figure.add_axes((0.9, 0.9, 0.1, 0.1))
    assert plotting.alt_text(figure) == "first, of two. Described. a detail. Enlarged. x alone: nearly."


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_saved_bytes_depend_on_the_figure_alone(tmp_path, ending):
    for name in ("a", "b"):
        figure, ax = plt.subplots(figsize=(3, 3))
        plotting.samples(ax, P.sample(20, generator=seeded()))
        ax.set_title("twenty points")
        plotting.save(figure, tmp_path / f"{name}.{ending}")
        plt.close(figure)
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    if ending == "png":
        with Image.open(tmp_path / "a.png") as image:
            assert image.info["Description"].startswith("twenty points. 20 exact samples, mean (")


def test_bad_pictures_are_refused(ax, tmp_path):
    with pytest.raises(ValueError, match=r"path ends in '.jpg': it must be .png, .svg or .pdf; rename a.jpg"):
        plotting.save(ax.figure, tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="box = -1: it must be finite and positive"):
        plotting.density(ax, P.log_prob, box=-1)
    with pytest.raises(ValueError, match="n = 0: it must be at least 1"):
        plotting.vector_field(ax, P.score, n=0)


Q = asymmetric().marginal([1, 0])
STATES = torch.stack(
    list(langevin(P.score, P.sample(6, generator=seeded()), step_size=0.1, n_steps=8, generator=seeded(1)))
)
KINDS = {
    "density": lambda ax, p, **o: plotting.density(ax, p.log_prob, sigma=0.5, n=30, **o),
    "vector_field": lambda ax, p, **o: plotting.vector_field(ax, p.score, sigma=0.5, n=7, **o),
    "score_map": lambda ax, p, **o: plotting.score_map(ax, p.score, sigma=0.5, n=30, n_arrows=5, **o),
    "samples": lambda ax, p, **o: plotting.samples(ax, p.sample(40, generator=seeded()), **o),
    "chains": lambda ax, p, **o: plotting.chains(ax, STATES if p is P else STATES.flip(2) + 1, **o),
}


def test_counts_and_tensors_are_numbers(ax):
    box, counts = torch.tensor(4.0), torch.tensor([3, 1, 4, 1])
    assert plotting.mass_level(counts, 1 / 9, 0.5) == plotting.mass_level(counts.double(), 1 / 9, 0.5)
    assert plotting.arrow_scale(counts, box) == plotting.arrow_scale(counts.float(), 4.0)
    plotting.frame(ax, box)
    assert ax.get_xlim() == (-4, 4)
    plotting.vector_field(ax, P.score, scale=box)


@pytest.mark.parametrize("kind", KINDS)
def test_artists_updated_are_artists_drawn_anew(kind):
    """Pixels and words both, from one mixture to another that differs in every axis."""
    draw, pictures = KINDS[kind], []
    for first, then in ((P, Q), (Q, Q), (P, P)):
        figure, ax = plotting.canvas(size=2.5)
        artists = draw(ax, first)
        if then is not first:
            draw(ax, then, update=artists)
        pictures.append((plotting.renderer(figure)(), plotting.alt_text(figure)))
    updated, anew, old = pictures
    assert np.array_equal(updated[0], anew[0])
    assert updated[1] == anew[1]
    assert not np.array_equal(updated[0], old[0])


def whole(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


FURNITURE = {
    "nothing": lambda figure, ax: None,
    "a legend": lambda figure, ax: ax.legend(handles=ax.plot([0, 1], label="line")),
    "a figure's legend": lambda figure, ax: figure.legend(handles=ax.plot([0, 1], label="line")),
    "a figure's text": lambda figure, ax: figure.text(0.5, 0.5, "over the axes"),
    "a colour bar": lambda figure, ax: figure.colorbar(ax.images[0], ax=ax),
    "a grid": lambda figure, ax: ax.grid(),
    "no axes": lambda figure, ax: ax.set_axis_off(),
    "an annotation outside": lambda figure, ax: ax.annotate("over the edge", (8, 8), annotation_clip=False),
    "a title of two lines": lambda figure, ax: (figure.suptitle("above"), ax.set_title("one\ntwo")),
    "something above": lambda figure, ax: (
        ax.plot([-5, 5], [0, 0], zorder=9, lw=9),
        ax.plot([0, 0], [-5, 5], zorder=1, lw=9),
    ),
}
CHANGES = {
    "data": lambda ax, n: None,
    "limits": lambda ax, n: ax.set_xlim(-8 + n, 8),
    "ticks": lambda ax, n: ax.set_yticks([n, 3 + n]),
    "labels": lambda ax, n: ax.set_xlabel(f"label {n}"),
    "ground": lambda ax, n: ax.figure.set_facecolor(("white", "lightgrey", "pink", "white")[n]),
}


# each furniture with two changes, one of them as a sweep
PAIRS = [
    pytest.param(furniture, list(CHANGES)[(i + j) % len(CHANGES)], marks=pytest.mark.slow if j else ())
    for i, furniture in enumerate(FURNITURE)
    for j in (0, 2)
]


@pytest.mark.parametrize(("furniture", "change"), PAIRS)
def test_a_rendered_figure_is_the_figure_drawn_whole(furniture, change):
    """Frame after frame: three of the same kind, so that what is kept is used, then a change, and so on."""
    figure, ax = plotting.canvas(size=2.0)
    image = plotting.density(ax, P.log_prob, n=20)
    FURNITURE[furniture](figure, ax)
    render = plotting.renderer(figure)
    for n in range(4):
        CHANGES[change](ax, n)
        for repeat in range(3):
            plotting.density(ax, P.log_prob, sigma=n + repeat, n=20, update=image)
            assert np.array_equal(render(), whole(figure)), (n, repeat)


def test_animate_draws_every_so_many_states_as_they_come():
    figure, _ = plotting.canvas(size=2.0)
    seen, taken = [], []

    def states():
        for n in range(1, 8):
            taken.append(n)
            yield n

    frames = plotting.animate(figure, seen.append, states(), every=3)
    next(frames)
    assert (seen, taken) == ([3], [1, 2, 3])
    assert len(list(frames)) == 1
    assert seen == [3, 6]


def test_a_gif_loops_at_its_rate_with_its_words(tmp_path):
    frames = [np.full((20, 30, 3), value, dtype=np.uint8) for value in (0, 120, 255)]
    plotting.save_gif(frames, tmp_path / "a.gif", fps=12.5, description="three greys")
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size) == (3, (30, 20))
        assert (image.info["duration"], image.info["loop"], image.info["comment"]) == (80, 0, b"three greys")
        image.seek(1)
        assert image.convert("RGB").getpixel((3, 3)) == (120, 120, 120)


def test_a_mosaic_shows_every_pixel_in_its_place():
    """Row by row, a white margin of one pixel, enlarged by a whole factor, values outside [0, 1] at the nearest end"""
    x = torch.rand(5, 3, 4, 6, generator=seeded())
    x[0, 0, 0, 0], x[0, 1, 0, 0] = -1.0, 2.0
    sheet = plotting.mosaic(x, n_columns=3)
    factor = sheet.shape[1] // (3 * 7 + 1)
    assert sheet.shape == (factor * (2 * 5 + 1), factor * (3 * 7 + 1), 3)
    assert sheet.shape[1] >= 560
    small = sheet[::factor, ::factor]
    assert np.array_equal(small.repeat(factor, 0).repeat(factor, 1), sheet)
    for i in range(5):
        top, left = i // 3 * 5 + 1, i % 3 * 7 + 1
        expected = (x[i].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
        assert np.array_equal(small[top : top + 4, left : left + 6], expected)
    assert (small[::5] == 255).all()
    assert (small[:, ::7] == 255).all()
    assert (small[6:, 15:] == 255).all()
    grey = plotting.mosaic(x[:1, :1])
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_a_mosaic_keeps_its_description(tmp_path):
    picture = plotting.mosaic(torch.rand(4, 1, 8, 8, generator=seeded()))
    for name in ("a.png", "b.png"):
        plotting.save_mosaic(picture, tmp_path / name, "4 samples")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.text["Description"] == "4 samples"
        assert np.array_equal(np.asarray(stored), picture)
