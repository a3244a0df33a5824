from pathlib import Path

import pytest

from sparsec.errors import TargetError
from sparsec.targets import TARGETS, Target, native

SIBLINGS = "topology/thread_siblings_list"


def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, **fields: str) -> None:
    """Pretend to be another machine, without sysfs."""
    text = "\n".join(f"{name.replace('_', ' ') if name != 'vendor_id' else name}\t: {v}" for name, v in fields.items())
    (tmp_path / "cpuinfo").write_text(text + "\n\nprocessor: 1\nflags: none\n")
    monkeypatch.setattr(native, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(native, "_CPUS", tmp_path / "cpu")
    monkeypatch.setattr(native.platform, "machine", lambda: machine)
    monkeypatch.setattr(native, "_keeps_tiles", lambda: True)


LINUX_V3 = "avx2 avx bmi1 bmi2 f16c fma abm movbe cx16 popcnt pni sse4_1 sse4_2 ssse3"
LINUX_V4 = LINUX_V3 + " avx512f avx512bw avx512cd avx512dq avx512vl"
LINUX_SKYLAKE_X = LINUX_V4 + " adx aes pclmulqdq"
LINUX_ICELAKE = (
    LINUX_SKYLAKE_X + " avx512_bitalg avx512ifma avx512vbmi avx512_vbmi2 avx512_vnni avx512_vpopcntdq gfni sha_ni vaes"
    " vpclmulqdq"
)
LINUX_SAPPHIRE = LINUX_ICELAKE + " amx_bf16 amx_int8 amx_tile avx512_bf16 avx512_fp16 avx_vnni"
LINUX_ZEN4 = LINUX_ICELAKE + " avx512_bf16 sse4a"


def test_this_machine_is_what_llvm_says() -> None:
    from tvm.target import codegen

    target = Target.parse("native")
    assert target.cores >= 1 and target.l1_bytes >= 16 * 1024
    said = codegen.llvm_get_system_cpu()  # by the number alone, which a virtual machine may have from another processor
    if said in TARGETS:
        assert target.mcpu == said


@pytest.mark.parametrize(
    ("vendor", "family", "model", "flags", "expected"),
    [
        ("GenuineIntel", 6, 0x55, LINUX_SKYLAKE_X, "skylake-avx512"),
        ("GenuineIntel", 6, 0x55, LINUX_SKYLAKE_X + " avx512_vnni", "cascadelake"),
        ("GenuineIntel", 6, 0x3F, LINUX_V3 + " pclmulqdq", "haswell"),
        ("AuthenticAMD", 25, 0x21, LINUX_V3 + " adx aes pclmulqdq sha_ni sse4a vaes vpclmulqdq", "znver3"),
        ("AuthenticAMD", 99, 1, LINUX_V3, "x86-64-v3"),
        ("GenuineIntel", 6, 999, LINUX_V4, "x86-64-v4"),
        ("GenuineIntel", 6, 0xA7, LINUX_SAPPHIRE, "sapphirerapids"),
        ("AuthenticAMD", 99, 1, LINUX_ZEN4, "znver4"),
        ("AuthenticAMD", 99, 1, LINUX_ZEN4 + " avx512_vp2intersect avx_vnni", "znver5"),
        ("Other", 6, 999, LINUX_V4 + " amx_tile", "x86-64-v4,+amx-tile"),
        ("CentaurHauls", 7, 1, "popcnt", "x86-64-v2,-cx16,-sse3,-sse4.1,-sse4.2,-ssse3"),
    ],
)
def test_x86_processors(tmp_path, monkeypatch, vendor, family, model, flags, expected) -> None:
    cpuinfo(tmp_path, monkeypatch, "x86_64", vendor_id=vendor, cpu_family=family, model=model, flags=flags)
    assert Target.parse("native").name == expected


def test_what_a_virtual_machine_hides_is_taken_away(tmp_path, monkeypatch) -> None:
    flags = LINUX_V3 + " adx aes pclmulqdq sha_ni sse4a vaes vpclmulqdq"
    cpuinfo(tmp_path, monkeypatch, "x86_64", vendor_id="AuthenticAMD", cpu_family="25", model="97", flags=flags)
    target = Target.parse("native")
    assert target.mcpu == "znver4" and target.vector_bits == 256
    assert "-avx512f" in target.features
    assert Target.parse(target.name).isa == target.isa


def test_tiles_that_the_system_does_not_keep_are_taken_away(tmp_path, monkeypatch) -> None:
    fields = {"vendor_id": "GenuineIntel", "cpu_family": "6", "model": "143", "flags": LINUX_SAPPHIRE}
    cpuinfo(tmp_path, monkeypatch, "x86_64", **fields)
    monkeypatch.setattr(native, "_keeps_tiles", lambda: False)
    assert Target.parse("native").name == "sapphirerapids,-amx-bf16,-amx-int8,-amx-tile"


def test_what_an_unknown_processor_has_beyond_its_level_is_used(tmp_path, monkeypatch) -> None:
    cpuinfo(tmp_path, monkeypatch, "x86_64", vendor_id="Other", cpu_family="1", model="1", flags=LINUX_V3 + " avx_vnni")
    assert Target.parse("native").name == "x86-64-v3,+avxvnni"


def test_arm_processors(tmp_path, monkeypatch) -> None:
    features = "asimd crc32 atomics asimdhp asimdrdm asimddp"
    cpuinfo(tmp_path, monkeypatch, "arm64", CPU_implementer="0x41", CPU_part="0xd0c", Features=features)
    assert Target.parse("native").name == "neoverse-n1"
    cpuinfo(tmp_path, monkeypatch, "aarch64", CPU_implementer="0x61", CPU_part="0x022", Features="asimd asimddp")
    assert Target.parse("native").name == "aarch64,+dotprod"


def test_without_proc_and_sys_the_plainest_processor(tmp_path, monkeypatch) -> None:
    cpuinfo(tmp_path, monkeypatch, "x86_64")
    (tmp_path / "cpuinfo").unlink()
    target = Target.parse("native")
    assert target.name == "x86-64-v2"
    assert target.l2_bytes == TARGETS["x86-64-v2"].l2_bytes


def test_caches_and_cores_come_from_sysfs(tmp_path, monkeypatch) -> None:
    cpuinfo(tmp_path, monkeypatch, "x86_64", vendor_id="Other", cpu_family="1", model="1", flags=LINUX_V3)
    for index, (level, kind, size) in enumerate([(1, "Data", "48K"), (1, "Instruction", "64K"), (2, "Unified", "2M")]):
        folder = tmp_path / "cpu" / "cpu0" / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{value}\n")
    for cpu in range(4):
        (tmp_path / "cpu" / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / "cpu" / f"cpu{cpu}" / SIBLINGS).write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    monkeypatch.setattr(native.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    target = Target.parse("native")
    assert (target.l1_bytes, target.l2_bytes, target.cores) == (48 * 1024, 2 * 1024 * 1024, 2)
    assert target.l3_bytes == TARGETS["x86-64-v3"].l3_bytes
    assert native.cores() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(("machine", "system"), [("riscv64", "Linux"), ("arm64", "Darwin")])
def test_other_machines_are_told_to_name_a_target(tmp_path, monkeypatch, machine, system) -> None:
    monkeypatch.setattr(native.platform, "machine", lambda: machine)
    monkeypatch.setattr(native.platform, "system", lambda: system)
    with pytest.raises(TargetError, match=f"this machine is {system} on {machine}; .* name a target"):
        Target.parse("native")
