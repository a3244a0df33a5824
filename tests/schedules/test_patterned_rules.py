"""The machine code of kernels over patterns: vectors in registers, and no branch for an element."""

import re

import pytest

from sparsec.ir.named import CSC, CSR
from sparsec.schedules.rules.masked_attention import blocks_of_rows, price_attention, price_dense, schedule_softmax
from sparsec.schedules.rules.sddmm import schedule_sddmm
from sparsec.schedules.steps import Accumulate, Tile
from sparsec.schedules.trace import Trace
from sparsec.targets import Target
from tests.ir.product_cases import linear, sparse
from tests.ir.sddmm_cases import pattern, sddmm
from tests.ir.test_masked_softmax import Case
from tests.operators.test_op import windows
from tests.schedules.assembly import assembly, hottest, spills

TARGET = Target.parse("znver4")
BLOCKS = blocks_of_rows(16, 8)


@pytest.mark.parametrize("layout", [BLOCKS, CSR], ids=["blocks", "dot products"])
def test_sampled_products_are_vectors_in_registers(layout):
    case = sddmm(pattern("random", 64, 64), 64, layout)
    loop = hottest(assembly(schedule_sddmm(case.op, TARGET).func, TARGET), "vfmadd")
    added = [line for line in loop.split("\n") if re.search(r"\tvfmadd\w+", line)]
    assert added and all("vfmadd" in line and "ps\t" in line and "%zmm" in line for line in added)
    assert not spills(loop)


def test_the_softmax_is_vectors_and_calls_nothing():
    text = assembly(schedule_softmax(Case(pattern("random", 64, 64), BLOCKS).op, TARGET).func, TARGET)
    loop = hottest(text, "vfmadd")
    assert "expf" not in text and "%zmm" in loop and not spills(loop)
    assert re.search(r"\tvmaxps\t.*%zmm", hottest(text, "vmaxps"))


def test_zeros_are_found_once_for_a_column_of_the_weight():
    case = linear(sparse(256, 64, 0.1), 32, layout=CSC)
    trace = Trace((Tile((16,), skip_zeros=True), Accumulate("init|update|finish", 16)))
    loop = hottest(assembly(trace.apply(case.product).func, TARGET), "vfmadd")
    jumps = re.findall(r"\tj\w+", loop)
    assert loop.count("\tvfmadd") >= 4 and "%zmm" in loop
    assert len(jumps) <= 1 and not re.search(r"\tv(u?comiss|cmp)", loop)


def test_the_price_of_attention_follows_what_the_mask_keeps():
    dense = price_dense((512, 512), 64, TARGET)
    prices = [price_attention(windows(512, block, 0), 64, TARGET)[0] for block in (128, 64, 32)]
    assert [price.cycles for price in prices] == sorted((price.cycles for price in prices), reverse=True)
    assert prices[-1].cycles < dense / 4
    assert price_attention(windows(512, 512), 64, TARGET)[0].cycles > 0.9 * dense
