"""Products whose entries are spelled out: ways to cut their weights, and the traces that spell them out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparsec.ir.kernel import Buffer
from sparsec.ir.layout import Layout
from sparsec.ir.product import BATCH, COLUMN, ROW
from sparsec.schedules.rules.cuts import Cut
from sparsec.schedules.rules.prices import Nest
from sparsec.schedules.rules.spelled import INNER, spelled_layout, spelled_moves, spelled_widths
from sparsec.schedules.steps import Tensorize, Tile
from sparsec.schedules.trace import Trace
from sparsec.targets import Target
from tests.ir.product_cases import Case

AVX512 = Target.parse("skylake-avx512")
SPELL = Tensorize("update", "x86.fragments.512")
ROWS, DEPTH = 26, 45


def cut(r: int, chunk: int = 0, part: int = DEPTH, rows: int = ROWS, depth: int = DEPTH) -> Layout:
    """The layout of blocks of r rows, in chunks of so many rows and parts of so much of the depth."""
    return spelled_layout(Cut(rows, depth, r, chunk, -(-depth // part), part))


LAYOUTS = {  # for 26 rows and a depth of 45
    "one block": cut(26),
    "ragged blocks": cut(5),
    "chunks": cut(4, chunk=8),
    "parts": cut(13, part=15),
    "ragged blocks in ragged parts": cut(5, part=16),
    "chunks of a block in parts": cut(9, chunk=9, part=15),
    "blocks in chunks and parts": cut(4, chunk=12, part=9),
}


def tile(case: Case, width: int, stage: bool = False) -> Tile:
    return Tile(spelled_widths(case.product, width, 16), (), stage, spelled=16)


def spelled_trace(case: Case, width: int = 64, stage: bool = False) -> Trace:
    """The trace that the rule for products makes, for tiles of about so many columns."""
    layout = case.product.layout
    assert isinstance(layout, Layout) and isinstance(case.product.depth, int)
    part = min([digit.divisor for digit in layout.digits("k") if digit.divisor > 1], default=case.product.depth)
    nest = Nest("spelled out", lambda: layout, 1, 1, 1, part, INNER, stage=stage, entries=1)
    return Trace((tile(case, width, stage), *spelled_moves(nest, case.product, AVX512)))


def looped_trace(case: Case, width: int = 64, stage: bool = False) -> Trace:
    """The same loops, none of which is made vectors of."""
    return Trace((tile(case, width, stage), SPELL))


def on_images(case: Case, before: int = 16, behind: int = 8, blank: int = 0, valid: bool = True) -> Case:
    """The case with rows of Y that are padded, and, if only some are `valid`, with every sixth column blank."""
    rows, columns = case.product.rows, case.product.columns
    assert isinstance(rows, int) and isinstance(columns, int)
    shown = (np.arange(columns) % 6 < 5).astype(np.int32) if valid else np.ones(columns, np.int32)
    batch, plane = len(case.expected), before + columns + behind
    product = replace(
        case.product,
        y=Buffer("Y", "float32", (batch, rows * plane)),
        y_index=(BATCH, ROW * plane + COLUMN + before),
        valid=Buffer("valid", "int32", (columns,)) if valid else None,
        cleared=((-before, 0), (columns, columns + behind)),
        blank=blank,
    )
    expected = np.full((batch, rows, plane), np.float32(blank))
    expected[..., before : before + columns] = np.where(shown, case.expected.reshape(batch, rows, columns), blank)
    arrays = case.arrays | ({"valid": shown} if valid else {})
    return replace(case, product=product, arrays=arrays, expected=expected.reshape(batch, -1))
