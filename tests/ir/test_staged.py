"""What is copied of X for a block of the depth: rows of their own, or stretches that taps share."""

from dataclasses import replace

import numpy as np
import pytest

from sparsec.errors import LayoutError
from sparsec.ir.gather import find_gather
from sparsec.ir.kernel import Buffer
from sparsec.ir.product import BATCH, COLUMN, DEPTH
from sparsec.ir.product_kernel import build_kernel
from sparsec.ir.staged import StagedPart, stretches
from sparsec.schedules.rules.cuts import Panel, find_cuts, in_rows
from sparsec.schedules.rules.product import propose
from sparsec.schedules.rules.weight import Weight
from sparsec.schedules.steps import Tile
from sparsec.schedules.trace import Trace
from sparsec.targets import TARGETS
from tests.ir.named_layouts import depth_blocked
from tests.ir.product_cases import Case, check, integers, linear, sparse, trace


def filtered(channels, kernel, pitch, dilation=1, columns=64, rows=13, layout=None, density=0.3):
    """A convolution of stride 1 over planes of rows `pitch` elements apart, its first tap at their start."""
    height, width = kernel
    taps, plane = height * width, 4 * 16 + columns + (height * pitch + width) * dilation
    weight, x = sparse(rows, channels * taps, density), integers(1, channels * plane, seed=4)
    first = [c * plane for c in range(channels)]
    places = [start + (r * pitch + s) * dilation for start in first for r in range(height) for s in range(width)]
    read = np.stack([x[0, place : place + columns] for place in places])
    tap = (DEPTH % taps // width * pitch + DEPTH % width) * dilation
    product = replace(
        linear(weight, columns).product,
        x=Buffer("X", "float32", x.shape),
        x_index=(BATCH, DEPTH // taps * plane + tap + COLUMN),
        taps=taps,
        pixels=(columns // pitch, pitch, pitch),
    ).stored_as(layout)
    return Case(product, {"W": weight, "X": x}, (weight @ read).reshape(1, -1))


def test_taps_at_distances_with_one_remainder_share_a_stretch():
    assert stretches(filtered(1, (3, 3), 8).product, 8) == {0: 16, 1: 16, 2: 16}
    assert stretches(filtered(1, (3, 3), 15).product, 8) == {0: 32, 1: 16, 2: 0, 6: 24, 7: 24}
    assert stretches(filtered(1, (3, 3), 16, dilation=4).product, 8) == {0: 136, 4: 128}
    assert stretches(filtered(1, (1, 1), 7).product, 16) == {0: 0}


def test_a_stretch_takes_less_than_the_rows_of_its_taps():
    product = filtered(8, (3, 3), 8).product
    assert StagedPart(product, 72, 64, 8).size < StagedPart(product, 72, 64).size / 2


SMALL = [((3, 3), 15, 1), ((3, 3), 8, 1), ((3, 3), 29, 2), ((1, 5), 9, 1)]
LARGE = (7, 7), 57, 1  # of which tiles of few columns take LLVM ten seconds
TILED = [(64, (32,)), (56, (48, 8)), (37, (32, 5))]
STAGED = [(filters, tiles) for filters in SMALL for tiles in TILED] + [(LARGE, TILED[0])]


@pytest.mark.parametrize("filters, tiles", STAGED, ids=str)
def test_shared_stretches_mean_the_same(filters, tiles):
    (kernel, pitch, dilation), (columns, widths) = filters, tiles
    taps = kernel[0] * kernel[1]
    layout = depth_blocked(2 * taps, parts=3)
    case = filtered(5, kernel, pitch, dilation, columns, layout=layout)  # a channel short of three blocks of two
    _, *moves = trace(case).steps
    check(case, Trace((Tile(widths, stage=True, stretch=8), *moves)))


@pytest.mark.parametrize("layout", [depth_blocked(18, r=4, parts=2), depth_blocked(18, chunk=5, parts=2)], ids=str)
def test_blocks_and_chunks_of_rows_share_stretches(layout):
    case = filtered(4, (3, 3), 15, layout=layout)
    _, *moves = trace(case).steps
    check(case, Trace((Tile((64,), stage=True, stretch=16), *moves)))


def test_a_block_that_parts_a_channel_is_refused():
    product = filtered(4, (3, 3), 8, layout=depth_blocked(12, parts=3)).product
    with pytest.raises(LayoutError, match="parts the 9 taps of a channel; they cannot share what is copied of X"):
        build_kernel(product, Tile((64,), stage=True, stretch=8).tiling(64, 13))


def test_stretches_need_taps_that_are_a_distance_apart():
    product = filtered(4, (3, 3), 8, layout=depth_blocked(18, parts=2)).product
    elsewhere = replace(product, x=Buffer("X", "float32", (1, 36, 64)), x_index=(BATCH, DEPTH, COLUMN))
    for each, tile in (elsewhere, Tile((64,), stage=True, stretch=8)), (product, Tile((64,), stretch=8)):
        with pytest.raises(LayoutError, match="no taps of linear can share stretches of X; stage X without"):
            build_kernel(each, tile.tiling(64, 13))


def test_offsets_into_stretches_are_stored():
    """Of the few entries of a filter many channels are taken at once, but no more than offsets of 16 bits reach."""
    case = filtered(512, (3, 3), 15, columns=216, rows=64, density=0.02)
    panel = Panel(case.product, 32, TARGETS["znver4"])
    shared = [cut for cut in find_cuts(Weight(case.arrays["W"]), panel, 1, copies=True, shares=True) if cut.stretch]
    assert shared
    for cut in shared:
        product = case.product.stored_as(in_rows(cut, "bucketed", "compressed"))
        kernel = build_kernel(product, Tile((32, 24), stage=True, stretch=cut.stretch).tiling(216, 64))
        assert find_gather(kernel, "W") is not None, "a step would divide its coordinate"


def test_filters_of_small_images_share_stretches():
    case = filtered(256, (3, 3), 8, columns=56, rows=256, density=0.2)
    tile = propose(case.product, case.arrays["W"], TARGETS["znver4"]).trace.steps[0]
    assert tile.stage and tile.stretch == 8, "half a vector is what a unit of this processor loads at once"
