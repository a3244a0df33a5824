"""What sparsec knows about a processor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from sparsec.errors import TargetError
from sparsec.targets.features import implied_by, probe

_BITS = {
    **{"float64": 64, "int64": 64, "float32": 32, "int32": 32},
    **{"float16": 16, "bfloat16": 16, "int16": 16, "int8": 8, "uint8": 8},
}

LINE, PAGE = 64, 4096
"""Bytes of a line of the cache, and of a page that addresses are translated for: alike on all processors here."""

L1_SETS, L2_WAYS = 64, 8
"""Sets of L1, of which more bytes are more ways, and ways of L2: alike on most processors here."""

X86_CODE_BYTES = 32 * 1024

EMULATE = "emulate:"
"""Starts the name of a target whose schedules run on this machine."""


@dataclass(frozen=True)
class Target:
    """A processor to compile for: its name for LLVM, and the facts that schedule rules reason with.

    >>> Target.parse("znver4").lanes("float32")
    16

    Parameters
    ----------
    name : str
        What `parse` reads, such as ``"znver5"`` or ``"x86-64-v3,+avxvnni"``.
    triple, mcpu, features : str, str, tuple of str
        LLVM's target triple, its processor, and changes to that processor's features, such as ``"-prefer-256-bit"``.
    isa : frozenset of str
        Extensions that generated code may use, by LLVM name; an artifact checks them before it runs.
    l1_bytes, l2_bytes, l3_bytes : int
        Data caches that one core sees; 0 where there is none. L3 is the share of one cluster of cores.
    fma_per_cycle, loads_per_cycle : float
        Fused multiply-adds, and loads from L1, of one full vector each that one core can start in a cycle.
    ghz : float
        A sustained clock, for predicted times.
    cores : int
        Physical cores that a compiled model may use.
    unit_bits : int
        Width of what carries out vector operations, where it takes wider vectors in turns; 0 for as wide as vectors.
    emulated_on : Target, optional
        What code is generated for, where this target is only emulated; see `parse`.
    """

    name: str
    triple: str
    mcpu: str
    isa: frozenset[str]
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    fma_per_cycle: float
    loads_per_cycle: float
    ghz: float
    cores: int = 1
    features: tuple[str, ...] = ()
    unit_bits: int = 0
    emulated_on: Target | None = None

    @staticmethod
    def parse(text: str) -> Target:
        """The target of this name: ``native``, a processor, an x86-64 level or a triple.

        Extensions can be added or taken away after a comma: ``"x86-64-v3,+avxvnni"``. ``emulate:`` before a name stands
        for the schedules of that processor in code for this machine, in which each instruction is the loop that says
        what it does: ``"emulate:armv8.6"`` tries on any machine what ``"armv8.6"`` runs on its own. Only this can be
        done yet with the GPUs, such as ``"emulate:sm_90"``.

        Raises
        ------
        TargetError
            If the processor or an extension is not known, no code can be generated for it, or ``native`` is neither
            x86-64 nor AArch64.
        """
        from sparsec.targets.catalogue import ALIASES, GPUS, TARGETS
        from sparsec.targets.native import detect

        if text.startswith(EMULATE):
            return _emulated(text.removeprefix(EMULATE))
        name, *changes = (part.strip() for part in text.split(","))
        if name == "native":
            base = detect()
        elif ALIASES.get(name, name) in TARGETS:
            base = TARGETS[ALIASES.get(name, name)]
        elif name in GPUS:
            raise TargetError(f"sparsec generates no code for {name} yet; {EMULATE}{name} runs its schedules here")
        else:
            known = ", ".join(["native", *TARGETS, *(f"{EMULATE}{name}" for name in GPUS)])
            raise TargetError(f"unknown target {name!r}; the known ones are {known}")
        return base.with_features(*changes) if changes else base

    def with_features(self, *changes: str) -> Target:
        """This target with extensions added (``"+avxvnni"``) or taken away (``"-avx512bf16"``)."""
        isa = set(self.isa)
        for change in changes:
            sign, feature = change[:1], change[1:]
            if sign not in ("+", "-"):
                raise TargetError(f"an extension is written +avxvnni or -avxvnni after the target, not {change!r}")
            probe(feature, self.arch)
            if sign == "+":
                isa |= implied_by(feature, self.arch)
            else:
                isa = {name for name in isa if feature not in implied_by(name, self.arch)}
        return replace(
            self,
            name=",".join([self.name, *changes]),
            isa=frozenset(isa),
            features=self.features + changes,
        )

    def with_cores(self, cores: int) -> Target:
        """This target as it is for what runs on so many cores."""
        return replace(self, cores=cores)

    @cached_property  # rules that price layouts ask for each of thousands
    def arch(self) -> str:
        """``x86_64`` or ``aarch64``, or ``nvptx64`` where it is emulated."""
        return self.triple.split("-")[0]

    @property
    def machine(self) -> Target:
        """What code is generated for: this target, or the one that it is emulated on."""
        return self.emulated_on or self

    @property
    def emits(self) -> frozenset[str]:
        """Extensions whose instructions are emitted; those of an emulated target are written out as loops."""
        return frozenset() if self.emulated_on else self.isa

    @cached_property
    def vector_bits(self) -> int:
        """Width of a vector register; on a GPU that of a warp, 32 lanes of 32 bits."""
        if self.arch == "nvptx64":
            return 1024
        return 512 if self.has("avx512f") else 256 if self.has("avx2") else 128

    @cached_property
    def multiplies_two_lines(self) -> bool:
        """Whether a core starts multiply-adds of two vectors of a line each in a cycle, and two loads of such."""
        is_whole = self.vector_bits == 8 * LINE and not self.unit_bits
        return is_whole and min(self.fma_per_cycle, self.loads_per_cycle) >= 2

    @property
    def vector_registers(self) -> int:
        """Number of vector registers; on a GPU those of a thread."""
        if self.arch == "nvptx64":
            return 255
        return 32 if self.has("avx512f") or self.arch == "aarch64" else 16

    @property
    def activations(self) -> str:
        """The type of 8 bits whose products with int8 instructions add up; of AArch64 the largest take int8 alone."""
        return "int8" if self.arch == "aarch64" else "uint8"

    @property
    def code_bytes(self) -> int:
        """Bytes of the cache of instructions: 32 KiB on all x86-64 processors here, else as many as L1 has."""
        return X86_CODE_BYTES if self.arch == "x86_64" else self.l1_bytes

    def has(self, feature: str) -> bool:
        """Whether generated code may use the extension with this LLVM name."""
        return feature in self.isa

    def lanes(self, dtype: str) -> int:
        """Elements of `dtype` in one vector register."""
        return self.vector_bits // _BITS[dtype]

    def unit_lanes(self, dtype: str) -> int:
        """Elements of `dtype` in what an execution unit takes at once; fewer of them take as long."""
        return min(self.unit_bits or self.vector_bits, self.vector_bits) // _BITS[dtype]

    def tvm(self) -> Any:
        """This target as a `tvm.target.Target`, with itself as the host."""
        from tvm.target import Target as TVMTarget

        fields: dict[str, Any] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.mcpu}
        if self.features:
            fields["mattr"] = list(self.features)
        return TVMTarget(fields, host=fields)

    def zig_triple(self) -> str:
        """The triple for `zig cc`, with the oldest glibc that an artifact runs on (2.28, of 2018)."""
        return f"{self.triple}.2.28"

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON values, for manifests and reports."""
        derived = {"vector_bits": self.vector_bits, "vector_registers": self.vector_registers}
        facts = asdict(replace(self, emulated_on=None)) | derived
        facts |= {"isa": sorted(self.isa), "features": list(self.features)}
        return facts | {"emulated_on": self.emulated_on and self.emulated_on.as_dict()}


def _emulated(text: str) -> Target:
    """The target of this name, in code for this machine."""
    from sparsec.targets.catalogue import GPUS

    base = GPUS[text] if text in GPUS else Target.parse(text)
    return replace(base, name=f"{EMULATE}{base.name}", emulated_on=Target.parse("native"))
