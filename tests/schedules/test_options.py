"""Every family of layouts is an option for every weight, with what it takes or why it cannot hold it."""

import numpy as np

from sparsec.ir.lower import MIN_INDEX_BITS
from sparsec.ir.notation import parse_storage
from sparsec.schedules.rules.options import options
from sparsec.schedules.rules.product import propose
from sparsec.targets import Target
from tests.ir.product_cases import linear, sparse

TARGET = Target.parse("znver5")


def test_the_chosen_option_is_what_is_proposed():
    for density in (0.05, 1.0):
        case = linear(sparse(128, 96, density), 128)
        (chosen,) = [option for option in options(case.product, case.arrays["W"], TARGET) if option.chosen]
        proposal = propose(case.product, case.arrays["W"], TARGET)
        assert (chosen.layout, chosen.seconds) == (str(proposal.product.layout), proposal.seconds)


def test_the_quickest_comes_first():
    case = linear(sparse(128, 96, 0.2), 128)
    found = options(case.product, case.arrays["W"], TARGET)
    seconds = [option.seconds for option in found if not option.refusal]
    assert seconds == sorted(seconds)
    assert len({option.name for option in found}) == len(found)


def test_bytes_are_those_of_the_packed_weight():
    case = linear(sparse(96, 64, 0.1), 64)
    able = [o for o in options(case.product, case.arrays["W"], TARGET) if o.refusal is None]
    assert len(able) > 5
    for option in able:
        packed = parse_storage(option.layout).pack(case.arrays["W"], MIN_INDEX_BITS)
        assert option.nbytes == packed.nbytes, option.name
        np.testing.assert_array_equal(packed.unpack(), case.arrays["W"])


def test_a_family_that_cannot_hold_the_weight_says_why():
    case = linear(sparse(96, 64, 0.3), 64)
    refused = {o.name: o for o in options(case.product, case.arrays["W"], TARGET) if o.refusal}
    assert "structured[2, 4] holds 2 in each fiber, and at i" in refused["N:M"].refusal
    assert refused["FKW by channel"].refusal == "there are no kernels of several taps"
    assert (refused["N:M"].layout, refused["N:M"].nbytes, refused["N:M"].chosen) == ("", 0, False)
