"""Products that instructions for several depths at once carry out, with operands and what they must compute.

Integers take all values of their types. Scales are powers of two, so that results are exact but for their one rounding,
and floats are small integers, so that their sums are exact in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sparsec.ir.instruction import INSTRUCTIONS
from sparsec.ir.kernel import Buffer, Expr, Load, call
from sparsec.ir.layout import Layout
from sparsec.ir.product import BATCH, COLUMN, DEPTH, ROW, SUM, Product
from sparsec.ir.types import is_float
from sparsec.schedules.rules.dots import Dot, as_dot, dot_panels, dot_widths
from sparsec.schedules.steps import Tile, Vectorize
from sparsec.schedules.trace import Trace
from sparsec.targets import Target
from tests.ir.product_cases import Case

BLANK = 7
_BIAS, _SCALE, _OFFSET = Load("bias", (ROW,)), Load("scale", (ROW,)), Load("offset", (ROW,))
_RESIDUAL = Load("residual", (BATCH, ROW, COLUMN))
_FLOAT = call("float", SUM + _BIAS) * _SCALE


@dataclass(frozen=True)
class Epilogue:
    """What is done to each sum, and the same over arrays [batch, rows, columns].

    Parameters
    ----------
    reads : loads of `bias`, int32 [rows], of `scale` and `offset`, float32 [rows], and of `residual`, which is like Y
    """

    y: str
    expr: Expr
    numpy: Callable[..., np.ndarray]
    reads: tuple[str, ...] = ()


EPILOGUES = {
    "sums": Epilogue("int32", SUM, lambda acc: acc),
    "bias": Epilogue("int32", call("max", SUM + _BIAS, 0), lambda acc, bias: np.maximum(acc + bias, 0), ("bias",)),
    "floats": Epilogue(
        "float32",
        _FLOAT + _OFFSET,
        lambda acc, bias, scale, offset: (acc + bias) * scale + offset,
        ("bias", "scale", "offset"),
    ),
    "bytes": Epilogue(
        "uint8",
        call("max", _FLOAT, 0.0) + 3.0,
        lambda acc, bias, scale: np.maximum((acc + bias) * scale, 0) + 3,
        ("bias", "scale"),
    ),
    "signed bytes": Epilogue(
        "int8",
        call("round", _FLOAT) - 3.0,
        lambda acc, bias, scale: np.rint((acc + bias) * scale) - 3,
        ("bias", "scale"),
    ),
    "residual": Epilogue(
        "uint8",
        _FLOAT + call("float", _RESIDUAL) * 0.5,
        lambda acc, bias, scale, residual: (acc + bias) * scale + residual * 0.5,
        ("bias", "scale", "residual"),
    ),
}

FLOAT_EPILOGUES = {
    "sums": Epilogue("float32", SUM, lambda acc: acc),
    "halves": Epilogue("bfloat16", SUM * _SCALE, lambda acc, scale: acc * scale, ("scale",)),
}


# -- operands ------------------------------------------------------------------------------------------------------


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0, extreme: bool = False) -> np.ndarray:
    """All values of a type; `extreme` ones are all what is farthest from zero."""
    random = np.random.default_rng([seed, *shape])
    if is_float(dtype):
        return random.integers(-8, 9, shape).astype(dtype)
    limits = np.iinfo(dtype)
    if extreme:
        return np.full(shape, limits.min or limits.max, dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def sparse_numbers(rows: int, depth: int, density: float, dtype: str = "int8", extreme: bool = False) -> np.ndarray:
    """A matrix with about this share of nonzeros."""
    kept = np.random.default_rng([2, rows, depth]).random((rows, depth)) < density
    return np.where(kept, numbers((rows, depth), dtype, 1, extreme), np.dtype(dtype).type(0))


def dotted(
    weight: np.ndarray,
    columns: int,
    layout: Layout | None = None,
    x: str = "uint8",
    epilogue: str = "sums",
    batch: int = 1,
    taps: int = 1,
    edges: bool = False,
    extreme: bool = False,
) -> Case:
    """W · X, where `taps` consecutive depths read one channel of X, each an element further.

    With `edges`, every sixth column of Y is blank, and so are the runs of a row before and behind its columns.
    """
    rows, depth = weight.shape
    channels, plane = -(-depth // taps), columns + taps - 1
    image = numbers((batch, channels, plane), x, 3, extreme)
    depths = np.arange(depth)
    read = np.stack([image[:, k // taps, k % taps : k % taps + columns] for k in depths], axis=1)
    sums = "float32" if is_float(x) else "int32"
    acc = np.einsum("ik,bkm->bim", weight.astype(sums), read.astype(sums))

    how = (FLOAT_EPILOGUES if is_float(x) else EPILOGUES)[epilogue]
    reads, buffers = _reads(how, batch, rows, columns, depth)
    wide = {name: array[:, None] if array.ndim == 1 else array for name, array in reads.items()}
    expected = stored(how.numpy(acc, **wide), how.y)

    before, behind, valid = (8, 16, np.arange(columns) % 6 < 5) if edges else (0, 0, np.ones(columns, bool))
    wanted = np.full((batch, rows, before + columns + behind), BLANK, how.y)
    wanted[..., before : before + columns] = np.where(valid, expected, wanted.dtype.type(BLANK))
    width = wanted.shape[-1]
    tap = (DEPTH // taps * plane + DEPTH % taps) if taps > 1 else DEPTH * plane
    product = Product(
        "dots",
        Buffer("W", str(weight.dtype), weight.shape, layout),
        Buffer("X", x, (batch, channels * plane)),
        Buffer("Y", how.y, (batch, rows * width)),
        (BATCH, tap + COLUMN),
        (BATCH, ROW * width + COLUMN + before),
        batch,
        rows,
        depth,
        columns,
        operands=buffers,
        epilogue=how.expr,
        valid=Buffer("valid", "int32", (columns,)) if edges else None,
        cleared=((-before, 0), (columns, columns + behind)) if edges else (),
        blank=BLANK if edges else 0,
        taps=taps,
        span=taps - 1,
        rounded=is_float(x),
    )
    arrays = {"W": weight, "X": image.reshape(batch, -1)} | reads
    if edges:
        arrays["valid"] = valid.astype(np.int32)
    return Case(product, arrays, wanted.reshape(batch, -1))


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Round to nearest even where bytes are stored, and saturate."""
    if dtype in ("int8", "uint8"):
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return values.astype(dtype)


def _reads(
    how: Epilogue, batch: int, rows: int, columns: int, depth: int
) -> tuple[dict[str, np.ndarray], tuple[Buffer, ...]]:
    random = np.random.default_rng([4, rows])
    exponents = random.integers(-3, 1, rows) - int(np.log2(64 * depth**0.5 + 1)) - 4
    given = {
        "bias": random.integers(-5000, 5001, rows).astype(np.int32),
        "scale": np.exp2(exponents).astype(np.float32),
        "offset": random.integers(-8, 9, rows).astype(np.float32),
        "residual": numbers((batch, rows, columns), how.y if how.y in ("int8", "uint8") else "int8", 5),
    }
    reads = {name: given[name] for name in how.reads}
    return reads, tuple(Buffer(name, str(array.dtype), array.shape) for name, array in reads.items())


# -- instructions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """An instruction, on a processor, with operands of these types."""

    instruction: str
    target: Target
    x: str
    weight: str

    @property
    def dot(self) -> Dot:
        dot = as_dot(INSTRUCTIONS[self.instruction])
        assert dot is not None
        return dot

    @property
    def stored(self) -> str:
        """The type that weights are stored in: the instruction's own where it is wider."""
        wide = self.dot.factors[0]
        return wide if wide == self.dot.factors[1] else self.weight

    @property
    def runs_here(self) -> bool:
        """Whether this machine has the instruction, encoded as the target has it."""
        return self.dot.instruction.runs_on(Target.parse("native").isa & self.target.isa)


WAYS = {
    "vpdpbusd": Way("x86.vpdpbusd.512", Target.parse("znver5"), "uint8", "int8"),
    "vpdpbusd of 256 bits": Way("x86.vpdpbusd.256", Target.parse("x86-64-v3,+avxvnni"), "uint8", "int8"),
    "vpmaddwd": Way("x86.vpmaddwd.256", Target.parse("haswell"), "uint8", "int8"),
    "vdpbf16ps": Way("x86.vdpbf16ps.512", Target.parse("znver5"), "bfloat16", "bfloat16"),
    "tdpbsud": Way("x86.tdpbsud.m16n16k64", Target.parse("sapphirerapids"), "uint8", "int8"),
    "tdpbssd": Way("x86.tdpbssd.m16n16k64", Target.parse("sapphirerapids"), "int8", "int8"),
    "sdot": Way("arm.sdot.128", Target.parse("emulate:neoverse-n1"), "int8", "int8"),
    "smmla": Way("arm.smmla.128", Target.parse("emulate:neoverse-v1"), "int8", "int8"),
    "bfmmla": Way("arm.bfmmla.128", Target.parse("emulate:neoverse-v1"), "bfloat16", "bfloat16"),
    "mma": Way("cuda.mma_s8.m16n8k32", Target.parse("emulate:sm_90"), "int8", "int8"),
    "mma of float16": Way("cuda.mma_f16.m16n8k16", Target.parse("emulate:sm_90"), "float16", "float16"),
}


def tile_of(way: Way, case: Case, stage: bool = False, rows_first: bool = False, width: int = 0) -> Tile:
    """Tiles of at most so many columns."""
    dot, product = way.dot, case.product
    widths = dot_widths(dot, product, dot_panels(dot, way.target)[0])
    widths = tuple(w for w in widths if not width or w <= width)
    return Tile(widths, (), stage, rows_first, dots=(dot.rows, dot.columns, dot.vector))


def trace_of(way: Way, case: Case, tile: Tile) -> Trace:
    """The instruction, what feeds it, and vector operations for the rest."""
    lanes = way.target.lanes(case.product.sums)
    moves = way.dot.moves(case.product, tile, way.target)
    return Trace((tile, *moves, Vectorize("init", lanes), Vectorize("finish", lanes)))


def in_layout(case: Case, layout: Layout) -> Case:
    return replace(case, product=case.product.stored_as(layout))
