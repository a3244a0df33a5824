"""Products: the one operator that every layer with weights comes down to, and its kernels.

    Y[y(b, i, m)] = epilogue(Σ_k W[i, k] · X[x(b, k, m)])

A linear layer reads `X[b, k * columns + m]`. A convolution over padded images reads the pixel of its tap, `k` being
`(c, r, s)` and `m` running over all pixels of an image, and a grouped or depthwise one is the same with a
block-diagonal `W`. An attention product has an activation as `W`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sparsec.errors import LayoutError
from sparsec.ir.kernel import (
    Assign,
    Axis,
    Buffer,
    Const,
    Coordinate,
    Expr,
    For,
    If,
    Kernel,
    Load,
    Range,
    Stmt,
    Stored,
    Tile,
    Var,
    Walk,
    call,
    substitute,
)
from sparsec.ir.layout import Layout
from sparsec.ir.levels import Bucketed, Dense

BATCH, ROW, DEPTH, COLUMN, SUM = Var("b"), Var("i"), Var("k"), Var("m"), Var("acc")


@dataclass(frozen=True)
class Product:
    """A product of a matrix with the columns of an activation, and what is done to each result.

    Expressions are over `b` (batch), `i` (row), `k` (depth), `m` (column) and, in the epilogue, `acc` (the sum).

    Parameters
    ----------
    weight : `[rows, depth]`, packed in a layout, or an activation of any shape
    x_index, y_index : where `X[k, m]` and `Y[i, m]` are; a sum with `m` alone in the last dimension, so that tiles of
        columns are vectors
    batch, rows, depth, columns : extents
    weight_index : for an activation, where `W[i, k]` is
    operands : what the epilogue reads
    epilogue : the result, over `acc` and loads from `operands`
    valid : int32 `[columns]`, 0 where the result is replaced by zero
    cleared : (first, end) of flat runs in every row of Y, relative to its column 0, that are set to zero
    taps : how many consecutive depths read the same stretch of X, shifted by at most `span` elements
    """

    name: str
    weight: Buffer
    x: Buffer
    y: Buffer
    x_index: tuple[Expr, ...]
    y_index: tuple[Expr, ...]
    batch: int | str
    rows: int | str
    depth: int | str
    columns: int | str
    weight_index: tuple[Expr, ...] = ()
    operands: tuple[Buffer, ...] = ()
    epilogue: Expr = SUM
    valid: Buffer | None = None
    cleared: tuple[tuple[int, int], ...] = ()
    taps: int = 1
    span: int = 0

    @property
    def inputs(self) -> tuple[Buffer, ...]:
        """What the kernel reads, in the order of its parameters."""
        return (self.weight, self.x, *self.operands, *((self.valid,) if self.valid else ()))


Run = tuple[Expr, Expr, int]  # from, to, step: the equal tiles of one size along an axis


@dataclass(frozen=True)
class Tiling:
    """How a product is cut for registers and threads; ragged edges are runs of smaller tiles.

    Parameters
    ----------
    columns : runs of tiles along the columns
    rows : for an activation weight, runs of tiles along the rows; a packed one has what its last dense levels hold
    stage : copy the part of X that a depth block reads into a buffer of its own first, so that it fills L1 evenly
    rows_first : run all columns of a chunk or block of a packed weight's rows before the next one
    """

    columns: tuple[Run, ...]
    rows: tuple[Run, ...] = ()
    stage: bool = False
    rows_first: bool = False


def build_kernel(product: Product, tiling: Tiling) -> Kernel:
    """Write the product as a kernel, its loops in the order of the weight's levels."""
    if product.weight.layout is not None:
        body = tuple(_packed(product, columns, tiling.stage, tiling.rows_first) for columns in tiling.columns)
    else:
        body = tuple(_dense(product, columns, rows) for columns in tiling.columns for rows in tiling.rows)
    return Kernel(product.name, product.inputs, (product.y,), body)


def _packed(product: Product, columns: Run, stage: bool, rows_first: bool) -> Stmt:
    """Loop over a packed weight.

    The tile opens where the last row digit outside the depth loops is known, and holds the rows of the dense levels
    inside them. Depth digits outside the tile block the depth: the sum rests in Y between their iterations.
    """
    layout = product.weight.layout
    assert layout is not None and isinstance(product.depth, int) and isinstance(product.rows, int)
    _check(layout, (product.rows, product.depth))
    name, width = product.weight.name, columns[2]
    row_dim, depth_dim = layout.dims
    dims = [digit.dim for digit, _ in layout.levels]
    sizes = layout.sizes((product.rows, product.depth))
    last_depth = max(level for level, dim in enumerate(dims) if dim == depth_dim)
    split = max((level + 1 for level in range(last_depth) if dims[level] == row_dim), default=0)

    walks = [Walk(f"p{level}", name, level) for level in range(len(dims))]
    lanes: tuple[Axis, ...] = (*walks[last_depth + 1 :], Range("v", Const(0), Const(width)))
    acc = Load("acc", tuple(Var(axis.var) for axis in lanes))
    row, column = Coordinate(name, row_dim), COLUMN + Var("v")
    x = _at(product.x, product.x_index, {"k": Coordinate(name, depth_dim), "m": column})
    y = _at(product.y, product.y_index, {"i": row, "m": column})
    if stage:
        _check_stage(layout, split, last_depth)
    staged = split - 1 if stage else None  # the level below the copy
    if staged is not None:
        x = Load("part", (Var(f"p{last_depth}"), Var("v")))

    padded = _padded_rows(layout, product.rows) != product.rows
    inside = call("<", row, product.rows)
    init: Expr = Const(0.0)
    last: Expr | None = None
    result = _result(product, acc, row, column)
    blocks = [level for level in range(split) if dims[level] == depth_dim and sizes[level] > 1]
    if blocks:
        before = call("select", inside, y, init) if padded else y
        init = call("select", _all(call("==", Var(f"p{level}"), 0) for level in blocks), init, before)
        last = _all(call("==", Var(f"p{level}"), sizes[level] - 1) for level in blocks)
        result = call("select", last, result, acc)
    store: Stmt = Assign(y, result)
    if padded:
        store = If(inside, (store,))

    tile = Tile(
        "acc",
        product.y.dtype,
        (*sizes[last_depth + 1 :], width),
        (
            For(lanes, (Assign(acc, init),)),
            For(
                tuple(walks[split : last_depth + 1]),
                (For(lanes, (Assign(acc, Stored(name) * x, accumulate=True),)),),
            ),
            For(lanes, (store,)),
            *_clear(product, columns, walks[last_depth + 1 :], inside if padded else None, last),
        ),
    )
    tasks = _independent(layout, split)
    batch, panels = _outer(product, columns)
    nest: tuple[Axis, ...] = (batch, *walks[:tasks], panels) if rows_first else (batch, panels, *walks[:tasks])
    inner: Stmt = tile
    if staged is not None:
        inner = _stage(product, sizes[last_depth], f"p{staged - 1}", width, For((walks[staged],), (tile,)))
        inner = For(tuple(walks[tasks:staged]), (inner,))
    elif tasks < split:
        inner = For(tuple(walks[tasks:split]), (tile,))
    return For(nest, (inner,), parallel=True)


def _stage(product: Product, part: int, block: str, width: int, body: Stmt) -> Stmt:
    """Copy the rows of X that one depth block reads, `[part, width]`, for the body."""
    depth = Var(block) * part + Var("r")
    value: Expr = _at(product.x, product.x_index, {"k": depth, "m": COLUMN + Var("v")})
    assert isinstance(product.depth, int)
    if product.depth % part:
        value = call("select", call("<", depth, product.depth), value, 0.0)
    copy = For((Range("v", Const(0), Const(width)),), (Assign(Load("part", (Var("r"), Var("v"))), value),))
    return Tile("part", product.x.dtype, (part, width), (For((Range("r", Const(0), Const(part)),), (copy,)), body))


def _dense(product: Product, columns: Run, rows: Run) -> Stmt:
    """Loop over an activation as the weight."""
    lanes = (Range("r", Const(0), Const(rows[2])), Range("v", Const(0), Const(columns[2])))
    depth = Range("k", Const(0), _dim(product.depth))
    acc = Load("acc", (Var("r"), Var("v")))
    row, column = ROW + Var("r"), COLUMN + Var("v")
    weight = _at(product.weight, product.weight_index, {"i": row})
    x = _at(product.x, product.x_index, {"m": column})
    y = _at(product.y, product.y_index, {"i": row, "m": column})
    tile = Tile(
        "acc",
        product.y.dtype,
        (rows[2], columns[2]),
        (
            For(lanes, (Assign(acc, Const(0.0)),)),
            For((depth,), (For(lanes, (Assign(acc, weight * x, accumulate=True),)),)),
            For(lanes, (Assign(y, _result(product, acc, row, column)),)),
        ),
    )
    return For((*_outer(product, columns), Range("i", *rows)), (tile,), parallel=True)


def _outer(product: Product, columns: Run) -> tuple[Range, Range]:
    return Range("b", Const(0), _dim(product.batch)), Range("m", *columns)


def _clear(
    product: Product, columns: Run, rows: list[Walk], inside: Expr | None, last: Expr | None
) -> Iterator[Stmt]:
    """Yield what sets the cleared runs of a tile's rows to zero, beside the first or the last tile of the columns."""
    start, stop, width = columns
    for first, end in product.cleared:
        beside = start if end <= 0 else Const(_number(stop) - width)
        if beside != (Const(0) if end <= 0 else Const(_number(_dim(product.columns)) - width)):
            continue  # another run of tiles has that edge
        column = COLUMN + Var("v") + (first - _number(beside))
        assert product.weight.layout is not None
        row = Coordinate(product.weight.name, product.weight.layout.dims[0])
        zero: Stmt = Assign(_at(product.y, product.y_index, {"i": row, "m": column}), Const(0.0))
        if inside is not None:
            zero = If(inside, (zero,))
        lanes = For((*rows, Range("v", Const(0), Const(end - first))), (zero,))
        edge = call("==", COLUMN, beside)
        yield If(edge if last is None else call("and", edge, last), (lanes,))


def _number(value: Expr) -> int:
    assert isinstance(value, Const), "only products with a constant number of columns have cleared runs"
    return int(value.value)


def _at(buffer: Buffer, index: tuple[Expr, ...], bindings: dict[str, Expr]) -> Load:
    return Load(buffer.name, tuple(substitute(part, bindings) for part in index))


def _result(product: Product, acc: Expr, row: Expr, column: Expr) -> Expr:
    result = substitute(product.epilogue, {"acc": acc, "i": row, "m": column})
    if product.valid is not None:
        result = call("select", call("==", Load(product.valid.name, (column,)), 1), result, 0.0)
    return result


def _check(layout: Layout, shape: tuple[int, int]) -> None:
    """Raise where the levels of a weight do not make tiles: rows stored outside, and one depth level inside them.

    Only a compressed level leaves out what pads the depth, where X has nothing to multiply.

    Raises
    ------
    LayoutError
    """
    rows, depth = layout.dims
    kinds = [(digit.dim, level) for digit, level in layout.levels]
    last = max(n for n, (dim, _) in enumerate(kinds) if dim == depth)
    tile = kinds[last + 1 :]
    stored_rows = any(dim == rows and not isinstance(level, Dense | Bucketed) for dim, level in kinds[:last])
    sparse_depths = sum(not isinstance(level, Dense) for dim, level in kinds if dim == depth)
    blocks = last < len(kinds) and sparse_depths > 0 and isinstance(kinds[last][1], Dense)
    if stored_rows or sparse_depths > 1 or blocks or any(not isinstance(level, Dense) for _, level in tile):
        raise LayoutError(
            f"a product cannot run over {layout}: rows must be dense or bucketed, and only the last digit of the depth "
            "compressed; store the weight as compressed rows, row vectors or depth-blocked"
        )
    if not sparse_depths and layout.padded(shape)[1] != shape[1]:
        raise LayoutError(
            f"a product cannot run over {layout}: its dense blocks do not divide a depth of {shape[1]}; choose blocks "
            "that do, or compress the depth"
        )


def _check_stage(layout: Layout, split: int, last_depth: int) -> None:
    """Raise unless a block of the depth is one loop outside the rows, and what it holds one loop inside them.

    Raises
    ------
    LayoutError
    """
    depth = layout.dims[1]
    digits = [(level, digit.divisor) for level, (digit, _) in enumerate(layout.levels) if digit.dim == depth]
    ordered = any(dim == depth for dim, _ in layout.orders)
    if len(digits) != 2 or digits[0][0] != split - 2 or digits[1] != (last_depth, 1) or ordered:
        raise LayoutError(
            f"X cannot be staged for {layout}: its levels must end with a block of the depth, the rows and the depth "
            "in that block; store the weight depth-blocked"
        )


def _independent(layout: Layout, split: int) -> int:
    """Return how many leading levels are dense digits of the rows, whose tiles never meet in Y."""
    count = 0
    for digit, level in layout.levels[:split]:
        if digit.dim != layout.dims[0] or not isinstance(level, Dense):
            break
        count += 1
    return count


def _padded_rows(layout: Layout, rows: int) -> int:
    digits = [digit for digit in layout.digits(layout.dims[0]) if digit.divisor != 1]
    block = digits[0].divisor if digits else 1
    return -(-rows // block) * block


def _all(conditions: Iterable[Expr]) -> Expr:
    first, *rest = conditions
    for condition in rest:
        first = call("and", first, condition)
    return first


def _dim(extent: int | str) -> Expr:
    return Var(extent) if isinstance(extent, str) else Const(extent)
