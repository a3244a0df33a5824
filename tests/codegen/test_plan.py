from dataclasses import replace

import numpy as np
import pytest

from sparsec.codegen.plan import Plan, Step, Storage, Symbol, Tensor, max_elements
from sparsec.errors import ArtifactError
from tests.codegen.small_plans import affine_plan, arena, sliced_plan, symbolic_plan

BIAS = np.arange(16, dtype=np.float32)


def with_tensor(index: int, **changes) -> Plan:
    plan = affine_plan(BIAS)
    plan.tensors[index] = replace(plan.tensors[index], **changes)
    return plan


def test_consistent_plans_pass() -> None:
    affine_plan(BIAS).validate()
    symbolic_plan().validate()


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (with_tensor(3, storage=Storage("arena", offset=8)), "'a' lies at byte 8, which is not a multiple of 64"),
        (with_tensor(4, storage=Storage("arena", offset=320)), "'b' ends at byte 576 of 512 in the arena"),
        (with_tensor(2, storage=Storage("constant", 1)), "'bias' names constant 1 of 1"),
        (with_tensor(2, shape=(17,)), "'bias' needs 68 bytes of constant 0, which has 64"),
        (affine_plan(BIAS.astype(np.float64)), "'bias' is float32, but constant 0 is float64"),
        (with_tensor(3, shape=("n", 16)), "'a' has the unknown symbol 'n' in its shape"),
        (with_tensor(3, shape=("4 +", 16)), "tensor 'a': dimension '4 \\+' is not an expression"),
        (with_tensor(0, storage=Storage("input", 1)), "input 0 \\(x\\) is stored in"),
        (with_tensor(3, storage=Storage("output", 0), shape=(5, 16)), "'a' is larger than the output 'y'"),
        (affine_plan(BIAS, inputs=[9]), "input 0 names tensor 9 of 6"),
        (affine_plan(BIAS, steps=[Step("add", (0, 7), "bad")]), "step 'bad' names tensor 7 of 6"),
        (affine_plan(BIAS, steps=[Step("a.b", (0, 1), "bad")]), "kernel 'a.b' of step 'bad' is not a C identifier"),
        (affine_plan(BIAS, steps=[Step("add", (0, 2, 3), "s", "2*n")]), "step 's' has the unknown symbol 'n'"),
        (affine_plan(BIAS, symbols=[Symbol("n", 1, 2)]), "symbol 'n' is not a dimension of any input"),
        (affine_plan(BIAS, slices=0), "it has 0 slices"),
        (replace(symbolic_plan(), slices=2), "it has 2 slices and the symbol 'batch'"),
        (affine_plan(BIAS, symbols=[Symbol("n", 3, 2)]), "symbol 'n' has bounds 3 to 2"),
    ],
)
def test_inconsistent_plans_are_refused(plan: Plan, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        plan.validate()


def test_ports_hold_all_slices() -> None:
    plan = sliced_plan(5)
    assert [plan.port(index).shape for index in (*plan.inputs, *plan.outputs)] == [(20, 3)] * 3
    plan.tensors[2] = replace(plan.tensors[2], shape=())
    with pytest.raises(ArtifactError, match="'z' has no axis for 5 slices"):
        plan.validate()


def test_two_inputs_of_one_name_are_refused() -> None:
    plan = symbolic_plan()
    plan.tensors[1] = replace(plan.tensors[1], name="x")
    with pytest.raises(ArtifactError, match="two inputs have the name 'x'"):
        plan.validate()


def test_nbytes_follows_the_symbols() -> None:
    assert Tensor("t", ("batch*seq", 3), "int64", Storage("arena")).nbytes({"batch": 2, "seq": 5}) == 240
    assert arena("t", 0, ()).nbytes({}) == 4


def test_a_size_may_be_largest_between_the_bounds_of_its_symbols() -> None:
    assert max_elements(("n", "8 - n"), {"n": (1, 8)}) >= 4 * 4
    assert max_elements(("n % 4",), {"n": (1, 8)}) == 3
    assert max_elements(("n - 9", 2), {"n": (1, 8)}) == 0


def test_an_arena_must_hold_what_is_largest_between_the_bounds() -> None:
    plan = symbolic_plan()
    plan.symbols[1] = Symbol("seq", 2, 64)
    plan.tensors[5] = arena("t", 0, ("seq", "64 - seq"))
    with pytest.raises(ArtifactError, match=r"'t' ends at byte \d+ of 1024 in the arena"):
        plan.validate()
