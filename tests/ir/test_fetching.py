"""Tiles ask early for lines that no processor foresees: their own where they are long, or those of later ones."""

import numpy as np
import pytest

from sparsec.errors import KernelError
from sparsec.ir.fetching import AHEAD, LONG
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import For, Kernel, Tile
from sparsec.ir.layout import Layout
from sparsec.ir.named import BUCKETED, CSR, dense_blocks
from sparsec.ir.parser import parse_kernel
from sparsec.ir.quads import WALKED
from sparsec.ir.verifier import verify
from tests.ir.named_layouts import depth_blocked
from tests.ir.product_cases import attention, check, integers, linear, sparse, trace

PANELS = dense_blocks(4)


def lines(depth: int, layout: Layout = PANELS, epilogue: str = "none", rows: int = 8) -> int:
    """How often a kernel with tiles of 32 columns asks for a line."""
    case = linear(np.ones((rows, depth), np.float32), 64, epilogue=epilogue, layout=layout)
    return str(check(case, trace(case, 32)).func).count("llvm.prefetch")


def tiles(kernel: Kernel) -> list[str]:
    """The headers of the tiles that ask for something."""
    return [line.strip() for line in str(kernel).split("\n") if " fetching " in line]


def test_a_long_dense_tile_asks_for_each_line_of_its_rows():
    assert lines(LONG) == 4 * 2


def test_what_an_epilogue_reads_beside_is_asked_for_too():
    assert lines(LONG, epilogue="residual") == 2 * lines(LONG)
    assert lines(LONG, epilogue="bias and relu") == lines(LONG)


def test_rows_that_fill_up_a_block_are_not_asked_for():
    case = linear(np.ones((7, LONG), np.float32), 64, layout=PANELS)
    kernel = check(case, trace(case, 32)).kernel
    assert "Y[b, min(p0 * 4 + 3, 6) * 64 + m]" in tiles(kernel)[0]


def test_short_tiles_ask_for_nothing():
    assert lines(LONG - 1) == 0


def test_tiles_in_order_ask_for_what_they_walk_alone():
    assert lines(2 * LONG, CSR) == 2 * WALKED


def test_products_of_activations_ask_where_the_depth_is_long():
    for depth, count in ((LONG, 3 * 2), (LONG - 1, 0)):
        case = attention(2, 3, depth, 32)
        assert str(check(case, trace(case, 32, (3,))).func).count("llvm.prefetch") == count


def test_buckets_ask_for_the_rows_of_a_later_tile():
    case = linear(sparse(16, 24, 0.3), 32, layout=BUCKETED)
    (tile,) = tiles(check(case).kernel)
    assert tile == f"tile acc: float32[32] fetching 32 of Y[b, p0 * 32 + m] at p0 + {AHEAD}:"


def test_residuals_are_asked_for_in_the_last_part_of_the_depth():
    case = linear(sparse(16, 24, 0.3), 32, epilogue="residual", layout=depth_blocked(8, parts=3))
    (tile,) = tiles(check(case).kernel)
    assert f"32 of residual[b, p1 * 32 + m] at p1 + {AHEAD} if p0 == 2:" in tile


def test_blocks_of_rows_ask_for_each_row():
    case = linear(sparse(16, 24, 0.3), 32, layout=depth_blocked(24, r=4))
    (tile,) = tiles(check(case).kernel)
    assert [f"Y[b, {row} * 32 + m]" in tile for row in ("p0 * 4", "(p0 * 4 + 1)", "(p0 * 4 + 3)")] == [True] * 3


# -- the IR --------------------------------------------------------------------------------------------------------

KERNEL = """\
kernel f(W: float32[8, 6] @ "(i, k) -> (i : bucketed, k : compressed)", X: float32[6, 4]) -> Y: float32[8, 4]:
    for p in W[0]:
        tile acc: float32[4] fetching 4 of Y[p, 0] at p + 2, 4 of X[0, 0], 4 of X[1, 0] at p + 1 if p < 4:
            for v in range(0, 4):
                acc[v] = 0.0
            for k in W[1]:
                for v in range(0, 4):
                    acc[v] += W * X[W.k, v]
            for v in range(0, 4):
                Y[W.i, v] = acc[v]"""


def test_what_is_asked_for_prints_reads_back_and_changes_nothing():
    kernel = parse_kernel(KERNEL)
    verify(kernel)
    assert str(kernel) == KERNEL
    loop = kernel.body[0]
    assert isinstance(loop, For) and isinstance(loop.body[0], Tile) and len(loop.body[0].fetch) == 3
    weight, x = sparse(8, 6, 0.4), integers(6, 4)
    assert np.array_equal(interpret(kernel, {"W": weight, "X": x})["Y"], weight @ x)


@pytest.mark.parametrize(
    ("part", "replacement", "message"),
    [
        ("Y[p, 0] at p + 2", "Y[p, 0] at q + 2", "q walks no level that stores a coordinate for every position"),
        ("i : bucketed", "i : dense", "p walks no level that stores a coordinate for every position"),
        ("at p + 2", "at p + 0", "for at least one position ahead"),
        ("fetching 4 of", "fetching 0 of", "at least one element is fetched"),
        ("of Y[p, 0]", "of Z[p, 0]", "Z is not defined here"),
        ("of Y[p, 0]", "of Y[p + 1, 0]", "reaches 8, outside of 0 to 7"),
        ("4 of Y[p, 0]", "5 of Y[p, 0]", "the index 0 + 4 of Y reaches 4, outside of 0 to 3"),
        ("4 of Y[p, 0]", "4 of Y[p, 1]", "the index 1 + 3 of Y reaches 4, outside of 0 to 3"),
        ("4 of X[1, 0] at p + 1 if p < 4", "5 of X[1, 0]", "the index 0 + 4 of X reaches 4, outside of 0 to 3"),
        ("of Y[p, 0]", "of Y[W.i, 0]", "W.i is of the position where the tile stands, and not of the one 2 ahead"),
        ("of Y[p, 0]", "of Y[position(W), 0]", "position(W) is of the position where the tile stands"),
        ("if p < 4", "if W.i < 4", "W.i is of the position where the tile stands, and not of the one 1 ahead"),
        ("if p < 4", "if p", "the condition p must be a comparison"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(part, replacement, message):
    with pytest.raises(KernelError, match=r"^Kernel f, line 3, `tile acc") as caught:
        verify(parse_kernel(KERNEL.replace(part, replacement)))
    assert message in str(caught.value)


SHORT = """\
kernel f(W: float32[8, 6] @ "(i, k) -> (i : bucketed, k : compressed)", s: float32[]) -> Y: float32[8, 6]:
    for p in W[0], k in W[1]:
        tile acc: float32[1] fetching 2 of Y[p, k] if k < 5:
            Y[W.i, W.k] = s[]"""


def test_a_condition_guards_what_could_be_outside():
    verify(parse_kernel(SHORT))
    with pytest.raises(KernelError, match="the index k \\+ 1 of Y reaches 6, outside of 0 to 5"):
        verify(parse_kernel(SHORT.replace(" if k < 5", "")))


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        ("1 of Y[p, k] at p + 1", "k is of the position where the tile stands, and not of the one 1 ahead"),
        ("1 of Y[p, 0] at p + 1 if k < 5", "k is of the position where the tile stands"),
        ("1 of s[]", "s has no dimension along which elements follow each other"),
    ],
)
def test_what_lies_nowhere_or_in_another_tile_is_refused(replacement, message):
    with pytest.raises(KernelError, match=message):
        verify(parse_kernel(SHORT.replace("2 of Y[p, k] if k < 5", replacement)))
