"""Max pooling of images, from any form in memory to any other, with what lies outside an image left out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import pairwise

from sparsec.ir.image import Image
from sparsec.ir.kernel import Assign, Buffer, Const, Expr, For, Kernel, Load, Range, Stmt, Var, call
from sparsec.ir.repack import inside, runs
from sparsec.ir.types import lowest

Taps = tuple[int, ...]


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
    source that exist. Rows, and columns, that miss different taps have loops of their own, so that none needs a
    condition.

    Parameters
    ----------
    batch, channels : planes of the source, and of the result
    source, target : forms
    window, strides, dilation : in y and x
    padding : (top, left)
    dtype : of the pixels, floats
    around : what is written around the pixels of the result; None where nobody reads that
    """
    row, column, x_plane, y_plane = Var("y"), Var("v"), Var("c") * source.plane, Var("c") * target.plane
    body: list[Stmt] = []
    if around is not None and target.height * target.width != target.plane:
        cleared = Load("Y", (Var("b"), y_plane + column))
        body.append(For((Range("v", Const(0), Const(target.plane)),), (Assign(cleared, Const(float(around))),)))

    def largest(rs: Taps, ss: Taps, start: int) -> Expr:
        pixel = x_plane + row * (strides[0] * source.pitch) + column * strides[1]
        shift = source.origin - padding[0] * source.pitch - padding[1] + start * strides[1]
        places = [r * dilation[0] * source.pitch + s * dilation[1] + shift for r in rs for s in ss]
        loads: list[Expr] = [Load("X", (Var("b"), pixel + place)) for place in places]
        return reduce(lambda a, b: call("max", a, b), loads) if loads else Const(lowest(dtype))

    for rows, rs in _alike(target.height, source.height, window[0], strides[0], dilation[0], padding[0]):
        lanes: list[Stmt] = []
        for columns, ss in _alike(target.width, source.width, window[1], strides[1], dilation[1], padding[1]):
            for start, stop in runs(columns):
                to = Load("Y", (Var("b"), y_plane + row * target.pitch + column + (target.origin + start)))
                step = Assign(to, largest(rs, ss, start))
                lanes.append(For((Range("v", Const(0), Const(stop - start)),), (step,)))
        body.append(For((Range("y", Const(rows.start), Const(rows.stop)),), tuple(lanes)))
    extent = Var(batch) if isinstance(batch, str) else Const(batch)
    nest = (Range("b", Const(0), extent), Range("c", Const(0), Const(channels)))
    x, y = (Buffer(name, dtype, (batch, channels * form.plane)) for name, form in (("X", source), ("Y", target)))
    return Kernel("max_pool", (x,), (y,), (For(nest, tuple(body), parallel=True),))


def _alike(
    extent: int, source: int, taps: int, stride: int, dilation: int, padding: int
) -> Iterator[tuple[range, Taps]]:
    """Yield runs of neighbours below `extent` along an axis, with the taps that are inside the source for them."""
    valid = [inside(extent, source, stride, tap * dilation - padding) for tap in range(taps)]
    ends = sorted({0, extent, *(end for one in valid if one for end in (one.start, one.stop))})
    for start, stop in pairwise(ends):
        yield range(start, stop), tuple(tap for tap, one in enumerate(valid) if start in one)
