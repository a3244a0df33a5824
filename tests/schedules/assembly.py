"""The machine code of scheduled functions, as text, and its innermost loops."""

import re

import tvm
from tvm import tirx

from sparsec.codegen.lower import lower
from sparsec.schedules.fast_math import expand_math
from sparsec.targets import Target

_LABEL = re.compile(r"(\.LBB\d+_\d+):")
_JUMP = re.compile(r"\s+(?:j\w+|b(?:\.\w+)?|cbn?z|tbn?z)\s.*?(\.LBB\d+_\d+)$")


def assembly(func: tirx.PrimFunc, target: Target) -> str:
    """Compile for any target, as for an artifact."""
    name = str(func.attrs["global_symbol"])
    _, module = lower(tvm.IRModule({name: expand_math(func)}), target)
    return str(tvm.get_global_func("target.build.llvm")(module, target.tvm()).inspect_source("asm"))


def inner_loops(text: str) -> list[str]:
    """The bodies of all loops that have no loop in them: from a label to a jump back to it, no other label between."""
    loops: list[str] = []
    label, body = "", []
    for line in text.split("\n"):
        found = _LABEL.match(line)
        if found:
            label, body = found[1], []
            continue
        jump = _JUMP.match(line)
        if jump and jump[1] == label:
            loops.append("\n".join(body))
        elif line.startswith("\t") and not line.startswith("\t."):
            body.append(line)
    return loops


def hottest(text: str, instruction: str) -> str:
    """The inner loop with the most instructions whose name starts so."""
    return max(inner_loops(text), key=lambda loop: loop.count(f"\t{instruction}"), default="")


def spills(loop: str) -> list[str]:
    """The instructions that move vectors to or from the stack."""
    return [line for line in loop.split("\n") if re.search(r"[xyz]mm.*%rsp[,)]|%rsp[,)].*[xyz]mm|\t[qv]\d.*\[sp", line)]
