"""Attention as one kernel: the products with the keys and with the values, and the softmax between them.

    S[b, p, m] = scores(Σ_k K[b, k, p] · Q[b, k, m])
    P[b, p, m] = exp(S[b, p, m] − max_p S[b, p, m])
    Y[b, i, m] = mix(Σ_p V[b, i, p] · P[b, p, m] / Σ_p P[b, p, m])

All scores of a panel of columns, the queries, are in a tile, which the nearer caches keep until they are mixed. A query
whose scores are all −∞ gets NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsec.ir.builders import LANE, as_extent, lane_axis
from sparsec.ir.kernel import Assign, Buffer, Const, For, Kernel, Load, Range, Stmt, Tile, call, substitute
from sparsec.ir.product import DEPTH, ROW, SUM, Product, Run, Tiling
from sparsec.ir.product_kernel import dense_panel, outer_axes
from sparsec.ir.types import lowest


@dataclass(frozen=True)
class Attention:
    """Two products of activations, the second one with the softmax of the results of the first.

    The buffers of the two have different names, but for `scores.y` and `mix.x`, which are not stored.

    Parameters
    ----------
    scores : `[batch, keys, queries]`, the softmax of which runs over the keys, its rows
    mix : of the values, `[batch, rows, keys]`, with what the softmax gives
    """

    name: str
    scores: Product
    mix: Product

    @property
    def inputs(self) -> tuple[Buffer, ...]:
        """What the kernel reads, in the order of its parameters."""
        return (*self.scores.inputs, self.mix.weight, *self.mix.operands)


def build_attention(op: Attention, tiling: Tiling, rows: Sequence[Run]) -> Kernel:
    """Write attention of constant shape as a kernel, parallel over panels of columns.

    Parameters
    ----------
    tiling : of the scores
    rows : runs of tiles along the rows of the mix
    """
    body = tuple(_panel(op, columns, tiling, tuple(rows)) for columns in tiling.columns)
    return Kernel(op.name, op.inputs, (op.mix.y,), body)


def _panel(op: Attention, columns: Run, tiling: Tiling, rows: tuple[Run, ...]) -> Stmt:
    """Return the loop over panels of one width."""
    keys, width = op.scores.rows, columns[2]
    assert isinstance(keys, int)
    weights = Buffer("weights", op.scores.sums, (keys, width))
    total = Load("total", (LANE,))
    scores = replace(op.scores, y=weights, y_index=(ROW, LANE))
    mix = replace(op.mix, epilogue=substitute(op.mix.epilogue, {"acc": SUM * total}))
    mixed = dense_panel(mix, columns, replace(tiling, rows=rows, stage=False), Load(weights.name, (DEPTH, LANE)))
    tile = Tile(
        weights.name,
        weights.dtype,
        (keys, width),
        (
            *dense_panel(scores, columns, tiling),
            Tile(total.buffer, weights.dtype, (width,), (*_softmax(weights, total), *mixed)),
        ),
    )
    return For(outer_axes(op.scores, columns), (tile,), parallel=True)


def _softmax(weights: Buffer, total: Load) -> tuple[Stmt, ...]:
    """Replace scores by their exponentials, and leave the reciprocal of each column's total."""
    keys, width = weights.extents
    lanes, rows = lane_axis(width), Range(ROW.name, Const(0), as_extent(keys))
    top, weight = Load("top", (LANE,)), Load(weights.name, (ROW, LANE))

    def each(stmt: Stmt) -> Stmt:
        return For((lanes,), (stmt,))

    exponentials = Tile(
        top.buffer,
        weights.dtype,
        (width,),
        (
            each(Assign(top, Const(lowest(weights.dtype)))),
            For((rows,), (each(Assign(top, call("max", top, weight))),)),
            For(
                (rows,),
                (
                    each(Assign(weight, call("exp", weight - top))),
                    each(Assign(total, weight, accumulate=True)),
                ),
            ),
        ),
    )
    return each(Assign(total, Const(0.0))), exponentials, each(Assign(total, Const(1.0) / total))
