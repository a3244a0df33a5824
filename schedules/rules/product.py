"""The schedule of a product: which layout its weight takes, and how rows, depth and columns are tiled.

Every member of every family of layouts that can hold the weight is priced, with every width of tiles; the cheapest
wins, dense among them, so a compiled layer is never meant to be slower than its dense self.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from sparsec.ir.layout import Layout
from sparsec.ir.product import DEPTH, Product
from sparsec.ir.stored import stored_bytes
from sparsec.ir.sums import Sum
from sparsec.schedules.rules.cuts import MANY, Panel
from sparsec.schedules.rules.dot_prices import dot_cycles
from sparsec.schedules.rules.dots import Dot, dot_nests, dot_panels, dot_widths, find_dot, row_nests, tile_nests
from sparsec.schedules.rules.families import FAMILIES
from sparsec.schedules.rules.fits import PANELS
from sparsec.schedules.rules.prices import WAIT, Nest, Prices, batch, extent
from sparsec.schedules.rules.spelled import SpelledPrices, spelled_moves, spelled_widths
from sparsec.schedules.rules.weight import Weight
from sparsec.schedules.steps import Step, Tensorize, Tile, Vectorize
from sparsec.schedules.trace import Trace
from sparsec.targets import Target

DENSE_BIAS = 0.95  # a sparse layout must be cheaper than dense by this factor
VECTORS = range(1, 9)  # in a tile of columns
ACTIVATIONS = replace(PANELS, wait=WAIT, miss=0.6)  # a tile takes its depths one after the other
COPIED = replace(ACTIVATIONS, copy=0.0)  # what the tiles before copied


@dataclass(frozen=True)
class Choice:
    """A candidate of a family: the loops of a layout, the tiles, and cycles of one core for the whole product.

    `dot` is the instruction that takes several depths at once, if there is one.
    """

    family: str
    nest: Nest
    tile: Tile
    cycles: float
    dot: Dot | None = None

    @property
    def layout(self) -> Layout | Sum | None:
        """Of the weight; None for an activation."""
        return self.nest.layout() if self.nest.layout else None


@dataclass(frozen=True)
class Proposal:
    """The product with its weight's layout, its trace, and what the model predicts of it and of the dense layout.

    `family` is the kind of layout, such as ``N:M``, and `name` that of the layout in it, such as ``2:4``. Where it was
    `timed`, both numbers are measured ones.
    """

    product: Product
    trace: Trace
    seconds: float
    dense_seconds: float
    family: str = "dense"
    name: str = "dense"
    timed: bool = False

    def nbytes(self, mask: np.ndarray) -> int:
        """Return how many bytes the kernel takes for a weight with entries where `mask` [rows, depth] is not zero."""
        return stored_bytes(self.trace.tensorized(self.product), self.product.parts(mask != 0))


def propose(product: Product, matrix: np.ndarray | None, target: Target, only_dense: bool = False) -> Proposal:
    """Choose layout and tiles by the model.

    Parameters
    ----------
    product : whose weight has no layout yet
    matrix : float32 [rows, depth], the constant weight; None where the weight is an activation
    target : whose caches and vector units the model prices for
    only_dense : whether to think of dense layouts alone
    """
    if matrix is None:
        dense = min((each for v in VECTORS for each in activations(product, v, target)), key=_cycles)
        return as_proposal(product, dense, dense, target)
    choices = _choices(product, Weight(matrix), target, only_dense=only_dense)
    dense = min((choice for choice in choices if choice.family == "dense"), key=_cycles)
    best = min(choices, key=_cycles)
    return as_proposal(product, best if best.cycles < DENSE_BIAS * dense.cycles else dense, dense, target)


def contenders(
    product: Product,
    matrix: np.ndarray,
    target: Target,
    count: int = 1,
    every: bool = False,
    only_dense: bool = False,
) -> dict[str, list[Proposal]]:
    """Return the cheapest candidates, at most `count`, of each family that can hold the weight; by their name.

    Members of a family may have names of their own, such as ``2:4`` and ``4:8``. Families that are never worth while
    for such a weight are left out, unless `every` one is wanted, and all but dense layouts where `only_dense` ones are.
    """
    names: dict[str, list[Choice]] = {}
    for choice in sorted(_choices(product, Weight(matrix), target, every, only_dense), key=_cycles):
        names.setdefault(choice.nest.name, []).append(choice)
    (dense, *_) = names["dense"]
    return {
        name: [as_proposal(product, choice, dense, target) for choice in _distinct(choices)[:count]]
        for name, choices in names.items()
    }


def candidates(
    product: Product, matrix: np.ndarray, target: Target, count: int = 6, only_dense: bool = False
) -> list[Proposal]:
    """Return what is worth measuring, the most promising first: the cheapest dense tiles and sparse layouts."""
    found = contenders(product, matrix, target, count, only_dense=only_dense)
    dense = found.pop("dense")
    if only_dense:
        return dense
    sparse = sorted((proposal for members in found.values() for proposal in members), key=_seconds)
    return sorted([*dense[: count // 3], *sparse[: count - count // 3]], key=_seconds)


def _distinct(choices: Iterable[Choice]) -> list[Choice]:
    """Return the choices without those that come to the layout and the tiles of an earlier one."""
    found: dict[tuple[Layout | Sum | None, Tile], Choice] = {}
    for choice in choices:
        found.setdefault((choice.layout, choice.tile), choice)
    return list(found.values())


def _cycles(choice: Choice) -> float:
    return choice.cycles


def _seconds(proposal: Proposal) -> float:
    return proposal.seconds


def as_proposal(product: Product, choice: Choice, dense: Choice, target: Target) -> Proposal:
    lanes = target.lanes(product.sums)
    updates = [Tensorize("update", f"fma.{lanes}")]
    if choice.dot:
        updates = list(choice.dot.moves(product, choice.tile, target))
    scattered = choice.nest.gathers  # rows that lie anywhere are finished one by one
    starts = [] if choice.dot and choice.dot.instruction.tiles else [Vectorize("init", lanes)]  # registers do
    moves: tuple[Step, ...] = (*updates, *starts, Vectorize("finish", 1 if scattered else lanes))
    if choice.nest.entries:
        moves = spelled_moves(choice.nest, product, target)
    laid_out = product.stored_as(choice.layout, choice.dot.widens(product) if choice.dot else "")
    hertz = target.ghz * 1e9
    trace = Trace((choice.tile, *moves))
    return Proposal(laid_out, trace, choice.cycles / hertz, dense.cycles / hertz, choice.family, choice.nest.name)


def _choices(
    product: Product, weight: Weight, target: Target, every: bool = False, only_dense: bool = False
) -> list[Choice]:
    """Return the members of families that can hold a constant weight, with every width of tiles."""
    found = []
    if tiled := find_dot(product, target, tiled=True):
        nests = tile_nests(tiled, weight, product, target)
        found += [Choice("dense", nest, tile, cycles, tiled) for nest, tile, cycles in nests]
    if dot := find_dot(product, target):
        dots = (dot, find_dot(product, target, structured=True))
        return found + [choice for each in dots if each for choice in _dots(each, product, weight, target, only_dense)]
    prices, spelled, lanes = Prices(product, target), SpelledPrices(product, target), target.lanes(product.sums)
    families = [family for family in FAMILIES if family.name == "dense" or not only_dense]
    families = [family for family in families if every or family.worth(weight, product)]
    for vectors in VECTORS:
        panel, widths = Panel(product, vectors * lanes, target), column_widths(product, vectors, target)
        for family in families:
            for nest in family.nests(weight, panel):
                if nest.entries:
                    tile = Tile(spelled_widths(product, panel.width, lanes), (), nest.stage, spelled=lanes)
                    found.append(Choice(family.name, nest, tile, spelled(nest, tile.columns)))
                    continue
                tile = Tile(widths, (), nest.stage, _rows_first(product, panel, nest, target), stretch=nest.stretch)
                found.append(Choice(family.name, nest, tile, prices(nest, widths)))
    return found


def _dots(dot: Dot, product: Product, weight: Weight, target: Target, only_dense: bool) -> Iterator[Choice]:
    """Yield the layouts that feed an instruction that takes several depths at once."""
    for widest in dot_panels(dot, target):
        panel = Panel(product, dot_widths(dot, product, widest)[0], target)
        for family, nest in dot_nests(dot, panel.width, weight, product, target):
            if only_dense and family != "dense":
                continue
            widths = dot_widths(dot, product, widest, dense=nest.stage)
            rows_first = not nest.stage and _rows_first(product, panel, nest, target)
            tile = Tile(widths, (), nest.stage, rows_first, dots=(dot.rows, dot.columns, dot.vector))
            yield Choice(family, nest, tile, dot_cycles(dot, nest, widths, product, target), dot)
    for nest, tile, cycles in row_nests(dot, weight, product, target):
        yield Choice("dense", nest, tile, cycles, dot)


def activations(product: Product, v: int, target: Target, kept: bool = False) -> Iterator[Choice]:
    """Yield register tiles of r rows and v vectors for a weight that is an activation, X where it is and copied.

    Parameters
    ----------
    kept : whether X lies together already, in a tile around the loops, so that there is nothing to copy
    """
    prices, panel = Prices(product, target), Panel(product, v * target.lanes(product.sums), target)
    widths = column_widths(product, v, target)
    stages = (False, True) if isinstance(product.depth, int) and not panel.has_few_columns else (False,)
    for r in range(1, min(16, extent(product.rows)) + 1):
        for stage in (True,) if kept else stages:
            # Rows of an activation are loads apart, of which LLVM starts the next one early.
            if panel.holds(r, weights=2):
                rows = _with_one(r, product.rows)
                nest = _activation_nest(product, rows[0], stage, kept)
                yield Choice("dense", nest, Tile(widths, rows, stage and not kept), prices(nest, widths))


def _activation_nest(product: Product, r: int, stage: bool, kept: bool = False) -> Nest:
    """Count the loops over tiles of r rows, and over one of the rows that are left, which read the same copy of X.

    Where a weight is read across its rows, they take as much of L1 as those of X.
    """
    depth = extent(product.depth)
    tiles, left = divmod(extent(product.rows), r)
    part = depth if product.weight_index[-1] == DEPTH else 2 * depth
    rest = Nest("dense", None, left, depth, 1, part, COPIED if stage else ACTIVATIONS, stage=stage) if left else None
    tasks, inner = 1 if stage else tiles, COPIED if kept else ACTIVATIONS
    return Nest("dense", None, r, tiles * depth, tiles, part, inner, stage=stage, tasks=tasks, rest=rest)


def _rows_first(product: Product, panel: Panel, nest: Nest, target: Target) -> bool:
    """Whether to take all columns of some rows before the next rows.

    It keeps large weights in cache while X streams by. And where each core would get a few panels only, cores that
    share rows write lines next to each other's, which costs them more than the work that they share.
    """
    if not isinstance(product.columns, int) or not isinstance(product.depth, int):
        return False
    few = product.columns // panel.width * batch(product) < MANY * target.cores and target.cores > 1
    weight_bytes = nest.steps * nest.rows * np.dtype(product.weight.dtype).itemsize
    x_bytes = product.depth // product.taps * product.columns * np.dtype(product.x.dtype).itemsize
    return few or weight_bytes > max(target.l2_bytes, x_bytes)


def column_widths(product: Product, v: int, target: Target) -> tuple[int, ...]:
    """Return the widths of the tiles of columns of a product: of v vectors, and of what is left."""
    return widths(product.columns, v, target.lanes(product.sums), target.unit_lanes(product.sums))


def widths(columns: int | str, v: int, lanes: int, unit: int = 0) -> tuple[int, ...]:
    """Return the widths of tiles of columns: v vectors, then what is left of vectors, then of elements.

    Where execution units are narrower than vectors and divide the columns, all that is left is one tile.

    >>> widths(216, 4, 16), widths(216, 4, 16, unit=8)
    ((64, 16, 8), (64, 24))
    """
    if isinstance(columns, str):
        found = [width for width in (v * lanes, lanes, lanes // 4, 1) if width]
        power = 1 << (v.bit_length() - 1)  # each width must divide the one before it
        return tuple(dict.fromkeys([power * lanes, *found[1:]]))
    found, left = [], columns
    together = unit if unit and columns % unit == 0 else lanes
    for width in (v * lanes, left % (v * lanes) // together * together, left % lanes):
        if width and left >= width:
            found.append(width)
            left %= width
    return tuple(found)


def _with_one(r: int, rows: int | str) -> tuple[int, ...]:
    if isinstance(rows, int):
        return (r, rows % r) if rows % r else (r,)
    return (1 << (r.bit_length() - 1), 1)
