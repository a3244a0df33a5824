"""Prune a network in five patterns, fine-tune it, and plot what each costs in accuracy and gains in speed.

    python tutorials/03_prune_and_fine_tune.py [pruning.png]

The network is a perceptron for scikit-learn's handwritten digits, with layers wide enough for their time to say
something. Which weights go is a compromise: one by one they hurt least, and what is left of blocks, tiles or whole
channels is multiplied fastest. `sparsec.prune` knows the patterns of the literature, and keeps what it pruned at zero
while training goes on.
"""

import copy
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import sparsec
from sparsec.report import seconds_text

WIDTH, EPOCHS = 512, 6
STAGES = ([0.5], [0.65, 0.75], [0.85, 0.9])
PATTERNS = {
    "unstructured": [("unstructured", stages) for stages in STAGES],
    "N:M": [("2:4", None), ("1:4", None), ("1:8", None)],
    "blocks 4×1": [("block:4x1", stages) for stages in STAGES],
    "tile-wise 32": [("tile-wise:32", stages) for stages in STAGES],
    "channels": [("channels", stages) for stages in STAGES],
}
"""Each line of the plot: for each of its points a pattern, and the sparsities to go through; N:M fixes its own."""

torch.manual_seed(0)
torch.set_num_threads(1)  # the products are too small to share

# -- A network, trained dense ------------------------------------------------------------------------------------------

pixels, labels = load_digits(return_X_y=True)
images = (pixels / 16).astype(np.float32)
x, test_x, y, test_y = map(torch.from_numpy, train_test_split(images, labels, test_size=450, random_state=0))


def train(network: nn.Module, epochs: int) -> None:
    """Train with a rate that rises and falls again."""
    batches = -(-len(x) // 64)
    optimiser = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def accuracy(network: nn.Module) -> float:
    """The share of the test images that are read right."""
    with torch.no_grad():
        return float((network(test_x).argmax(dim=1) == test_y).float().mean())


dense = nn.Sequential(
    *(nn.Linear(64, WIDTH), nn.ReLU()),
    *(nn.Linear(WIDTH, WIDTH), nn.ReLU()),
    *(nn.Linear(WIDTH, WIDTH), nn.ReLU()),
    nn.Linear(WIDTH, 10),
)
print("training the dense network", flush=True)
train(dense, 10)

# -- Speed: all test images at once, on one thread ---------------------------------------------------------------------
# The dense and the pruned network take turns, and the median of the ratios counts, because absolute times drift.

folder = tempfile.TemporaryDirectory()


def compiled(network: nn.Module, name: str) -> sparsec.Session:
    """Compile a network and check its answers."""
    path = sparsec.compile(network, example_inputs=(test_x,)).save(Path(folder.name) / f"{name}.so")
    session = sparsec.load(path, threads=1)
    with torch.no_grad():
        assert np.allclose(session(test_x.numpy()), network(test_x).numpy(), rtol=1e-3, atol=1e-3)
    return session


def seconds(session: sparsec.Session) -> float:
    """The time of one run."""
    start = time.perf_counter()
    session(test_x.numpy())
    return time.perf_counter() - start


def speedup(network: nn.Module) -> float:
    """How many times as fast as the dense network it runs."""
    session = compiled(network, "pruned")
    return median(seconds(dense_session) / seconds(session) for _ in range(100))


dense_accuracy, dense_session = accuracy(dense), compiled(dense, "dense")
fastest = min(seconds(dense_session) for _ in range(100))
print(f"dense: {dense_accuracy:.1%} of {len(test_x)} test images are right, {seconds_text(fastest)}", flush=True)

# -- Prune, fine-tune, compile -----------------------------------------------------------------------------------------
# A stage prunes a little more and lets the rest recover: `fine_tune` is called after each, and what is pruned stays
# zero whatever the optimiser does. The last layer stays dense: it has few weights, and each of them matters.


@dataclass(frozen=True)
class Point:
    """A pruned network: the part of its hidden layers that is zero, and what became of it."""

    sparsity: float
    accuracy: float
    speedup: float


def zeros(network: nn.Sequential) -> float:
    """The part of the weights of the hidden layers that is zero."""
    weights = [layer.weight for layer in network[:-1] if isinstance(layer, nn.Linear)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


table = Table(title="pruned and fine-tuned", title_justify="left")
for column in ("pattern", "zeros", "accuracy", "speed-up"):
    table.add_column(column, justify="left" if column == "pattern" else "right")
curves: dict[str, list[Point]] = {}
for name, rounds in PATTERNS.items():
    network = copy.deepcopy(dense)
    curves[name] = [Point(0.0, dense_accuracy, 1.0)]
    for pattern, sparsity in rounds:
        sparsec.prune(
            network, pattern, sparsity, scope="layer", skip=["6"], fine_tune=lambda network, _: train(network, EPOCHS)
        )
        point = Point(zeros(network), accuracy(network), speedup(network))
        curves[name].append(point)
        print(f"{pattern}: {point.sparsity:.1%} zeros, trained and compiled", flush=True)
        table.add_row(pattern, f"{point.sparsity:.1%}", f"{point.accuracy:.1%}", f"{point.speedup:.1f}×")
Console(width=80).print(table)

# -- What it costs and what it gains -----------------------------------------------------------------------------------
# Channels take the inputs with them that they were of the next layer, so half of the channels are about three quarters
# of the weights. On digits they lose as little as single weights do, give or take an image (one is 0.2 points); larger
# tasks are less forgiving. Scattered zeros have to be many before they are worth their indices; blocks and tiles need
# fewer.

figure = Figure(figsize=(10, 4), layout="constrained")
left, right = figure.subplots(1, 2)
for name, points in curves.items():
    sparsities = [100 * point.sparsity for point in points]
    left.plot(sparsities, [100 * point.accuracy for point in points], marker="o", label=name)
    right.plot(sparsities, [point.speedup for point in points], marker="o", label=name)
left.axhspan(
    100 * dense_accuracy - 1, 100 * dense_accuracy, alpha=0.15, color="gray", label="within one point of dense"
)
left.set(xlabel="zeros in the hidden layers, %", ylabel="accuracy after fine-tuning, %", ylim=(94, 99))
right.axhline(1, linewidth=1, color="gray")
right.set(xlabel="zeros in the hidden layers, %", ylabel="times as fast as dense", yscale="log")
right.minorticks_off()
right.set_yticks([1, 2, 4, 8, 16, 32], labels=["1×", "2×", "4×", "8×", "16×", "32×"])
left.legend()
plot = Path(sys.argv[1] if len(sys.argv) > 1 else "pruning.png")
figure.savefig(plot)
print(f"plotted {len(curves)} patterns to {plot}, {plot.stat().st_size:,} bytes")

tiles = curves["tile-wise 32"][2]
loss = dense_accuracy - tiles.accuracy
print(f"tile-wise at {tiles.sparsity:.0%}: {100 * loss:+.1f} points of accuracy lost, {tiles.speedup:.1f}× as fast")
assert abs(tiles.sparsity - 0.75) < 0.01
assert loss <= 0.01, "three of four weights can go, tile by tile, for at most one point"
