import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.codegen.dims import evaluate, free_symbols, to_c
from sparsec.errors import ArtifactError


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


def test_free_symbols() -> None:
    assert free_symbols("batch * (seq + 1)") == {"batch", "seq"}
    assert free_symbols(3) == set()


@pytest.mark.parametrize("text", ["seq +", "max(a, b)", "a ** 2", "a // 2", "1.5", "", "a; b"])
def test_other_syntax_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="is not an expression"):
        evaluate(text, {"a": 1, "b": 2, "seq": 3})
