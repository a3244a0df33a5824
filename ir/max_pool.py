"""Max pooling of images, from any form in memory to any other, with what lies outside an image left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from sparsec.ir.builders import as_extent
from sparsec.ir.image import Image
from sparsec.ir.kernel import Assign, Buffer, Const, Expr, For, Kernel, Load, Range, Stmt, Tile, Var, call
from sparsec.ir.repack import inside, runs
from sparsec.ir.types import arithmetic, lowest


def build_max_pool(
    batch: int | str,
    channels: int,
    source: Image,
    target: Image,
    window: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dtype: str = "float32",
    around: int | None = None,
) -> Kernel:
    """Write the kernel that takes the largest pixel of each window.

    The pixel (y, x) of the result is the largest of the pixels (y * sy + r * dy - top, x * sx + s * dx - left) of the
    source that exist. A tile holds the largest pixels of the rows of a window, column by column. Columns of the result
    that miss different taps have loops of their own, so that none needs a condition.

    Parameters
    ----------
    batch, channels : planes of the source, and of the result
    source, target : forms
    window, strides, dilation : in y and x
    padding : (top, left)
    dtype : of the pixels, floats
    around : what is written around the pixels of the result; None where nobody reads that
    """
    row, column, y_plane = Var("y"), Var("v"), Var("c") * target.plane
    body: list[Stmt] = []
    if around is not None and target.height * target.width != target.plane:
        cleared = Load("Y", (Var("b"), y_plane + column))
        body.append(For((Range("v", Const(0), Const(target.plane)),), (Assign(cleared, Const(float(around))),)))

    def along(columns: range, step: Assign) -> Iterator[Stmt]:
        """Run over columns, as whole vectors and what is left."""
        for start, stop in runs(columns):
            yield For((Range("v", Const(start), Const(stop)),), (step,))

    first = row * strides[0] - padding[0]
    end = first + ((window[0] - 1) * dilation[0] + 1)
    rows = Range("r", call("max", first, first % dilation[0]), call("min", end, source.height), dilation[0])
    highest = Load("highest", (column,))
    pixel = Load("X", (Var("b"), Var("c") * source.plane + source.origin + Var(rows.var) * source.pitch + column))
    across: list[Stmt] = []
    for columns, taps in _alike(target.width, source.width, window[1], strides[1], dilation[1], padding[1]):
        loads = [Load(highest.buffer, (column * strides[1] + (tap * dilation[1] - padding[1]),)) for tap in taps]
        to = Load("Y", (Var("b"), y_plane + row * target.pitch + column + target.origin))
        across += along(columns, Assign(to, _largest(loads) if loads else Const(lowest(dtype))))
    whole = range(source.width)
    tile = Tile(
        highest.buffer,
        arithmetic(dtype),
        (source.width,),
        (
            *along(whole, Assign(highest, Const(lowest(dtype)))),
            For((rows,), tuple(along(whole, Assign(highest, call("max", highest, pixel))))),
            *across,
        ),
    )
    body.append(For((Range("y", Const(0), Const(target.height)),), (tile,)))
    nest = (Range("b", Const(0), as_extent(batch)), Range("c", Const(0), Const(channels)))
    x, y = (Buffer(name, dtype, (batch, channels * form.plane)) for name, form in (("X", source), ("Y", target)))
    return Kernel("max_pool", (x,), (y,), (For(nest, tuple(body), parallel=True),))


def _alike(
    extent: int, source: int, taps: int, stride: int, dilation: int, padding: int
) -> Iterator[tuple[range, tuple[int, ...]]]:
    """Yield runs of neighbours below `extent` along an axis, with the taps that are inside the source for them."""
    valid = [inside(extent, source, stride, tap * dilation - padding) for tap in range(taps)]
    ends = sorted({0, extent, *(end for one in valid if one for end in (one.start, one.stop))})
    for start, stop in pairwise(ends):
        yield range(start, stop), tuple(tap for tap, one in enumerate(valid) if start in one)


def _largest(values: Sequence[Expr]) -> Expr:
    """Return the largest of some values, by halves, so that wide windows are not deep expressions."""
    half = len(values) // 2
    return call("max", _largest(values[:half]), _largest(values[half:])) if half else values[0]
