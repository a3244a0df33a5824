"""The result of a race: what was measured, and the ratios that count."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from statistics import median
from typing import Any

from sparsec.bench.machine import Machine
from sparsec.errors import InputError

RELATIVE_TOLERANCE, SCALE_TOLERANCE = 1e-3, 1e-4
"""Outputs agree where ``|a - b| <= 1e-3 |b| + 1e-4 max |b|``."""

STORAGE_TOLERANCE = {"float16": 8 * 2.0**-11, "bfloat16": 8 * 2.0**-8, "int8": 8 / 254, "int4": 8 / 14}
"""What takes the place of 1e-4 where weights were rounded, by their type: each layer is off by at most 2⁻¹¹ or 2⁻⁸ of
Σ |W| |X|, or by 1/254 or 1/14 of that of its largest weights, and roundings that do not depend on one another grow with
the root of the layers, which is 8 for 64 of them."""

INT8_TOLERANCE = 0.1
"""What takes the place of 1e-4 where a model rounds activations to bytes: halves become either of two, and
all layers behind see that. ONNX Runtime and OpenVINO are up to 0.06 apart on ResNet-50 and BERT-base."""


@dataclass(frozen=True)
class Ratio:
    """A ratio over the rounds of a race."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, slow: Sequence[float], fast: Sequence[float]) -> "Ratio":
        """How many times as long one takes as the other, from the times of each round."""
        ratios = [one / other for one, other in zip(slow, fast, strict=True)]
        return cls(median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True)
class Lane:
    """One engine's part of a race.

    Parameters
    ----------
    engine, version : str
        Name and version of the engine.
    load_seconds : float
        Time to read the model and be ready.
    times : list of float
        Seconds of one run: each round's median.
    fastest : float
        Seconds of the fastest run of all.
    error : float
        Largest difference from the reference engine, relative to the output's scale (its largest magnitude).
    agrees : bool
        Whether every output is within `RELATIVE_TOLERANCE` and `SCALE_TOLERANCE` of the reference, or within
        `STORAGE_TOLERANCE` where the weights were rounded, or `INT8_TOLERANCE` where the activations are.
    memory_bytes : int
        What loading the model and running it once took at most, beside the interpreter, the engine's own code and the
        inputs.
    """

    engine: str
    version: str
    load_seconds: float
    times: list[float]
    fastest: float
    error: float
    agrees: bool
    memory_bytes: int = 0

    @property
    def seconds(self) -> float:
        """Median seconds of one run."""
        return median(self.times)


@dataclass(frozen=True)
class Race:
    """The result of a race; ``lanes`` are in the order of the turns, sparsec first.

    ``absent`` maps the engines that could not take part to the reason. ``reference`` is the engine that outputs are
    compared with.
    """

    model: str
    threads: int
    lanes: list[Lane]
    absent: dict[str, str]
    reference: str
    machine: Machine
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def lane(self, engine: str) -> Lane:
        """The lane of one engine."""
        for lane in self.lanes:
            if lane.engine == engine:
                return lane
        raise InputError(f"{engine} did not take part in this race: {self.absent.get(engine, 'it was not asked to')}")

    def speedup(self, over: str, engine: str = "sparsec") -> Ratio:
        """How many times faster ``engine`` is than the engine ``over``, from the ratios within each round."""
        return Ratio.of(self.lane(over).times, self.lane(engine).times)

    @property
    def best_peer(self) -> str | None:
        """The fastest engine beside sparsec, by its median time."""
        peers = [lane for lane in self.lanes if lane.engine != "sparsec"]
        return min(peers, key=lambda lane: lane.seconds).engine if peers else None

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured, ready for ``json.dump``."""
        fields = asdict(self)
        if self.lanes and self.lanes[0].engine == "sparsec":
            fields["speedup"] = {lane.engine: asdict(self.speedup(lane.engine)) for lane in self.lanes[1:]}
        return fields
