"""Instructions that a trace may name, declared by importing this: a file for each kind of processor."""

from sparsec.ir.instruction import FAMILIES, INSTRUCTIONS, find_instruction
from sparsec.schedules.intrinsics import arm, cuda, fma, x86, x86_shuffles

__all__ = ["FAMILIES", "INSTRUCTIONS", "arm", "cuda", "find_instruction", "fma", "x86", "x86_shuffles"]
