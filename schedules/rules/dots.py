"""Products of bytes by instructions that add up several of them: which instruction, layouts and tiles.

What an instruction takes at once is read from its declaration, and layouts follow: dense panels whose depth ends in a
digit of so many, and compressed columns in runs of so many. So any nonzeros of a row, or of a block of rows, fill an
instruction, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from math import prod

import numpy as np

from sparsec.ir.instruction import INSTRUCTIONS, Instruction
from sparsec.ir.interleaved import SEGMENT
from sparsec.ir.kernel import Expr, Load, Op, Var, walk_expressions
from sparsec.ir.layout import Layout
from sparsec.ir.loop_order import TILE_ROWS
from sparsec.ir.notation import parse_layout
from sparsec.ir.product import Dots, Product
from sparsec.ir.row_dots import MOST_ROWS
from sparsec.ir.types import is_float
from sparsec.schedules.rules.cuts import MANY
from sparsec.schedules.rules.dot_prices import row_cycles, tile_cycles
from sparsec.schedules.rules.families import FULL
from sparsec.schedules.rules.prices import Inner, Nest, batch, extent
from sparsec.schedules.rules.weight import Weight
from sparsec.schedules.steps import Tensorize, Tile
from sparsec.targets import Target

PANELS = Inner(step=0.0, sums=0.0)
PANEL = 64  # columns at most
SUM_BYTES = 4
FEW_REGISTERS = 16
TILED_ROWS, TILED_COLUMNS = (16, 32), (16, 32, 64, 128)  # of sums that registers of tiles hold in turns
RUNS = (1, 2, 4, 8, 16)  # rows that share their runs of columns
WIDENED = {"int16": ("uint8", ("int8", "int16"))}
"""By the type of what an instruction multiplies: the type of X, and those of weights, that it may take as well."""


@dataclass(frozen=True)
class Dot:
    """What an instruction adds up: blocks of rows × columns sums, of `depth` products each.

    Parameters
    ----------
    vector : bytes of a register
    structure : (n, m), where of each m depths only n are multiplied, which of them the instruction is told
    run : depths that stand side by side in X, where it takes several such runs at once; else 0
    """

    instruction: Instruction
    rows: int
    columns: int
    depth: int
    vector: int
    structure: tuple[int, int] | None = None
    run: int = 0

    def holds(self, rows: int, panel: int, target: Target) -> bool:
        """Say whether the sums of so many rows, the panel of X that they meet and a weight are in registers."""
        sums, x = rows * panel * SUM_BYTES // self.vector, panel * self.depth * self.itemsize // self.vector
        return sums + x + 1 <= target.vector_registers

    @property
    def itemsize(self) -> int:
        """Bytes of a number that it multiplies."""
        return np.dtype(self.factors[0]).itemsize

    @property
    def factors(self) -> tuple[str, str]:
        """The types of what it multiplies."""
        first, second = _types(self.instruction)[0]
        return first, second

    def widens(self, product: Product) -> str:
        """Return the type that X is interleaved in, and the weight stored in, if X has another."""
        return self.factors[0] if _is_widened(self, product.x.dtype, product.weight.dtype) else ""

    def moves(self, product: Product, tile: Tile, target: Target) -> Iterator[Tensorize]:
        """Yield what lets the instruction, and those that feed it, carry out the loops over tiles."""
        width, dots = tile.columns[0], Dots(*tile.dots)
        pixels = dots.pixels
        vector = SEGMENT if pixels else self.vector  # pixels are kept in order
        x, wide = product.x.dtype, self.widens(product)
        itemsize = np.dtype(x).itemsize
        columns = vector // itemsize
        if wide:
            places = columns if pixels else min(columns, width)
            yield from _moving(x, (self.depth, places), wide, (places, self.depth), target)
        elif width * itemsize >= SEGMENT:
            depth = self.run or self.depth
            yield from _moving(x, (depth, columns), x, (columns, depth), target)
        if pixels:
            square = (self.columns, self.columns)
            yield from _moving(product.sums, square, product.sums, square, target)
        elif width * itemsize > SEGMENT and dots.rows == 1:
            yield from _moving(product.sums, (columns,), product.sums, (columns,), target)
        yield Tensorize("update", self.instruction.name)

    @property
    def work(self) -> int:
        """How many products it makes, or spares."""
        return self.rows * self.columns * self.depth


def _moving(
    dtype: str, shape: tuple[int, ...], result: str, result_shape: tuple[int, ...], target: Target
) -> Iterator[Tensorize]:
    """Yield a step for each instruction of the target that moves elements from one array to another."""
    for instruction in INSTRUCTIONS.values():
        shapes = [(buffer.dtype, buffer.shape) for buffer in instruction.semantics.buffers.values()]
        moves = not instruction.statement.accumulate and shapes == [(dtype, shape), (result, result_shape)]
        if moves and instruction.runs_on(target.isa):
            yield Tensorize("init", instruction.name)


def find_dot(product: Product, target: Target, structured: bool = False, tiled: bool = False) -> Dot | None:
    """Return the instruction of a target that makes most of a product's multiplications at once, if there is one.

    If `structured`, of those that are told which depths of a group a weight has; if `tiled`, of those that work on
    registers of tiles.
    """
    rows, columns = (1 if isinstance(size, str) else size for size in (product.rows, product.columns))  # at least
    if is_float(product.sums) and not product.rounded:
        return None
    types = product.x.dtype, product.weight.dtype, product.sums
    return _find_dot(tuple(INSTRUCTIONS), target, types, rows, columns, (structured, tiled))


@cache
def _find_dot(
    names: tuple[str, ...],
    target: Target,
    types: tuple[str, str, str],
    rows: int,
    columns: int,
    kind: tuple[bool, bool],
) -> Dot | None:
    dots = (as_dot(INSTRUCTIONS[name]) for name in names if INSTRUCTIONS[name].runs_on(target.isa))
    able = [dot for dot in dots if dot and (bool(dot.structure), bool(dot.instruction.tiles)) == kind]
    fitting = [dot for dot in able if _takes(dot, *types)]
    filled = [dot for dot in fitting if dot.rows == 1 or (dot.rows <= rows and dot.columns <= columns)]
    return max(filled, key=lambda dot: dot.work, default=None)


def _takes(dot: Dot, x: str, weight: str, sums: str) -> bool:
    """Say whether an instruction takes these types, where its rows, if it has several, are those of the weight."""
    factors, total = dot.factors, _types(dot.instruction)[1]
    if total != sums:
        return False
    orders = ((weight, x),) if dot.rows > 1 else ((weight, x), (x, weight))
    return factors in orders or _is_widened(dot, x, weight)


def _is_widened(dot: Dot, x: str, weight: str) -> bool:
    """Say whether an instruction, whose factors have one type, holds all numbers of narrower ones."""
    narrow, weights = WIDENED.get(dot.factors[0], ("", ()))
    return dot.factors[0] == dot.factors[1] and x == narrow and weight in weights


def as_dot(instruction: Instruction) -> Dot | None:
    """Return the shape of an instruction that adds up products of two operands in registers; None for any other."""
    statement, axes = instruction.statement, instruction.nest.axes
    loads = _factors(instruction)
    written = [axis.var for axis in axes if any(axis.var in _names(index) for index in statement.target.indices)]
    depth = [extent for axis, extent in zip(axes, instruction.extents, strict=True) if axis.var not in written]
    told = [load for load in loads if any(isinstance(index, Load) for index in load.indices)]
    levels = 2 if instruction.tiles else 1 + len(told)
    if not statement.accumulate or len(loads) != 2 or len(depth) != levels:
        return None
    block = [extent for axis, extent in zip(axes, instruction.extents, strict=True) if axis.var in written]
    rows, columns = block if len(block) == 2 else (1, *block)
    vector = instruction.bits // 8
    if instruction.tiles:
        return Dot(instruction, rows, columns, prod(depth), vector, run=depth[-1])
    if not told:
        return Dot(instruction, rows, columns, depth[0], vector)
    group = int(instruction.semantics.buffers[told[0].buffer].shape[-1])
    return Dot(instruction, rows, columns, depth[0] * group, vector, (depth[1], group))


# -- layouts -------------------------------------------------------------------------------------------------------


def dot_nests(dot: Dot, width: int, weight: Weight, product: Product, target: Target) -> Iterator[tuple[str, Nest]]:
    """Yield the family and the loops of each layout that is worth trying for tiles of so many columns.

    Where there are fewer columns than the instruction takes, or may be, it takes rows in their place.
    """
    if dot.structure:
        layout = partial(_structured, dot)
        if weight.refusal(layout()) is None:
            runs, tiles = -(-weight.depth // dot.depth), -(-weight.rows // dot.rows)
            name = ":".join(map(str, dot.structure))
            yield "N:M", Nest(name, layout, dot.rows, tiles * runs, tiles, weight.depth, PANELS, stage=True)
        return
    symbolic = isinstance(product.columns, str) and dot.rows == 1
    if symbolic or width < dot.columns:
        runs, tiles = -(-weight.depth // dot.depth), -(-weight.rows // dot.columns)
        layout = partial(_panels, dot.columns, dot.depth, weight.depth, product.taps)
        yield "dense", Nest("dense", layout, dot.columns, tiles * runs, tiles, weight.depth, PANELS, stage=True)
    if width < dot.columns:
        return
    for r in range(dot.rows, min(weight.rows, TILE_ROWS) + 1, dot.rows):
        if not dot.holds(r, width, target):
            break
        runs, tiles = -(-weight.depth // dot.depth), -(-weight.rows // r)
        layout = partial(_panels, r, dot.depth, weight.depth, product.taps)
        if not symbolic:
            yield "dense", Nest("dense", layout, r, tiles * runs, tiles, weight.depth, PANELS, stage=True)
        if weight.rows % r or weight.entries > FULL * weight.mask.size or r not in RUNS:
            continue
        counts = np.count_nonzero(weight.jammed(r).mask, axis=1)
        chunk = _chunk(weight.rows, r, product, target)
        name = _runs_name(r)
        steps, tasks = int((-(-counts // dot.depth)).sum()), -(-weight.rows // chunk) if chunk else 1
        runs_of = partial(_runs, r, dot.depth, chunk)
        yield name, Nest(name, runs_of, r, steps, tiles, weight.depth, PANELS, tasks=tasks)


def why_not(dot: Dot, family: str, weight: Weight, target: Target) -> str:
    """Say why `dot_nests` has no layout of a family, in words that follow "it cannot: "."""
    name = dot.instruction.family
    jammed = [r for r in RUNS if family == _runs_name(r)]
    if not jammed:
        return f"{name} takes {dot.depth} depths at once, of dense panels or runs of columns"
    if weight.entries > FULL * weight.mask.size:
        return "there are hardly any zeros"
    (r,) = jammed
    if r % dot.rows or r > TILE_ROWS:
        return f"{name} takes blocks of {dot.rows} rows, at most {TILE_ROWS} of them"
    if not dot.holds(r, dot_panels(dot, target)[-1], target):
        return f"the sums of {r} rows for {name} do not fit in registers"
    return f"{name} takes {dot.columns} columns at once, and there are fewer"


def row_nests(dot: Dot, weight: Weight, product: Product, target: Target) -> Iterator[tuple[Nest, Tile, float]]:
    """Yield dense panels whose vectors of sums are rows, with their tiles and cycles.

    No lane is lost on what is no pixel, but sums must be transposed.
    """
    side = (dot.columns, dot.columns)
    if dot.rows > 1 or not isinstance(product.columns, int) or product.columns < dot.columns:
        return
    if not list(_moving(product.sums, side, product.sums, side, target)):
        return
    for vectors in range(1, 1 + MOST_ROWS // dot.columns):
        r = vectors * dot.columns
        tiles, runs = -(-weight.rows // r), -(-weight.depth // dot.depth)
        most = (target.vector_registers - 1 - vectors) // vectors
        if most < 2 or r >= weight.rows + dot.columns:
            break
        layout = partial(_panels, r, dot.depth, weight.depth, product.taps)
        nest = Nest("dense", layout, r, tiles * runs, tiles, weight.depth, PANELS, stage=True)
        for width in _panel_widths(product):
            for pixels in range(2, most + 1):
                tile = Tile((width,), (), True, dots=(1, dot.columns, dot.vector, pixels))
                yield nest, tile, row_cycles(dot, nest, width, pixels, product, target)


def tile_nests(dot: Dot, weight: Weight, product: Product, target: Target) -> Iterator[tuple[Nest, Tile, float]]:
    """Yield dense panels whose sums registers of tiles hold, with their tiles and cycles."""
    if not isinstance(product.columns, int) or is_float(product.sums):
        return  # TVM lets arrays of bfloat16 of its own be float32, which tiles cannot be loaded from
    layouts = partial(_panels, depths=dot.depth, depth=weight.depth, taps=product.taps, run=dot.run)
    for r in TILED_ROWS:
        tiles, runs = -(-weight.rows // r), -(-weight.depth // dot.depth)
        nest = Nest("dense", partial(layouts, r), r, tiles * runs, tiles, weight.depth, PANELS, stage=True)
        for widest in TILED_COLUMNS:
            widths = dot_widths(dot, product, widest)
            if (widest == dot.columns or widths[0] == widest) and r < weight.rows + dot.rows:
                tile = Tile(widths, (), True, dots=(1, dot.columns, dot.vector, 0, dot.run))
                yield nest, tile, tile_cycles(dot, nest, widths, product, target)


def _panel_widths(product: Product) -> Iterator[int]:
    """Yield how many columns a panel may have: those of whole lines, or equal parts of all."""
    columns = product.columns
    assert isinstance(columns, int)
    if product.pixels and product.valid is None and columns % product.pixels[2] == 0:
        *_, pitch = product.pixels
        yield from (lines * pitch for lines in range(1, columns // pitch + 1) if columns // pitch % lines == 0)
    for parts in range(1, 9):
        width = -(-columns // parts)
        if width >= 16:
            yield width


def _panels(r: int, depths: int, depth: int, taps: int, run: int = 0) -> Layout:
    """Return dense panels of r rows; of the same tap of several channels, where these can be taken together.

    A `run` of so many depths is a level of its own.
    """
    row = [f"i floordiv {r}", f"i mod {r}"] if r > 1 else ["i"]
    by_tap = taps if taps > 1 and depth // taps % depths == 0 else 1
    outer = [f"k floordiv {by_tap * depths}"] + ([f"k mod {taps}"] if by_tap > 1 else [])
    each = f"k floordiv {by_tap}" if by_tap > 1 else "k"
    inner = [f"{each} mod {depths}"]
    if run:
        inner = [f"k floordiv {by_tap * run} mod {depths // run}", f"{each} mod {run}"]
    levels = [row[0], *outer, *row[1:], *inner]
    return parse_layout(f"(i, k) -> ({', '.join(f'{level} : dense' for level in levels)})")


def _structured(dot: Dot) -> Layout:
    """Return what an instruction takes of a weight that has n of each m depths."""
    n, m = dot.structure or (1, 1)
    rows = f"i floordiv {dot.rows} : dense, k floordiv {dot.depth} : dense, i mod {dot.rows} : dense"
    groups = f"k floordiv {m} mod {dot.depth // m} : dense, k mod {m} : structured[{n}, {m}]"
    return parse_layout(f"(i, k) -> ({rows}, {groups})")


def _runs(r: int, depths: int, chunk: int) -> Layout:
    """Return rows, jammed in blocks of r, whose columns are in runs."""
    levels = [f"i floordiv {chunk} : dense"] if chunk else []
    block = f" floordiv {r}" if r > 1 else ""
    levels.append(f"i{block}" + (f" mod {chunk // r}" if chunk else "") + " : bucketed")
    levels.append(f"k : compressed[{depths}]")
    if r > 1:
        levels.append(f"i mod {r} : dense")
    return parse_layout(f"(i, k) -> ({', '.join(levels)})")


def _runs_name(r: int) -> str:
    return f"{r}x1 blocks" if r > 1 else "bucketed rows"


def _chunk(rows: int, r: int, product: Product, target: Target) -> int:
    """Return how many rows, a multiple of r, are a task of their own where columns are not enough; 0 for all."""
    panels = max(1, extent(product.columns) // PANEL) * batch(product)
    wanted = target.cores if panels < MANY * target.cores else 1
    chunk = max(2, -(-rows // wanted // r)) * r
    return 0 if wanted == 1 or chunk >= rows else chunk


# -- tiles ---------------------------------------------------------------------------------------------------------


def dot_panels(dot: Dot, target: Target) -> tuple[int, ...]:
    """Return how many columns the widest tiles may have; where registers are few, also what leaves room for rows."""
    widest = min(PANEL, dot.vector)
    if target.vector_registers > FEW_REGISTERS or dot.structure:
        return (widest,)
    return tuple(widest >> n for n in range(widest.bit_length()) if widest >> n >= dot.columns)


def dot_widths(dot: Dot, product: Product, widest: int, dense: bool = False) -> tuple[int, ...]:
    """Return the widths of tiles: whole panels, then halves of them and so on; the last tiles may overlap.

    Of a symbolic number of columns some are left over. Dense panels are square then, so that the instruction takes
    rows for these.
    """
    least = dot.columns
    if isinstance(product.columns, str):
        return (least, 1) if dense and dot.rows == 1 else (widest, least, 1)
    if product.columns < least:
        return (1,)
    widths, left = [], product.columns
    while left:
        if left >= widest or widest == least:
            widths.append(widest)
            left -= left // widest * widest
        if widest == least:
            return tuple(dict.fromkeys(widths))
        widest //= 2
    return tuple(widths)


def _names(index: Expr) -> set[str]:
    return {part.name for part in walk_expressions(index) if isinstance(part, Var)}


def _factors(instruction: Instruction) -> list[Load]:
    """Return what the instruction multiplies, without what tells where that is."""
    value = instruction.statement.value
    if not isinstance(value, Op) or value.name != "*":
        return []
    return [part for part in value.args if isinstance(part, Load)]


def _types(instruction: Instruction) -> tuple[tuple[str, ...], str]:
    buffers = instruction.semantics.buffers
    (output,) = instruction.semantics.outputs
    return tuple(buffers[load.buffer].dtype for load in _factors(instruction)), output.dtype
