"""Repacking: copying images from one form in memory to another."""

from __future__ import annotations

from sparsec.ir.builders import as_extent
from sparsec.ir.image import VECTOR, Image
from sparsec.ir.kernel import Assign, Buffer, Const, Expr, For, Kernel, Load, Range, Stmt, Var
from sparsec.ir.types import is_float


def build_repack(
    batch: int | str,
    channels: int,
    source: Image,
    target: Image,
    strides: tuple[int, int] = (1, 1),
    phases: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dtype: str = "float32",
    blank: int = 0,
) -> Kernel:
    """Write the kernel that copies images and splits them into phases.

    Phase (p, q) of the result holds at (y, x) the pixel (y * sy + p - top, x * sx + q - left) of the source, and
    `blank` where there is none. The first `phases` in each direction are kept, one plane after the other.

    Parameters
    ----------
    batch, channels : planes of the source
    source, target : forms; target has as many pixels as a phase
    strides, phases : in y and x
    padding : (top, left)
    dtype : of the pixels
    blank : what stands where there is no pixel
    """
    planes = phases[0] * phases[1]
    x = Buffer("X", dtype, (batch, channels * source.plane))
    y = Buffer("Y", dtype, (batch, channels * planes * target.plane))
    copies = [_copy(p, q, source, target, strides, padding) for p in range(phases[0]) for q in range(phases[1])]
    around = float(blank) if is_float(dtype) else blank
    body: list[Stmt] = []
    covered = target.height * target.width == target.plane
    for phase, (rows, columns, copy) in enumerate(copies):
        base = Var("c") * (planes * target.plane) + phase * target.plane
        if not (covered and len(rows) == target.height and len(columns) == target.width):
            cleared = Load("Y", (Var("b"), base + Var("v")))
            body.append(For((Range("v", Const(0), Const(target.plane)),), (Assign(cleared, Const(around)),)))
        lines = runs(columns)
        if rows and lines:
            lanes = tuple(
                For((Range("v", Const(0), Const(stop - start)),), (copy(base, start),)) for start, stop in lines
            )
            body.append(For((Range("y", Const(rows.start), Const(rows.stop)),), lanes))
    nest = (Range("b", Const(0), as_extent(batch)), Range("c", Const(0), Const(channels)))
    return Kernel("repack", (x,), (y,), (For(nest, tuple(body), parallel=True),))


def _copy(p: int, q: int, source: Image, target: Image, strides: tuple[int, int], padding: tuple[int, int]):
    """Return the rows and columns of phase (p, q) that have a pixel, and what copies a run of a row."""
    (sy, sx), (top, left) = strides, padding
    rows = inside(target.height, source.height, sy, p - top)
    columns = inside(target.width, source.width, sx, q - left)

    def copy(base: Expr, start: int) -> Assign:
        row, column = Var("y"), Var("v")
        to = base + row * target.pitch + column + (target.origin + start)
        offset = source.origin + (p - top) * source.pitch + start * sx + q - left
        wide = column * sx if sx != 1 else column
        origin = Var("c") * source.plane + row * (sy * source.pitch) + wide + offset
        return Assign(Load("Y", (Var("b"), to)), Load("X", (Var("b"), origin)))

    return rows, columns, copy


def inside(extent: int, source: int, stride: int, shift: int) -> range:
    """Return the i below `extent` for which i * stride + shift is in the source."""
    start = max(0, -(shift // stride))
    return range(start, max(start, min(extent, (source - 1 - shift) // stride + 1)))


def runs(columns: range) -> list[tuple[int, int]]:
    """Split a row into whole vectors and what is left."""
    middle = columns.start + len(columns) // VECTOR * VECTOR
    return [run for run in ((columns.start, middle), (middle, columns.stop)) if run[0] < run[1]]
