"""Families of layouts: for each, which members are worth trying for a weight, and how often their loops run.

A family is a function of a weight and of a panel of columns that yields a `Nest` for each member. To add one, write
such a function and give it a line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sparsec.ir.named import dense_blocks, depth_blocked
from sparsec.ir.product import Product
from sparsec.schedules.rules.prices import Inner, Nest, batch, extent
from sparsec.schedules.rules.weight import Weight
from sparsec.targets import Target

MANY = 4  # panels for a core that are enough to split work by columns

PANELS = Inner(step=0.3, sums=1.6)  # the depth is a counted loop that LLVM unrolls
ENTRIES = Inner(step=0.64, sums=3.7, open=2.0, miss=0.44, busy=1.28)


@dataclass(frozen=True)
class Panel:
    """The columns that a tile spans, `width` of them, of a product on a target."""

    product: Product
    width: int
    target: Target

    @property
    def vectors(self) -> int:
        """How many vectors of X a tile reads for each depth."""
        return self.width // self.target.lanes(self.product.sums)

    def holds(self, rows: int) -> bool:
        """Whether all sums of so many rows, the vectors of X and a broadcast weight are in registers."""
        return (rows + 1) * self.vectors + 1 <= self.target.vector_registers

    def chunk(self, rows: int, r: int, parts: int) -> int:
        """Return how many of the rows, a multiple of r, are a task of their own; 0 for all of them.

        The sums of a chunk stay in L2 from one part of the depth to the next, and every core gets a task.
        """
        target = self.target
        panels = max(1, extent(self.product.columns) // self.width) * batch(self.product)
        wanted = target.cores if panels < MANY * target.cores else 1
        if parts > 1:
            large = -(-rows * self.width * 4 // (target.l2_bytes // 2))
            wanted = -(-large // wanted) * wanted
        chunk = max(2, -(-rows // wanted // r)) * r
        return 0 if chunk >= rows else chunk


def dense(weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield panels of r rows."""
    taps = panel.product.taps
    for r in range(1, min(16, weight.rows) + 1):
        if panel.holds(r):
            panels = -(-weight.rows // r)
            layout = partial(dense_blocks, r, taps)
            yield Nest("dense", layout, r, panels * weight.depth, panels, weight.depth, PANELS, tasks=panels)


def row_vectors(r: int, weight: Weight, panel: Panel) -> Iterator[Nest]:
    """Yield compressed rows jammed in blocks of r, the depth cut into parts of which X stays in L1."""
    rows, depth = weight.rows, weight.depth
    if rows % r or not panel.holds(r):
        return
    name = f"{r}x1 blocks" if r > 1 else "CSR"
    blocks = weight.blocks(r)
    for stage in (False, True):
        # A copied part is whole vectors of single depths; one that is not copied keeps the taps of a channel.
        together = 1 if stage else panel.product.taps
        for parts in _parts(depth // together):
            if parts == 1 and stage:
                continue
            part = -(-(depth // together) // parts) * together
            chunk = panel.chunk(rows, r, parts)
            layout = partial(depth_blocked, part, r, chunk, parts)
            tasks = -(-rows // chunk) if chunk else 1
            yield Nest(name, layout, r, blocks, parts * (rows / r), part, ENTRIES, stage, tasks)


def _parts(channels: int) -> list[int]:
    """Return into how many parts the depth may be cut."""
    return [parts for parts in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if parts == 1 or channels // parts >= 8]


Family = Callable[[Weight, Panel], Iterator[Nest]]

FAMILIES: tuple[Family, ...] = (dense, *(partial(row_vectors, r) for r in (1, 2, 4, 8)))
