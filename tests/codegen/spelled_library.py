"""Many products whose entries are spelled out in one library, and what they compute between guards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from tvm.ir import GlobalVar, IRModule

from sparsec.codegen.artifact import Artifact, build
from sparsec.codegen.plan import Plan, Step, Storage, Tensor
from sparsec.ir.fragments import CODE
from sparsec.runtime.session import Session
from sparsec.schedules.fast_math import expand_math
from sparsec.schedules.trace import Trace
from tests.ir.product_cases import NATIVE, Case, _guarded, _untouched

Cases = Mapping[str, tuple[Case, Trace]]
UNTOUCHED = np.float32(77)  # what Y holds before


class SpelledLibrary:
    """A library of products, whose answers are read by name.

    Every case must have code: a trace that loses it on the way is an error.
    """

    def __init__(self, cases: Cases) -> None:
        self.cases = cases
        self.plan = Plan([], [], [], [], [], 0, IRModule({}), NATIVE)
        for number, (name, (case, trace)) in enumerate(cases.items()):
            self._add(f"product_{number}", name, case, trace)
        self.artifact: Artifact = build(self.plan)

    def run(self, threads: int = 1) -> dict[str, np.ndarray]:
        """Run all products on arrays that lie between guards, and return their results by name."""
        session: Session = self.artifact.load(threads)
        given = [_guarded(case.arrays[info.name.rpartition(".")[2]]) for case, info in self._inputs(session)]
        empty = [np.full(case.expected.shape, UNTOUCHED, case.expected.dtype) for case, _ in self.cases.values()]
        wanted = [_guarded(array) for array in empty]
        session(*(view for _, view in given), out=[view for _, view in wanted])
        for name, (memory, view) in zip(self.cases, wanted, strict=True):
            assert _untouched(memory, view), f"{name} wrote outside of Y"
        return {name: view for name, (_, view) in zip(self.cases, wanted, strict=True)}

    def _inputs(self, session: Session) -> list[tuple[Case, object]]:
        return [(self.cases[info.name.rpartition(".")[0]][0], info) for info in session.inputs]

    def _add(self, kernel: str, name: str, case: Case, trace: Trace) -> None:
        plan, held = self.plan, case.operands
        scheduled = trace.apply(replace(case.product, name=kernel), NATIVE.emits)
        assert scheduled.lowered.codes, f"nothing of {name} is spelled out"
        packed = {part: scheduled.pack(part, held[part]) for part in scheduled.lowered.codes}
        args = []
        for buffer, array in scheduled.lowered.parameters:
            if array:
                stored, kind = (plan.code, "code") if array == CODE else (plan.constants, "constant")
                data = packed[buffer][array]
                stored.append(data)
                args.append(self._tensor(f"{name}.{buffer}.{array}", data, Storage(kind, len(stored) - 1)))  # type: ignore[arg-type]
            elif buffer == "Y":
                plan.outputs.append(self._tensor(f"{name}.Y", case.expected, Storage("output", len(plan.outputs))))
                args.append(plan.outputs[-1])
            else:
                storage = Storage("input", len(plan.inputs))
                plan.inputs.append(self._tensor(f"{name}.{buffer}", case.arrays[buffer], storage))
                args.append(plan.inputs[-1])
        plan.module.update_func(GlobalVar(kernel), expand_math(scheduled.func))
        plan.steps.append(Step(kernel, tuple(args), name))

    def _tensor(self, name: str, data: np.ndarray, storage: Storage) -> int:
        self.plan.tensors.append(Tensor(name, data.shape, str(data.dtype), storage))
        return len(self.plan.tensors) - 1
