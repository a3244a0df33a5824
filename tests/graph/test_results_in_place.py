"""Where results lie: in the place of an operand that its kernel has read by then, if every element is written once."""

import pytest

from tests.test_compiler import RNG, Builder, agree

ROWS, COLUMNS = 48, 64
SUMS_IN_REGISTERS = "(i, k) -> (i : dense, k : compressed)"
SUMS_IN_THE_RESULT = "(i, k) -> (k floordiv 16 : dense, i : bucketed, k mod 16 : compressed)"


def residuals(count: int, last_reads: bool = False):
    """A chain of layers of the input, each of which is added to the sum of those before it."""
    b = Builder()
    total = b.Relu(b.linear("x", 32, ROWS))
    for _ in range(count):
        total, before = b.Relu(b.Add(b.linear("x", 32, ROWS), total)), total
    b.Add(b.linear("x", 32, ROWS), b.Sub(total, before) if last_reads else total, name="y")
    return b.model({"x": [COLUMNS, 32]}, {"y": [COLUMNS, ROWS]})


@pytest.mark.parametrize("layout, places", [(SUMS_IN_REGISTERS, 1), (SUMS_IN_THE_RESULT, 2)])
def test_a_sum_takes_the_place_of_the_residual_unless_its_parts_rest_there(layout, places):
    feed = {"x": RNG.standard_normal((COLUMNS, 32)).astype("float32")}
    sizes = [agree(residuals(count), feed, layouts=layout).manifest["arena_bytes"] for count in (1, 4)]
    assert sizes[0] == sizes[1]
    assert sizes[0] // (4 * ROWS * COLUMNS) == places


def test_a_residual_that_is_read_later_stays():
    feed = {"x": RNG.standard_normal((COLUMNS, 32)).astype("float32")}
    agree(residuals(3, last_reads=True), feed, layouts=SUMS_IN_REGISTERS)


def test_what_a_product_multiplies_stays_where_it_is_a_residual_too():
    b = Builder()
    x = b.Relu(b.linear("x", 32, ROWS))
    y = b.Relu(b.Add(b.linear(x, ROWS, ROWS), x))
    b.Identity(b.linear(y, ROWS, ROWS), name="y")
    feed = {"x": RNG.standard_normal((COLUMNS, 32)).astype("float32")}
    agree(b.model({"x": [COLUMNS, 32]}, {"y": [COLUMNS, ROWS]}), feed, layouts=SUMS_IN_REGISTERS)


@pytest.mark.parametrize("columns", [1, 5, 16, 37, 50])
def test_ragged_columns_are_written_once(columns):
    b = Builder()
    total = b.Relu(b.linear("x", 32, ROWS))
    total = b.Relu(b.Add(b.linear("x", 32, ROWS), total))
    b.Add(b.linear("x", 32, ROWS), total, name="y")
    feed = {"x": RNG.standard_normal((columns, 32)).astype("float32")}
    model = b.model({"x": ["n", 32]}, {"y": ["n", ROWS]})
    artifact = agree(model, feed, layouts=SUMS_IN_REGISTERS, shapes={"n": (1, 50)})
    assert artifact.manifest["arena_bytes"] < 4 * 50 * (32 + 2 * ROWS)
