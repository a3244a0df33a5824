"""Products whose sums registers of tiles hold compute what NumPy does, for any rows, depths and columns."""

import re
from collections.abc import Iterator

import pytest

from sparsec.errors import LayoutError
from sparsec.ir.product_kernel import build_kernel
from sparsec.ir.tiles import Block, best_block
from sparsec.schedules.rules.dots import tile_nests
from sparsec.schedules.rules.product import Choice, as_proposal
from sparsec.schedules.rules.weight import Weight
from sparsec.schedules.steps import Tile
from sparsec.schedules.trace import Trace
from sparsec.targets import Target
from tests.ir.dot_cases import WAYS, Way, dotted, in_layout, sparse_numbers
from tests.ir.product_cases import Case, Compiled, interpreted
from tests.ir.test_dots import layout_of

NATIVE = Target.parse("native")


def tilings(way: Way, case: Case) -> Iterator[tuple[Case, Trace]]:
    """The product in each layout that there is for tiles of sums, and how it is carried out."""
    for nest, tile, cycles in tile_nests(way.dot, Weight(case.arrays["W"] != 0), case.product, way.target):
        choice = Choice("dense", nest, tile, cycles, way.dot)
        proposal = as_proposal(case.product, choice, choice, way.target)
        layout = proposal.product.layout
        assert layout is not None
        yield in_layout(case, layout), proposal.trace


@pytest.mark.parametrize(
    ("way", "rows", "depth", "taps", "columns", "epilogue", "edges"),
    [
        ("tdpbsud", 16, 3, 1, 16, "bytes", True),
        ("tdpbssd", 17, 6, 3, 20, "signed bytes", False),
    ],
)
def test_the_interpreter_agrees_with_numpy(way, rows, depth, taps, columns, epilogue, edges):
    weight = sparse_numbers(rows, depth, 0.7, WAYS[way].weight)
    case = dotted(weight, columns, x=WAYS[way].x, epilogue=epilogue, edges=edges, taps=taps)
    case, trace = next(tilings(WAYS[way], case))
    case.agrees(interpreted(trace.kernel(case.product), case))


COMPILED = [
    # way, rows, depth, taps, columns, epilogue, edges, batch
    ("tdpbsud", 64, 256, 1, 128, "bytes", False, 1),
    ("tdpbsud", 40, 70, 1, 49, "residual", False, 2),
    ("tdpbsud", 100, 3 * 64, 3, 37, "floats", True, 1),
    ("tdpbsud", 17, 9 * 5, 9, 200, "signed bytes", True, 2),
    ("tdpbssd", 33, 65, 1, 80, "bias", False, 1),
    ("tdpbssd", 48, 100, 1, 50, "sums", False, 2),
]


@pytest.mark.parametrize(("way", "rows", "depth", "taps", "columns", "epilogue", "edges", "batch"), COMPILED)
def test_compiled_code_agrees_with_numpy(way, rows, depth, taps, columns, epilogue, edges, batch):
    way = WAYS[way]
    case = dotted(
        sparse_numbers(rows, depth, 0.7, way.weight), columns, x=way.x, epilogue=epilogue, edges=edges, batch=batch,
        taps=taps,
    )  # fmt: skip
    found = list(tilings(way, case))
    assert len(found) >= 4
    for case, trace in found:
        scheduled = trace.apply(case.product, NATIVE.isa)
        assert way.instruction in str(scheduled.kernel)
        Compiled(scheduled.lowered, scheduled.func).agrees(case)


def test_sums_are_in_tiles_from_zero_to_the_end_of_the_depth():
    case = dotted(sparse_numbers(64, 640, 1.0), 64)
    way = WAYS["tdpbsud"]
    case, trace = next(found for found in tilings(way, case) if found[1].steps[0].columns == (64,))
    text = str(trace.apply(case.product, way.target.isa).func)
    count = {name: len(re.findall(rf"llvm\.x86\.{name}\b", text)) for name in ("tilezero", "tdpbsud", "tilestored64")}
    rows = case.product.layout.sizes((64, 640))[2] // 16  # type: ignore[union-attr]
    assert count == {"tilezero": 4 * rows, "tdpbsud": 4 * rows, "tilestored64": 4 * rows}
    assert len(re.findall(r"llvm\.x86\.ldtilecfg", text)) == len(re.findall(r"llvm\.x86\.tilerelease", text)) == 1


@pytest.mark.parametrize("name", ["panels", "runs"])
def test_layouts_without_runs_of_depths_are_refused(name):
    case = dotted(sparse_numbers(16, 64, 0.5), 16, layout_of(name, 16, 64))
    tile = Tile((16,), (), True, dots=(1, 16, 64, 0, 4))
    with pytest.raises(LayoutError, match=r"tiles of sums take X staged, and weights in rows of runs|cannot be staged"):
        build_kernel(case.product, tile.tiling(16, 16))


@pytest.mark.parametrize("rows", range(1, 6))
@pytest.mark.parametrize("columns", range(1, 17))
def test_blocks_fit_registers_and_load_least(rows, columns):
    found = best_block(rows, columns, registers=8)
    assert found.registers <= 8 and found.rows <= rows and found.columns <= columns

    def loads(block: Block) -> int:
        return -(-rows // block.rows) * -(-columns // block.columns) * (block.rows + block.columns)

    fitting = [Block(m, n) for m in range(1, 8) for n in range(1, 8) if Block(m, n).registers <= 8]
    assert loads(found) <= min(loads(block) for block in fitting if block.rows <= rows and block.columns <= columns)
