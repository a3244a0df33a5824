"""Instructions that a trace may name, declared by importing this: a file for each kind of processor."""

from sparsec.ir.instruction import INSTRUCTIONS
from sparsec.schedules.intrinsics import arm, cuda, fma, x86, x86_fragments, x86_shuffles

__all__ = ["INSTRUCTIONS", "arm", "cuda", "fma", "x86", "x86_fragments", "x86_shuffles"]
