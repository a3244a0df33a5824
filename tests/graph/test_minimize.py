import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.graph import minimize as module
from sparsec.graph.minimize import Factor, minimize


def cost(choice: list[int], factors: list[Factor]) -> float:
    return float(sum(f.table[tuple(choice[v] for v in f.scope)] for f in factors))


@st.composite
def problems(draw) -> tuple[list[int], list[Factor]]:
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    scopes = draw(
        st.lists(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=3, unique=True), min_size=1, max_size=9)
    )
    return sizes, [Factor(tuple(s), rng.integers(0, 9, [sizes[v] for v in s]).astype(float)) for s in scopes]


@given(problems())
def test_is_as_good_as_trying_everything(problem) -> None:
    sizes, factors = problem
    best = min(cost(list(c), factors) for c in itertools.product(*map(range, sizes)))
    assert cost(minimize(sizes, factors), factors) == best


def test_too_large_a_table_is_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TABLE_LIMIT", 8)
    apart = np.array([[0.0, 1.0], [1.0, 0.0]])
    factors = [Factor((i, j), apart) for i in range(7) for j in range(i)] + [Factor((0,), np.array([0.5, 0.0]))]
    assert cost(minimize([2] * 7, factors), factors) == 0


def test_a_long_chain_is_quick_and_exact() -> None:
    apart = np.array([[0.0, 1.0], [1.0, 0.0]])
    factors = [Factor((i, i + 1), apart) for i in range(2000)] + [Factor((0,), np.array([9.0, 0.0]))]
    assert minimize([2] * 2001, factors) == [1] * 2001
