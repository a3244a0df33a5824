"""Run single instructions on this machine."""

import numpy as np
import tvm

from sparsec.ir.instruction import Instruction
from sparsec.ir.lower import lower
from sparsec.schedules.intrinsics import INSTRUCTIONS
from sparsec.targets import Target
from tests.ir.product_cases import aligned, tensor
from tests.schedules.single_instructions import kernel_of

HOST = Target.parse("native")


def carried_out(instruction: Instruction, operands: list[np.ndarray], emitted: bool = True) -> np.ndarray:
    """Return what the machine makes of an instruction, or of its loops."""
    kernel = kernel_of(instruction)
    (output,) = kernel.outputs
    func = lower(kernel, None if emitted else ()).func.with_attr("global_symbol", "main")
    result = aligned(np.zeros([int(dim) for dim in output.shape], output.dtype))
    compiled = tvm.compile(tvm.IRModule({"main": func}), target=HOST.tvm())
    compiled["main"](*(tensor(aligned(operand)) for operand in operands), tensor(result))
    return result


def declared(prefix: str) -> list[str]:
    """Return the names of the instructions of a processor."""
    return sorted(name for name in INSTRUCTIONS if name.startswith(prefix))
