"""What tiles of a product ask for early: rows of Y, and what the epilogue reads beside them.

A tile meets few lines of each row, and its next one lies far away, so that no prefetcher of a processor foresees them.
Where rows come in an order of their own, a tile asks for those of one that comes later. A long dense tile asks for its
own, which arrive while it adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sparsec.ir.builders import LANE
from sparsec.ir.kernel import Const, Expr, Fetch, Load, Walk, substitute, walk_expressions
from sparsec.ir.product import COLUMN, ROW, Product

AHEAD = 2  # tiles from the one that asks to the one that needs it
LONG = 32  # additions to each sum in which lines arrive


def fetches(
    product: Product, rows: Iterable[Expr], width: int, last: Expr | None = None, walk: Walk | None = None
) -> Iterator[Fetch]:
    """Yield what to ask for at the first column of a tile.

    Parameters
    ----------
    rows : of Y, over the loops around the tile
    width : columns of the tile
    last : the condition that the tile finishes its rows, where it may not
    walk : which leads to the rows, where those of a later tile are meant
    """
    loads = {part for part in walk_expressions(product.epilogue) if isinstance(part, Load)}
    beside = sorted((load for load in loads if {ROW, COLUMN} <= set(walk_expressions(load))), key=str)
    ahead = (walk.var, AHEAD) if walk else ("", 0)
    for row in rows:
        yield Fetch(width, _at_row(Load(product.y.name, product.y_index), row), *ahead)
        yield from (Fetch(width, _at_row(load, row), *ahead, last) for load in beside)


def _at_row(load: Load, row: Expr) -> Load:
    """Return an element at a row and the first column of a tile."""
    return Load(load.buffer, tuple(substitute(index, {"i": row, LANE.name: Const(0)}) for index in load.indices))
