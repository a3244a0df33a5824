"""The sentence that says why a layout was chosen."""

from sparsec.graph.why import why
from sparsec.schedules.rules.options import Option


def option(
    name: str, nbytes: int, seconds: float, chosen: bool = False, refusal: str | None = None, weighed: bool = True
) -> Option:
    return Option(name, name, "", refusal, nbytes, seconds, chosen, weighed)


DENSE = option("dense", 100, 10.0)


def test_the_smallest_layout_is_named_where_it_is_clearly_smaller() -> None:
    options = [option("8x1 blocks", 40, 2.0, chosen=True), option("CSR", 30, 3.0), option("2:4", 50, 4.0), DENSE]
    assert why(options, 10.0) == (
        "8x1 blocks: 5.0× as fast as dense by the model; CSR would store 75% of the bytes, but take 1.50× as long"
    )


def test_the_next_layout_is_named_otherwise() -> None:
    options = [option("CSR", 30, 2.0, chosen=True), option("8x1 blocks", 40, 2.002), DENSE]
    assert why(options, 10.0) == "CSR: 5.0× as fast as dense by the model; the next, 8x1 blocks, would take as long"


def test_what_is_priced_lower_but_was_no_candidate_is_named() -> None:
    options = [
        option("bitmap", 20, 1.9, weighed=False),
        option("CSR", 30, 2.0, chosen=True),
        option("ELL", 40, 3.0),
        DENSE,
    ]
    passed = "bitmap is priced lower, but is no candidate for such zeros"
    assert why(options, 10.0) == (
        f"CSR: 5.0× as fast as dense by the model; the next, ELL, would take 1.50× as long; {passed}"
    )
    given = [option("2:4", 20, 1.0), *options]
    assert "no candidate" not in why(given, 10.0)


def test_dense_says_what_it_was_compared_with() -> None:
    options = [option("dense", 100, 1.0, chosen=True), option("CSR", 95, 2.5)]
    assert why(options, 1.0) == "dense: the next, CSR, would take 2.5× as long"


def test_a_layout_that_is_as_fast_as_dense_says_so() -> None:
    assert why([option("CSR", 30, 2.0, chosen=True)], 2.0) == "CSR: as fast as dense by the model"


def test_what_cannot_hold_the_weight_does_not_count() -> None:
    options = [option("dense", 100, 1.0, chosen=True), option("2:4", 0, 0.0, refusal="row 3 has 3 entries")]
    assert why(options, 1.0) == "dense: nothing else can hold the weight"


def test_there_is_no_reason_without_options() -> None:
    assert why([], 1.0) == ""
