"""Rates of a core: loops of instructions alone, for every processor that kernels are made for."""

from pathlib import Path

import pytest

import sparsec.schedules.intrinsics  # noqa: F401  declares instructions
from sparsec.bench.peak import LOOPS, compile_loops, find_peak
from sparsec.ir.instruction import INSTRUCTIONS
from sparsec.targets import Target

NATIVE = Target.parse("native")
HERE = [loop for loop in LOOPS[NATIVE.arch] if not loop.feature or NATIVE.has(loop.feature)]


@pytest.mark.parametrize("arch", LOOPS)
def test_loops_compile_for_every_architecture(arch: str, tmp_path: Path) -> None:
    compile_loops(arch, tmp_path / "peak.so")
    library = (tmp_path / "peak.so").read_bytes()
    for loop in LOOPS[arch]:
        assert b"\0" + loop.function.encode() + b"\0" in library


def test_loops_compile_where_there_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compile_loops(NATIVE.arch, tmp_path / "peak.so")
    assert (tmp_path / "peak.so").exists()


@pytest.mark.parametrize("loop", [loop for loops in LOOPS.values() for loop in loops], ids=lambda loop: loop.function)
def test_loops_count_what_instructions_add_up(loop) -> None:
    family, _, width = loop.instruction.rpartition(".")
    if family == "fma":
        assert loop.products == int(width)
        return
    instruction = INSTRUCTIONS[loop.instruction]
    products = 1
    for extent in instruction.extents:
        products *= extent
    in_bits = family.startswith("x86.vpopcntd")
    assert loop.products == products * (32 if in_bits else 1)
    assert not loop.feature or any(loop.feature in feature.split("|") for feature in instruction.features)


@pytest.mark.parametrize("loop", HERE, ids=lambda loop: loop.function)
def test_rates_are_those_of_a_vector_unit(loop) -> None:
    """Up to four instructions in a cycle, of at most 6 GHz, or of tiles one in 16; a loaded machine may be slower."""
    measure, of_tiles = find_peak(loop.instruction), loop.feature.startswith("amx")
    assert measure is not None
    most = 2 * loop.products * (6e9 / 16 if of_tiles else 24e9)
    assert most / (100 if of_tiles else 480) < measure() < most


@pytest.mark.skipif(not NATIVE.has("avx2"), reason="needs AVX2")
def test_wider_vectors_multiply_more() -> None:
    narrow, wide = (max(measure() for _ in range(5)) for measure in map(find_peak, ("fma.4", "fma.8")))  # type: ignore[misc]
    assert wide > 1.5 * narrow


def test_there_is_no_rate_of_what_the_machine_lacks() -> None:
    assert find_peak("x86.tdpbf16ps.m16n16k32") is None
    assert find_peak("arm.smmla.128" if NATIVE.arch == "x86_64" else "fma.16") is None
    assert find_peak("") is None
