"""Stored coordinates become offsets where all of an index can be told from them, and only there."""

import numpy as np
import pytest

from sparsec.ir.gather import find_gather, summands
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer, Const, Expr, Load, Var
from sparsec.ir.layout import Layout
from sparsec.ir.lower import lower
from sparsec.ir.named import CSR, dense_blocks
from sparsec.ir.notation import parse_layout
from sparsec.ir.parser import parse_kernel
from sparsec.ir.product import BATCH, COLUMN, DEPTH, Product
from sparsec.ir.product_kernel import build_kernel
from sparsec.schedules.steps import Tile
from tests.ir.named_layouts import depth_blocked, row_vectors
from tests.ir.product_cases import CHOSEN, Case, Compiled, check, integers, linear, sparse, trace, widths

K = DEPTH


def gather_of(layout: Layout, x: Expr, depth: int = 24):
    """What a product over this layout gathers, where X is read at `x`."""
    case = linear(sparse(8, depth, 0.3), 16, layout=layout)
    product = Product(
        "p",
        case.product.weight,
        Buffer("X", "float32", (1, 1 << 20)),
        Buffer("Y", "float32", (1, 8 * 16)),
        (BATCH, x + COLUMN),
        (BATCH, Var("i") * 16 + COLUMN),
        1,
        8,
        depth,
        16,
    )
    return find_gather(build_kernel(product, Tile((16,)).tiling(16, 8)), "W")


@pytest.mark.parametrize("layout", [CSR, row_vectors(4), depth_blocked(24, 2, 4)], ids=str)
def test_rows_of_a_matrix(layout):
    gather = gather_of(layout, K * 16)
    assert gather.table.dtype == np.uint16
    assert gather.table.tolist() == [16 * k for k in range(24)]
    assert gather.dim == "k"


def test_a_part_of_the_depth_counts_from_its_start():
    gather = gather_of(depth_blocked(8, parts=3), K * 16)
    assert gather.table.tolist() == [16 * k for k in range(8)]
    assert gather.arrays == ("level2.indices",)


def test_any_digit_is_gathered():
    gather = gather_of(parse_layout("(i, k) -> (k mod 4 : dense, i : dense, k floordiv 4 : compressed)"), K * 16)
    assert gather.table.tolist() == [64 * k for k in range(6)]


def test_the_order_of_a_dimension_gathers():
    gather = gather_of(parse_layout("(i, k : balance[2]) -> (i : dense, k : compressed)"), K * 16)
    assert gather.arrays == ("k.order",)
    assert gather.table.tolist() == [16 * k for k in range(24)]


def test_taps_of_a_filter():
    tap = K // 6 * 1000 + (K % 6 // 3 * 50 + K % 3)
    wanted = [k // 6 * 1000 + k % 6 // 3 * 50 + k % 3 for k in range(24)]
    assert gather_of(CSR, tap).table.tolist() == wanted
    assert gather_of(depth_blocked(12, parts=2), tap).table.tolist() == wanted[:12]


def test_parts_that_cut_through_taps_are_no_table():
    tap = K // 6 * 1000 + (K % 6 // 3 * 50 + K % 3)
    assert gather_of(depth_blocked(8, parts=3), tap) is None


def test_a_constant_offset_stays_in_the_index():
    assert gather_of(CSR, K * 16 + Const(160)).table.tolist() == [16 * k for k in range(24)]


@pytest.mark.parametrize(("pitch", "dtype"), [(2849, np.uint16), (2850, np.uint32), (2**31 // 23, np.uint32)])
def test_offsets_take_the_type_that_holds_them(pitch, dtype):
    assert gather_of(CSR, K * pitch).table.dtype == dtype


@pytest.mark.parametrize(
    ("layout", "x"),
    [
        (dense_blocks(4), K * 16),
        (CSR, Const(512) - K * 16),
        (CSR, K * (2**31 // 23 + 1)),
    ],
    ids=["nothing is stored", "offsets that fall", "offsets that do not fit an index"],
)
def test_where_nothing_is_gathered(layout, x):
    assert gather_of(layout, x) is None


@pytest.mark.parametrize(
    ("statement", "gathers"),
    [
        ("Y[W.i, v] += W * X[W.k * 16 + v] * S[W.k * 16]", True),
        ("Y[W.i, v] += W * X[W.k * 16 + v] * S[W.k]", False),
        ("Y[W.i, v] += W * X[W.k * 16 + v] * S[q]", False),
        ("Y[W.i, v] += W * X[W.k * 16 + v] * select(W.k < 4, 1.0, 2.0)", False),
        ("Y[W.i, v] += W * X[W.k * 16 + v] * select(q < 4, 1.0, 2.0)", False),
    ],
)
def test_a_coordinate_that_is_used_otherwise_is_kept(statement, gathers):
    """A stored offset cannot stand for the coordinate itself."""
    text = f"""
kernel f(W: float32[4, 8] @ "(i, k) -> (i : dense, k : compressed)", X: float32[128], S: float32[128])
         -> Y: float32[4, 16]:
    for i in W[0]:
        for v in range(0, 16):
            Y[W.i, v] = 0.0
        for q in W[1], v in range(0, 16):
            {statement}
"""
    kernel = parse_kernel(text)
    assert (find_gather(kernel, "W") is not None) == gathers
    arrays = {"W": sparse(4, 8, 0.5), "X": integers(128), "S": integers(128, seed=1)}
    lowered = lower(kernel)
    found = Compiled(lowered, lowered.func)(arrays, {"Y": (4, 16)})
    np.testing.assert_array_equal(found["Y"], interpret(kernel, arrays)["Y"])


def test_a_condition_on_a_coordinate_keeps_it():
    text = """
kernel f(W: float32[4, 8] @ "(i, k) -> (i : dense, k : compressed)", X: float32[128]) -> Y: float32[4]:
    for i in W[0]:
        Y[W.i] = 0.0
        for q in W[1]:
            if W.k < 4:
                Y[W.i] += W * X[W.k * 16]
"""
    assert find_gather(parse_kernel(text), "W") is None
    assert find_gather(parse_kernel(text.replace("if W.k", "if W.i")), "W") is not None


def test_an_index_is_split_into_a_base_and_the_rest():
    gather = gather_of(CSR, K * 16)
    load = Load("W", ())
    base, rest = gather.split(gather.terms[0] + Var("m") + 3)
    assert base == K * 16
    assert rest == [Var("m"), Const(3)]
    assert gather.split(Var("m") + 3) is None
    assert list(summands(Var("a") + (Var("b") + load) * 1)) == [Var("a"), (Var("b") + load) * 1]


def wide(columns: int) -> Case:
    """A product whose offsets need 32 bits."""
    return linear(sparse(4, 70, 0.3), columns, layout=CSR)


def test_packed_arrays_hold_offsets():
    case = wide(40)
    lowered = trace(case).apply(case.product).lowered
    arrays = lowered.pack("W", case.arrays["W"])
    assert list(arrays) == [array for buffer, array in lowered.parameters if buffer == "W"]
    assert arrays["level1.indices"].tolist() == [40 * k for k in np.nonzero(case.arrays["W"])[1]]


def test_offsets_of_32_bits():
    case = wide(1024)
    (gather,) = check(case, trace(case, 1024)).lowered.gathers.values()
    assert gather.table.dtype == np.uint32


@pytest.mark.parametrize("layout", CHOSEN.values(), ids=CHOSEN)
def test_every_compressed_depth_is_gathered(layout):
    case = linear(sparse(13, 24, 0.3), 16, layout=layout)
    kernel = build_kernel(case.product, Tile(widths(16, 16)).tiling(16, 13))
    assert (find_gather(kernel, "W") is not None) == any(word in str(layout) for word in ("compressed", "slots"))
