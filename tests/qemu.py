"""Run artifacts for AArch64 on any machine, under QEMU's emulation of its processors.

QEMU runs the program; the emulated system's loader and C library are those of Debian's `libc6-arm64-cross`.
"""

import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np

from sparsec.codegen.artifact import Artifact
from sparsec.targets import Target
from tests.runtime.c_program import run_program, zig_compiler

SYSROOT = Path("/usr/aarch64-linux-gnu")


@cache
def missing() -> str:
    """Why AArch64 cannot be emulated on this machine; empty if it can."""
    if platform.system() != "Linux":
        return "QEMU's user mode runs on Linux alone"
    if not shutil.which("qemu-aarch64"):
        return "there is no qemu-aarch64; on Debian and Ubuntu the package is qemu-user"
    if not (SYSROOT / "lib/ld-linux-aarch64.so.1").exists():
        return f"there is no C library for AArch64 in {SYSROOT}; on Debian and Ubuntu the package is libc6-arm64-cross"
    return ""


@cache
def processors() -> frozenset[str]:
    """The processors that this QEMU emulates."""
    command = ["qemu-aarch64", "-cpu", "help"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # it exits with 1
    return frozenset(re.findall(r"^\s+(\S+)$", listed, re.MULTILINE))


def launcher(processor: str = "max") -> list[str]:
    """What starts a program on an emulated processor, or on one that has everything if QEMU does not know it."""
    return ["qemu-aarch64", "-L", str(SYSROOT), "-cpu", processor if processor in processors() else "max"]


def run(artifact: Artifact, *inputs: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of a model that was compiled for an AArch64 processor, run as on that processor."""
    facts = artifact.manifest["target"]
    compiler = zig_compiler("-target", Target.parse("aarch64").zig_triple())
    return run_program(artifact, inputs, compiler, launcher(facts["mcpu"]))
