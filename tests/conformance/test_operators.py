"""The operators that `docs/operators.md` claims are those that pass: no more and no fewer."""

from pathlib import Path

import pytest

from tests.conformance.batch import batches, check
from tests.conformance.cases import Case, all_cases
from tests.conformance.claims import Claims
from tests.conformance.table import PAGE, render

CLAIMS = Claims.read()


def _name(cases: list[Case]) -> str:
    return cases[0].name.removeprefix("test_")


@pytest.mark.parametrize("cases", list(batches(CLAIMS.must_pass())), ids=_name)
def test_cases_of_claimed_operators_pass(cases: list[Case], tmp_path: Path) -> None:
    assert check(cases, tmp_path) == {}


@pytest.mark.parametrize("cases", list(batches(CLAIMS.must_fail())), ids=_name)
def test_limits_are_real(cases: list[Case], tmp_path: Path) -> None:
    """A case that passes by now is to be claimed: run ``python -m tests.conformance.table``."""
    assert sorted({case.name for case in cases} - check(cases, tmp_path).keys()) == []


@pytest.mark.skipif(not CLAIMS.is_current, reason=f"the claims are those of onnx {CLAIMS.onnx}")
def test_every_operator_with_cases_is_decided() -> None:
    operators = {case.operator for case in all_cases()[0]} - {None}
    assert CLAIMS.claimed.keys() | CLAIMS.unclaimed.keys() == operators


def test_document_is_generated_from_the_claims() -> None:
    """Run ``python -m tests.conformance.table --page`` after a change by hand."""
    assert PAGE.read_text() == render(CLAIMS)
