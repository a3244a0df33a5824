import json
import subprocess
import sys
from dataclasses import replace

import pytest

from sparsec.cli.options import runs_here
from sparsec.errors import TargetError
from sparsec.targets import GPUS, TARGETS, Target
from sparsec.targets.features import PROBES


@pytest.mark.parametrize(
    ("name", "vector_bits", "vector_registers"),
    [
        ("x86-64-v2", 128, 16),
        ("x86-64-v3", 256, 16),
        ("haswell", 256, 16),
        ("x86-64-v4", 512, 32),
        ("skylake-avx512", 512, 32),
        ("znver4", 512, 32),
        ("znver5", 512, 32),
        ("aarch64", 128, 32),
        ("neoverse-v1", 128, 32),
    ],
)
def test_vectors(name: str, vector_bits: int, vector_registers: int) -> None:
    target = Target.parse(name)
    assert (target.vector_bits, target.vector_registers) == (vector_bits, vector_registers)
    assert target.lanes("float32") * 32 == target.lanes("int8") * 8 == vector_bits


@pytest.mark.parametrize(
    ("name", "lanes"), [("znver4", 8), ("znver5", 16), ("skylake-avx512", 16), ("znver3", 8), ("neoverse-n1", 4)]
)
def test_units_may_be_narrower_than_vectors(name: str, lanes: int) -> None:
    assert Target.parse(name).unit_lanes("float32") == lanes


def test_units_are_no_wider_than_the_vectors_that_are_left() -> None:
    assert Target.parse("znver4,-avx512f,-avx2").unit_lanes("float32") == 4


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_every_target_is_llvms_too(target: Target) -> None:
    """LLVM knows the processor and agrees that it has every extension that an artifact checks."""
    from tvm.target import codegen

    assert codegen.llvm_is_valid_cpu(target.mcpu, target.triple)
    llvm = set(map(str, codegen.llvm_get_cpu_features(target.tvm())))
    assert target.isa <= llvm
    assert llvm & PROBES[target.arch].keys() <= target.isa, "an artifact would not check all that LLVM may use"
    assert target.l1_bytes <= target.l2_bytes


def test_triples_name_the_plainest_processor() -> None:
    assert Target.parse("aarch64-linux-gnu").mcpu == "generic"
    assert Target.parse("x86_64-linux-gnu").mcpu == "x86-64-v2"
    assert Target.parse("neoverse-n1").zig_triple() == "aarch64-linux-gnu.2.28"


def test_extensions_can_be_added_and_taken_away() -> None:
    target = Target.parse("x86-64-v3, +avxvnni, -f16c")
    assert target.has("avxvnni") and not target.has("f16c")
    assert target.features == ("+avxvnni", "-f16c")
    assert Target.parse(target.name) == target


def test_extensions_bring_and_take_what_builds_on_them() -> None:
    with_vnni = Target.parse("x86-64-v3,+avx512vnni")
    assert with_vnni.has("avx512f") and with_vnni.vector_bits == 512
    without = Target.parse("znver5,-avx512f")
    assert without.vector_bits == 256 and without.has("fma")
    assert not any(name.startswith("avx512") for name in without.isa)


@pytest.mark.parametrize("change", ["+avx512vnni", "-avx512f", "-avx2", "-avx", "+amx-int8", "-sse4.2"])
@pytest.mark.parametrize("name", ["x86-64-v3", "znver5"])
def test_changed_extensions_are_llvms_too(name: str, change: str) -> None:
    from tvm.target import codegen

    target = Target.parse(f"{name},{change}")
    llvm = set(map(str, codegen.llvm_get_cpu_features(target.tvm())))
    assert llvm & PROBES["x86_64"].keys() <= target.isa
    assert not {name for name in target.isa - llvm if name.startswith("avx")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pentium", "unknown target 'pentium'; the known ones are native, x86-64-v2"),
        ("", "unknown target ''"),
        ("znver4,+neon", "unknown x86_64 extension 'neon'; the known ones are adx"),
        ("neoverse-n1,+avx2", "unknown aarch64 extension 'avx2'"),
        ("znver4,avx2", r"written \+avxvnni or -avxvnni after the target, not 'avx2'"),
        ("znver4,", r"not ''"),
        ("sm_90", "generates no code for sm_90 yet; emulate:sm_90 runs its schedules here"),
        ("emulate:sm_10", "unknown target 'sm_10'; the known ones are .*emulate:sm_80"),
        ("emulate:armv8.6,+avx2", "unknown aarch64 extension 'avx2'"),
    ],
)
def test_unknown_names_are_told(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Target.parse(text)


def test_facts_are_json() -> None:
    facts = json.loads(json.dumps(Target.parse("znver5").as_dict()))
    assert facts["vector_bits"] == 512 and "avx512vnni" in facts["isa"]


@pytest.mark.parametrize("name", ["armv8.6", "sapphirerapids", "x86-64-v3,+avxvnni", *GPUS])
def test_an_emulated_target_has_the_facts_of_one_and_the_code_of_another(name: str) -> None:
    native, target = Target.parse("native"), Target.parse(f"emulate:{name}")
    real = GPUS.get(name) or Target.parse(name)
    assert target == replace(real, name=f"emulate:{name}", emulated_on=native)
    assert (target.machine, target.emits) == (native, frozenset())
    assert (real.machine, real.emits) == (real, real.isa)
    facts = target.as_dict()
    assert (facts["vector_bits"], facts["isa"]) == (real.vector_bits, sorted(real.isa))
    assert facts["emulated_on"] == native.as_dict() and runs_here(facts)
    assert runs_here(real.as_dict()) == (real.triple == native.triple and real.isa <= native.isa)


def test_importing_targets_does_not_import_tvm() -> None:
    program = "import sys, sparsec.targets as t; t.Target.parse('native'); print('tvm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
