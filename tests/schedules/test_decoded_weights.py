"""Schedules of products whose weights are integers: every family, few columns, prices, and what machines run."""

import re
from dataclasses import replace

import numpy as np
import pytest

from sparsec.ir.kernel import Buffer
from sparsec.schedules.rules.product import contenders, propose
from sparsec.targets import Target
from tests.ir.halves import stored_as
from tests.ir.product_cases import Case, check, linear, sparse
from tests.schedules.assembly import assembly, hottest
from tests.schedules.test_families import pruned

NATIVE, ZEN = Target.parse("native"), Target.parse("znver5")


def narrow(case: Case, dtype: str, group: int = 0) -> Case:
    """The weight in the range of 4 bits, as integers with scales of one for each group."""
    weight = np.clip(case.arrays["W"], -8, 7)
    exact = linear(weight, case.product.columns, taps=case.product.taps)
    found = stored_as(exact, dtype, "float32", "float32")
    if not group:
        return found
    scales = np.ones((-(-weight.shape[1] // group), len(weight)), np.float32)
    product = replace(found.product, scales=Buffer("S", "float32", scales.shape), group=group)
    return replace(found, product=product, arrays={**found.arrays, "S": scales})


def proposed(case: Case, target: Target = NATIVE):
    return propose(case.product, case.arrays["W"], target)


@pytest.mark.parametrize(("dtype", "group"), [("int4", 0), ("int8", 12)])
@pytest.mark.parametrize("structure", ["unstructured", "2:4", "patterns"])
def test_kernels_of_every_family_compute_what_numpy_does(structure, dtype, group):
    case = narrow(pruned(structure, 16, 36, 17), dtype, group)
    for members in contenders(case.product, case.arrays["W"], NATIVE).values():
        proposal = members[0]
        laid_out = replace(case, product=proposal.product)
        check(laid_out, proposal.trace)


@pytest.mark.parametrize("columns", [1, 9])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int4"])
def test_few_columns(dtype, columns):
    for rows in (10, 32):
        case = linear(np.clip(sparse(rows, 6, 1.0), -8, 7), columns, 1, "bias and relu")
        case = stored_as(case, dtype, "float32", "float32")
        proposal = proposed(case)
        check(replace(case, product=proposal.product), proposal.trace)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_bytes_are_what_counts_for_one_column(dtype):
    case = linear(sparse(4096, 4096, 1.0), 1)
    assert proposed(narrow(case, dtype), ZEN).seconds < 0.5 * proposed(case, ZEN).seconds


@pytest.mark.parametrize(("dtype", "most"), [("int8", 1.1), ("int4", 1.3)])
def test_decoding_has_a_price_for_many_columns(dtype, most):
    case = linear(sparse(256, 256, 1.0), 128)
    plain, stored = (proposed(each, ZEN).seconds for each in (case, narrow(case, dtype)))
    assert plain < stored < most * plain


@pytest.mark.parametrize("columns", [1, 64])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("name", ["znver5", "haswell", "aarch64"])
def test_integers_are_decoded_by_vectors(name, dtype, columns):
    target = Target.parse(name)
    proposal = proposed(narrow(linear(sparse(256, 256, 1.0), columns), dtype), target)
    text = assembly(proposal.trace.apply(proposal.product).func, target)
    assert not re.search(r"\t(vcvtsi2ss|scvtf\ts)", text)
    convert = {"aarch64": r"\tscvtf\tv\d+\.4s"}.get(name, r"\tvcvtdq2ps\t.*%[xyz]mm")
    assert re.search(convert, text)
    assert not re.search(r"\t(call|bl)\t", hottest(text, "fmla" if name == "aarch64" else "vfmadd"))
