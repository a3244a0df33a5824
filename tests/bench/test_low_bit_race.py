"""The race of layers of few bits: what its figures mean, and the rate that they are held against."""

import pytest

from benchmarks.low_bit import Heat, heat_table
from benchmarks.peak import bit_peak, byte_peak
from sparsec.targets import Target


def test_heats_compare_within_rounds():
    heat = Heat("linear", "binary × uint2", times=[1.0, 2.0, 1.0], int8=[2.0, 4.0, 3.0], limits=[0.5, 1.0, 0.9])
    assert heat.speedup == 2
    assert heat.share == 0.5
    assert heat_table([heat]).row_count == 1


@pytest.mark.skipif(
    not {"avx512vnni", "avx512vpopcntdq"} <= Target.parse("native").isa,
    reason="the loops need AVX512-VNNI and AVX512-VPOPCNTDQ",
)
def test_products_of_bits_are_cheaper_than_those_of_bytes(tmp_path):
    bits, size = (max(rate() for _ in range(5)) for rate in (bit_peak(tmp_path), byte_peak(tmp_path)))
    assert 2 * size < bits < 2e13
