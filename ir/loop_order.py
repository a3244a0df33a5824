"""The loops of a product over a packed weight: in which order its levels are walked, and where the sums live.

A dense level stores nothing, so it may be walked anywhere; all other levels are walked in storage order. The rows that
a tile sums at once are the innermost loops, and rows that are outside the tile are known before it opens.

    (i floordiv 8 : dense, k : compressed, i mod 8 : dense)                            i/8 | k | i%8
    (i floordiv 4 : dense, k floordiv 2 : compressed, i mod 4 : dense, k mod 2 : dense)     i/4 | k/2, k%2 | i%4
    (i floordiv 64 : dense, k : compressed, i mod 64 floordiv 8 : dense, i mod 8 : dense)   i/64, i%64/8 | k | i%8
    (k floordiv 96 : dense, i : bucketed, k mod 96 : compressed)                       k/96, i | k%96 |
    (k : dense, i : compressed)                                                        k, i | |
    (i floordiv 8 : dense, k floordiv 96 : slots, i mod 8 : dense, k mod 96 : singleton)    i/8 | k/96 | i%8, k%96
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from sparsec.ir.layout import Layout
from sparsec.ir.levels import Bucketed, Dense, Diagonal

TILE_ROWS = 16  # what registers hold
FEW_SUMS = 64  # of a tile of few columns, so that additions need not wait for one another


@dataclass(frozen=True)
class LoopOrder:
    """Levels of a weight, each tuple outermost first.

    Parameters
    ----------
    outside : walked around the tile; the rows are known after them, but for those of `lanes`
    inside : walked by the tile, whose sums run over them
    lanes : dense levels of the rows that the tile holds
    beside : levels of the depth that each of the lanes has a coordinate of its own in
    blocks : those of `outside` that cut the depth, so that sums rest in Y between their iterations
    in_place : whether `outside` meets all rows in each block, so that the first block can start the sums, and the last
        one finish them
    tasks : how many levels of `outside`, from the first one on, lead to rows of their own
    """

    outside: tuple[int, ...]
    inside: tuple[int, ...]
    lanes: tuple[int, ...]
    beside: tuple[int, ...]
    blocks: tuple[int, ...]
    in_place: bool
    tasks: int


def loop_order(
    layout: Layout,
    shape: tuple[int, int],
    whole_rows: bool = False,
    width: int = TILE_ROWS,
    tile_rows: int = TILE_ROWS,
    apart: bool = False,
) -> LoopOrder:
    """Order the loops of a product with a weight `[rows, depth]`.

    Parameters
    ----------
    whole_rows : walk dense levels of the rows before those of the depth that they follow at once, so that sums stay in
        registers where the layout would cut the depth
    width : columns of a tile
    tile_rows : how many rows a tile may have in any case
    apart : whether lanes may have coordinates of their own
    """
    sizes = layout.sizes(shape)
    rows = {level for level, (digit, _) in enumerate(layout.levels) if digit.dim == layout.dims[0]}
    dense = {level for level, (_, kind) in enumerate(layout.levels) if isinstance(kind, Dense)}
    most = max(tile_rows, FEW_SUMS // width)
    lanes, beside = _lanes(layout, sizes, rows, most), _beside(layout, rows)
    if apart and beside and sizes[beside[0] - 1] <= most:
        lanes = (beside[0] - 1,)
    else:
        beside = ()
    around = [level for level in range(len(sizes)) if level not in (*lanes, *beside)]
    order = _hoisted(around, rows, dense, layout.leaf, whole_rows)
    split = max((place + 1 for place, level in enumerate(order) if level in rows), default=0)
    outside = tuple(order[:split])
    once = {level for level in outside if isinstance(layout.levels[level][1], Diagonal)} - rows  # for each row
    full = all(level in once or isinstance(layout.levels[level][1], Dense | Bucketed) for level in outside)
    depths = [level for level in outside if level not in rows | once]
    blocks = tuple(level for level in depths if sizes[level] > 1 or level not in dense)
    tasks = next((n for n, level in enumerate(outside) if level not in rows & dense), len(outside))
    return LoopOrder(outside, tuple(order[split:]), lanes, beside, blocks, full, tasks)


def _lanes(layout: Layout, sizes: tuple[int, ...], rows: set[int], most: int) -> tuple[int, ...]:
    """Return the last dense levels of the rows, at most so many, that follow one of the depth in the ending block."""
    depth = next((level for level in range(len(sizes)) if level not in rows), len(sizes))
    lanes: list[int] = []
    for level in reversed(range(max(layout.leaf, depth), len(sizes))):
        if level in rows:
            if prod(sizes[lane] for lane in lanes) * sizes[level] > most:
                break
            lanes.insert(0, level)
    return tuple(lanes)


def _beside(layout: Layout, rows: set[int]) -> tuple[int, ...]:
    """Return the last levels, of the depth, that tell apart the slots which rows of a dense level share, if they do."""
    last = len(layout.levels)
    first = last
    while first and layout.levels[first - 1][1].shares_positions:
        first -= 1
    shared = 1 < first < last and layout.levels[first - 2][1].shares_lanes and first - 1 in rows
    return tuple(range(first, last)) if shared and rows.isdisjoint({first - 2, *range(first, last)}) else ()


def _hoisted(order: list[int], rows: set[int], dense: set[int], leaf: int, whole_rows: bool) -> list[int]:
    """Move dense levels of the rows outwards, past levels of the depth.

    Those of the block that ends a sparse layout move past all of the depth that follows other rows; with `whole_rows`,
    those of each run of dense levels move to the front of it.
    """
    for level in [level for level in order if level in rows & dense]:
        place = order.index(level)
        free = place
        while free and order[free - 1] not in rows and (level >= leaf > 0 or (whole_rows and order[free - 1] in dense)):
            free -= 1
        order.insert(free, order.pop(place))
    return order
