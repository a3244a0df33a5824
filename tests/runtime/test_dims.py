import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.errors import ArtifactError, UnsupportedError
from sparsec.runtime.dims import bounds, evaluate, free_symbols, to_c


def test_expressions_round_down_as_c_does() -> None:
    assert evaluate("(seq + 15) / 16 * 16", {"seq": 17}) == 32
    assert evaluate("batch*seq % 7", {"batch": 3, "seq": 5}) == 1
    assert evaluate(12, {}) == 12


def test_c_keeps_the_grouping() -> None:
    assert to_c("(a + 1) * b", {"a": "s[0]", "b": "s[1]"}) == "((s[0] + 1) * s[1])"
    assert to_c(5, {}) == "5"


@given(a=st.integers(0, 1000), b=st.integers(1, 1000))
def test_python_reads_the_c_form_to_the_same_value(a: int, b: int) -> None:
    text = "(a + b * 3) / b + a % b"
    c = to_c(text, {"a": "a", "b": "b"})
    assert evaluate(c, {"a": a, "b": b}) == (a + b * 3) // b + a % b


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n", (1, 8)),
        ("8 - n", (0, 7)),
        ("n % 4", (0, 3)),
        ("(n - 4) * m", (-15, 20)),
        ("(n + 15) / 16 * 16", (16, 16)),
        ("16 / n", (2, 16)),
        (5, (5, 5)),
    ],
)
def test_bounds(text: str, expected: tuple[int, int]) -> None:
    assert bounds(text, {"n": (1, 8), "m": (2, 5)}) == expected


LEAVES = st.sampled_from(["n", "m"]) | st.integers(0, 9).map(str)
EXPRESSIONS = st.recursive(
    LEAVES, lambda inner: st.tuples(inner, st.sampled_from("+-*/%"), inner).map(" ".join).map("({})".format)
)


@given(
    text=EXPRESSIONS,
    n=st.tuples(st.integers(1, 6), st.integers(0, 6)),
    m=st.tuples(st.integers(1, 6), st.integers(0, 6)),
)
def test_no_value_is_out_of_bounds(text: str, n: tuple[int, int], m: tuple[int, int]) -> None:
    ranges = {"n": (n[0], sum(n)), "m": (m[0], sum(m))}
    try:
        low, high = bounds(text, ranges)
    except UnsupportedError:
        return
    for a in range(n[0], sum(n) + 1):
        for b in range(m[0], sum(m) + 1):
            assert low <= evaluate(text, {"n": a, "m": b}) <= high


@pytest.mark.parametrize("text", ["8 / (n - 1)", "m % (n - 3)"])
def test_a_divisor_that_may_be_zero_has_no_bound(text: str) -> None:
    with pytest.raises(UnsupportedError, match="divides by what may be"):
        bounds(text, {"n": (1, 8), "m": (2, 5)})


def test_free_symbols() -> None:
    assert free_symbols("batch * (seq + 1)") == {"batch", "seq"}
    assert free_symbols(3) == set()


@pytest.mark.parametrize("text", ["seq +", "max(a, b)", "a ** 2", "a // 2", "1.5", "", "a; b"])
def test_other_syntax_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="is not an expression"):
        evaluate(text, {"a": 1, "b": 2, "seq": 3})
