"""The race of layers of few bits: what its figures mean."""

from benchmarks.low_bit import Heat, heat_table


def test_heats_compare_within_rounds():
    heat = Heat("linear", "binary × uint2", times=[1.0, 2.0, 1.0], int8=[2.0, 4.0, 3.0], limits=[0.5, 1.0, 0.9])
    assert heat.speedup == 2
    assert heat.share == 0.5
    assert heat_table([heat]).row_count == 1
