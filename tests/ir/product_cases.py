"""Products with operands, and the three ways to compute them: NumPy, the interpreter and compiled code.

Weights and activations are small integers, so that float32 sums are exact in any order and results are equal bit for
bit. Compiled code runs on arrays that lie between NaNs: what it reads from outside shows in its results, and what it
writes there shows afterwards.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from scipy.special import erf
from tvm import tirx

from sparsec.ir.fragments import CODE
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer, Const, Expr, Kernel, Load, Var, call, substitute
from sparsec.ir.layout import Layout
from sparsec.ir.lower import Lowered
from sparsec.ir.named import CSR, dense_blocks, sell
from sparsec.ir.notation import parse_layout
from sparsec.ir.product import BATCH, COLUMN, DEPTH, ROW, SUM, Product
from sparsec.ir.sums import Sum
from sparsec.schedules.steps import Tensorize, Tile, Vectorize
from sparsec.schedules.trace import Scheduled, Trace
from sparsec.targets import Target
from tests.ir.fragments_here import executable, load_caller
from tests.ir.libraries import Library
from tests.ir.named_layouts import depth_blocked, row_vectors

NATIVE = Target.parse("native")
GUARD = 64  # elements before and after every array; a multiple of the alignment that compiled code relies on


# -- operands ------------------------------------------------------------------------------------------------------


def integers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).integers(-8, 9, shape).astype(np.float32)


def sparse(rows: int, depth: int, density: float, seed: int = 0) -> np.ndarray:
    """A matrix with about this share of nonzeros."""
    kept = np.random.default_rng([seed, rows, depth]).random((rows, depth)) < density
    return np.where(kept, integers(rows, depth, seed=seed), np.float32(0))


# -- cases ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Epilogue:
    """What is done to each sum.

    Parameters
    ----------
    expr : over `acc` and loads of `bias` [rows], `scale` [1], `mask` [columns] and `residual`, which is like Y
    numpy : the same over arrays [batch, rows, columns], its parameters named as the loads
    rtol : for functions that round
    """

    expr: Expr
    numpy: Callable[..., np.ndarray]
    reads: tuple[str, ...] = ()
    rtol: float = 0.0


_BIAS, _SCALE, _MASK = Load("bias", (ROW,)), Load("scale", (Const(0),)), Load("mask", (COLUMN,))
_RESIDUAL = Var("residual")  # stands for its load, whose index is that of Y
_SMALL = SUM * 0.0078125

EPILOGUES = {
    "none": Epilogue(SUM, lambda acc: acc),
    "bias and relu": Epilogue(call("max", SUM + _BIAS, 0.0), lambda acc, bias: np.maximum(acc + bias, 0), ("bias",)),
    "scale and bias": Epilogue(SUM * _SCALE + _BIAS, lambda acc, scale, bias: acc * scale + bias, ("scale", "bias")),
    "residual": Epilogue(SUM + _RESIDUAL * 2.0, lambda acc, residual: acc + residual * 2, ("residual",)),
    "residual and relu": Epilogue(
        call("max", SUM + _RESIDUAL, 0.0), lambda acc, residual: np.maximum(acc + residual, 0), ("residual",)
    ),
    "residual, bias and limits": Epilogue(
        call("min", call("max", SUM + _BIAS + _RESIDUAL, -4.0), 6.0),
        lambda acc, bias, residual: np.clip(acc + bias + residual, -4, 6),
        ("bias", "residual"),
    ),
    "mask of columns": Epilogue(SUM + _MASK, lambda acc, mask: acc + mask, ("mask",)),
    "gelu": Epilogue(
        _SMALL * (call("erf", _SMALL * 0.5**0.5) * 0.5 + 0.5),
        lambda acc: acc / 256 * (erf(acc / 128 * 0.5**0.5) + 1),
        rtol=2e-6,
    ),
}


@dataclass(frozen=True)
class Case:
    """A product, its operands by buffer and what it must compute, shaped as Y."""

    product: Product
    arrays: dict[str, np.ndarray]
    expected: np.ndarray
    rtol: float = 0.0

    @property
    def operands(self) -> dict[str, np.ndarray]:
        """The arrays, and each term of the weight by itself."""
        name = self.product.weight.name
        parts = self.product.parts(self.arrays[name]) if self.product.residue else {}
        return self.arrays | parts

    def agrees(self, found: np.ndarray) -> None:
        np.testing.assert_allclose(found, self.expected, rtol=self.rtol, atol=self.rtol)


def linear(
    weight: np.ndarray,
    columns: int,
    batch: int = 1,
    epilogue: str = "none",
    layout: Layout | Sum | None = None,
    symbolic: Sequence[str] = (),
    taps: int = 1,
) -> Case:
    """W · X + …: W is a constant; `symbolic` names the extents (batch, columns) that the kernel is to leave open."""
    rows, depth = weight.shape
    x = integers(batch, depth, columns, seed=1)
    case = _case("linear", Buffer("W", "float32", (rows, depth)), (), weight, weight, x, epilogue, symbolic, taps)
    return replace(case, product=case.product.stored_as(layout))


def attention(
    batch: int,
    rows: int,
    depth: int,
    columns: int,
    transposed: bool = False,
    epilogue: str = "none",
    symbolic: Sequence[str] = (),
) -> Case:
    """W · X where W is an activation, stored as [batch, depth, rows] if it is transposed."""
    given = integers(batch, *((depth, rows) if transposed else (rows, depth)), seed=2)
    extents = {"batch": batch, "rows": rows, "depth": depth}
    names: list[int | str] = [name if name in symbolic else extents[name] for name in extents]
    shape = (names[0], names[2], names[1]) if transposed else tuple(names)
    index = (BATCH, DEPTH, ROW) if transposed else (BATCH, ROW, DEPTH)
    matrix = given.transpose(0, 2, 1) if transposed else given
    x = integers(batch, depth, columns, seed=1)
    return _case("matmul", Buffer("W", "float32", shape), index, given, matrix, x, epilogue, symbolic)


def _case(
    name: str,
    weight: Buffer,
    weight_index: tuple[Expr, ...],
    given: np.ndarray,
    matrix: np.ndarray,
    x: np.ndarray,
    epilogue_name: str,
    symbolic: Sequence[str],
    taps: int = 1,
) -> Case:
    """Images are flat where their extents are constants, as `sparsec.graph.products` makes them."""
    batch, depth, columns = x.shape
    rows = matrix.shape[-2]
    extents = {"batch": batch, "rows": rows, "depth": depth, "columns": columns}
    b, i, k, m = (name if name in symbolic else extent for name, extent in extents.items())
    shapes: dict[str, tuple[int | str, ...]] = {"X": (b, k, m), "Y": (b, i, m)}
    x_index: tuple[Expr, ...] = (BATCH, DEPTH, COLUMN)
    y_index: tuple[Expr, ...] = (BATCH, ROW, COLUMN)
    if not {"rows", "depth", "columns"}.intersection(symbolic):
        shapes = {"X": (b, depth * columns), "Y": (b, rows * columns)}
        x_index, y_index = (BATCH, DEPTH * columns + COLUMN), (BATCH, ROW * columns + COLUMN)
    shapes |= {"bias": (i,), "scale": (1,), "mask": (m,), "residual": shapes["Y"]}

    epilogue = EPILOGUES[epilogue_name]
    wide = {"bias": (rows, 1), "scale": (1,), "mask": (columns,), "residual": (batch, rows, columns)}
    reads = {name: integers(*wide[name], seed=3) for name in epilogue.reads}
    expected = epilogue.numpy(matrix.astype(np.float64) @ x, **reads).astype(np.float32)

    def flat(name: str, array: np.ndarray) -> np.ndarray:
        return array.reshape([extents.get(str(dim), dim) for dim in shapes[name]])

    product = Product(
        name,
        weight,
        Buffer("X", "float32", shapes["X"]),
        Buffer("Y", "float32", shapes["Y"]),
        x_index,
        y_index,
        b,
        i,
        k,
        m,
        weight_index,
        tuple(Buffer(name, "float32", shapes[name]) for name in reads),
        substitute(epilogue.expr, {"residual": Load("residual", y_index)}),
        taps=taps,
    )
    arrays = {"W": given, "X": flat("X", x)} | {name: flat(name, array) for name, array in reads.items()}
    return Case(product, arrays, flat("Y", expected), epilogue.rtol)


# -- layouts -------------------------------------------------------------------------------------------------------


CHOSEN = {  # the layouts that rules propose, for 13 rows and a depth of 24
    "panels of rows": dense_blocks(5),
    "panels of one row": dense_blocks(1),
    "panels of rows, by tap": dense_blocks(4, taps=3),
    "buckets": depth_blocked(24),
    "buckets in parts": depth_blocked(8, parts=3),
    "buckets in a ragged part": depth_blocked(9, parts=3),
    "buckets in chunks": depth_blocked(24, chunk=5),
    "buckets in chunks and parts": depth_blocked(12, chunk=6, parts=2),
    "buckets of blocks": depth_blocked(24, r=4),
    "buckets of blocks in parts": depth_blocked(8, r=2, parts=3),
    "buckets of blocks in chunks": depth_blocked(24, r=2, chunk=4),
    "buckets of blocks in chunks and parts": depth_blocked(6, r=4, chunk=8, parts=4),
    "slices of rows": sell(4, 24),
    "slices of rows in parts": sell(8, 8),
    "slices of rows in chunks": sell(4, 24, 2),
    "compressed rows": CSR,
    "row vectors": row_vectors(4),
    "balanced rows": parse_layout("(i : balance[3], k) -> (i floordiv 5 : dense, i mod 5 : dense, k : compressed)"),
    "balanced row vectors": parse_layout(
        "(i : balance[2, 4], k) -> (i floordiv 4 : dense, k : compressed, i mod 4 : dense)"
    ),
}


# -- running -------------------------------------------------------------------------------------------------------


def widths(columns: int | str, width: int) -> tuple[int, ...]:
    """Tiles of this width, then of what is left of vectors, then of single elements."""
    if isinstance(columns, str):
        return tuple(dict.fromkeys(w for w in (width, 16, 4, 1) if w <= width))
    left = columns % width
    sizes = (width if columns >= width else 0, left // 16 * 16, left % 16)
    return tuple(size for size in sizes if size)


def trace(case: Case, width: int = 32, rows: tuple[int, ...] = ()) -> Trace:
    """Tiles of `width` columns, vector instructions in them."""
    moves = (Vectorize("init", 16), Tensorize("update", "fma.16"), Vectorize("finish", 16))
    return Trace((Tile(widths(case.product.columns, width), rows), *moves))


def interpreted(kernel: Kernel, case: Case) -> np.ndarray:
    """Run a kernel of the case."""
    symbols = {dim: extent for dim, extent in zip(kernel.outputs[0].shape, case.expected.shape, strict=True)}
    return interpret(kernel, case.operands, {d: n for d, n in symbols.items() if isinstance(d, str)})["Y"]


@cache
def ask_for_tiles() -> None:
    """Have Linux keep registers of tiles for this process, as the runtime does when a model is loaded."""
    arch_prctl, ask, tiles = 158, 0x1023, 18
    if platform.machine() == "x86_64" and platform.system() == "Linux":
        ctypes.CDLL(None).syscall(arch_prctl, ask, tiles)


class Compiled:
    """A scheduled form of a lowered kernel as machine code, its own or that of a library of several."""

    def __init__(
        self, lowered: Lowered, func: tirx.PrimFunc, target: Target = NATIVE, library: Any | None = None
    ) -> None:
        self.lowered = lowered
        name = str(func.attrs["global_symbol"])
        ask_for_tiles()
        if lowered.codes:
            load_caller()
        library = library or Library([func], target)
        self.function = library[name]

    def __call__(self, arrays: dict[str, np.ndarray], outputs: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Run, and return the outputs, which have these shapes."""
        buffers, parameters = self.lowered.kernel.buffers, self.lowered.parameters
        packed = {name: self.lowered.pack(name, array) for name, array in arrays.items() if buffers[name].layout}
        empty = {name: np.full(shape, 77, buffers[name].dtype) for name, shape in outputs.items()}
        given = [packed[name][array] if array else (arrays | empty)[name] for name, array in parameters]
        memories, views = zip(*map(_guarded, given), strict=True)
        parts = [array for _, array in parameters]
        run = [executable(view) if part == CODE else view for part, view in zip(parts, views, strict=True)]
        self.function(*map(tensor, run))
        for memory, view in zip(memories, views, strict=True):
            assert _untouched(memory, view), "a kernel wrote outside its arrays"
        return {name: view for (name, _), view in zip(parameters, views, strict=True) if name in outputs}

    def agrees(self, case: Case) -> None:
        """Hold a compiled product against NumPy."""
        case.agrees(self(case.operands, {"Y": case.expected.shape})["Y"])


def check(case: Case, schedule: Trace | None = None) -> Scheduled:
    """Hold the interpreter and compiled code against NumPy."""
    scheduled = (schedule or trace(case)).apply(case.product)
    case.agrees(interpreted(scheduled.kernel, case))
    Compiled(scheduled.lowered, scheduled.func).agrees(case)
    return scheduled


def tensor(array: np.ndarray) -> tvm_ffi.Tensor:
    """Share an array of 64-byte alignment with TVM; NumPy exports no bfloat16, so it goes as the bits."""
    if str(array.dtype) != "bfloat16":
        return tvm_ffi.from_dlpack(array)
    if not array.size:
        return tvm.runtime.empty(array.shape, "bfloat16")
    return tvm.runtime.from_dlpack(array.view(np.uint16))._create_view(array.shape, "bfloat16")


def aligned(array: np.ndarray) -> np.ndarray:
    """Copy an array to a place of 64-byte alignment."""
    return _guarded(array)[1]


def _guarded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Copy an array to a place of 64-byte alignment; return the memory around it, and the copy."""
    pad = GUARD * array.itemsize
    memory = np.full(array.nbytes + 2 * pad + 64, 0xFF, np.uint8)  # as a float, NaN
    start = pad + -(memory.ctypes.data + pad) % 64
    view = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return memory, view


def _untouched(memory: np.ndarray, view: np.ndarray) -> bool:
    start = view.ctypes.data - memory.ctypes.data
    return bool((memory[:start] == 0xFF).all() and (memory[start + view.nbytes :] == 0xFF).all())
