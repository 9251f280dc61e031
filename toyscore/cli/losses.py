"""``toyscore plot-loss``: the log of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from toyscore.cli.folder import RunFolder
from toyscore.cli.options import PlotLoss

_PANELS = {"loss": "loss", "grad_norm": "norm of the gradient", "lr": "learning rate"}


def plot_loss(options: PlotLoss) -> str:
    """Draw loss, gradient and learning rate against the step; returns a line with the numbers.

    Raises:
        OSError: no such run. ValueError: its log is empty.
    """
    import torch

    from toyscore import plotting

    run = RunFolder(options.folder)
    if not run.log.exists():
        raise FileNotFoundError(
            2, "it holds no log.jsonl: pass the folder of a run that toyscore train made", str(run.path)
        )
    lines = run.lines()
    if not lines:
        raise ValueError(f"{run.log} is empty: the run has not logged a step yet; wait, or lower training.log_every")
    steps = torch.tensor([line["step"] for line in lines])
    figure, axes = plotting.canvas(1, len(_PANELS), size=4.2)
    for ax, (key, title) in zip(axes, _PANELS.items(), strict=True):
        values = torch.tensor([float(line[key]) for line in lines])
        plotting.history(ax, steps, values, smooth=1 if key == "lr" else options.smooth)
        ax.set(title=title, xlabel="step")
        if key == "lr":
            ax.set_yscale("linear")
    out = Path(options.out) if options.out else run.path / "loss.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    plotting.save(figure, out)
    last = [line["loss"] for line in lines[-options.smooth :]]
    return (
        f"loss {lines[0]['loss']:.4g} at step {lines[0]['step']:,}, {median(last):.4g} (median of the last {len(last)}) at "
        f"step {lines[-1]['step']:,}, {lines[-1]['seconds']:,.0f} s: {out}"
    )
