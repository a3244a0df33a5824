"""Fair races: engines take turns on one machine, and the median of the ratios counts.

Absolute times drift on shared machines, by half and more; the ratio of two turns that lie next to each other does not.
So every engine runs in a process of its own on the same model file, inputs and threads, only one runs at a time, and a
speed-up is the median over rounds of the ratio within a round.
"""

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from os import PathLike, environ, fspath
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sparsec.bench import worker
from sparsec.bench.machine import Machine, this_machine
from sparsec.errors import InputError, ModelError, SparsecError

RELATIVE_TOLERANCE, SCALE_TOLERANCE = 1e-3, 1e-4
"""Outputs agree where ``|a - b| <= 1e-3 |b| + 1e-4 max |b|``."""

_TURN_SECONDS = 0.3
_SETTLE_SECONDS = 0.02  # time for an engine's idle threads to fall asleep before the next engine runs
_LEAST_ROUNDS = 3
_PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Ratio:
    """A ratio over the rounds of a race."""

    median: float
    min: float
    max: float


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
        Whether every output is within `RELATIVE_TOLERANCE` and `SCALE_TOLERANCE` of the reference.
    """

    engine: str
    version: str
    load_seconds: float
    times: list[float]
    fastest: float
    error: float
    agrees: bool

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
        ratios = [slow / fast for slow, fast in zip(self.lane(over).times, self.lane(engine).times, strict=True)]
        return Ratio(median(ratios), min(ratios), max(ratios))

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


def race(
    model: str | PathLike[str],
    peers: Sequence[str] = ("onnxruntime", "openvino"),
    threads: int = 1,
    artifact: str | PathLike[str] | None = None,
    seconds: float = 20.0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    pythons: Mapping[str, str] | None = None,
) -> Race:
    """Race a compiled model against dense runtimes.

    >>> result = race("bert90.onnx", artifact="bert90.so", threads=2)  # doctest: +SKIP
    >>> result.speedup(over="openvino").median                         # doctest: +SKIP
    5.1

    Parameters
    ----------
    model : path
        The ONNX file that every peer runs.
    peers : sequence of str
        Names out of ``onnxruntime``, ``openvino`` and ``deepsparse``. One that is not installed is reported in
        `Race.absent`.
    threads : int
        Threads of every engine.
    artifact : path, optional
        The model compiled by sparsec; without it the peers race alone.
    seconds : float
        Budget for all turns; three rounds are run even if they take longer.
    shapes : mapping, optional
        Shapes of inputs whose dimensions the model leaves open.
    seed : int
        Seed of the inputs.
    pythons : mapping, optional
        Interpreters for engines that live in an environment of their own.

    Raises
    ------
    ModelError
        The file is no ONNX model.
    InputError
        A peer is unknown, or an input's shape is open.
    SparsecError
        No engine could run the model, or sparsec could not run its artifact.
    """
    for peer in peers:
        if peer not in worker.ENGINES or peer == "sparsec":
            known = ", ".join(sorted(set(worker.ENGINES) - {"sparsec"}))
            raise InputError(f"unknown peer {peer!r}: sparsec can be raced against {known}")
    inputs = seeded_inputs(model, shapes, seed)
    paths = dict.fromkeys(peers, fspath(model))
    if artifact is not None:
        paths = {"sparsec": fspath(artifact)} | paths
    absent: dict[str, str] = {}
    engines: list[_Engine] = []
    with tempfile.TemporaryDirectory(prefix="sparsec-race-") as folder:
        np.savez(f"{folder}/inputs.npz", **inputs)  # type: ignore[arg-type]
        try:
            for name, path in paths.items():
                try:
                    engines.append(_Engine(name, path, threads, Path(folder), (pythons or {}).get(name)))
                except _Absent as reason:
                    absent[name] = str(reason)
            if artifact is not None and "sparsec" in absent:
                raise SparsecError(f"sparsec could not run {artifact}: {absent['sparsec']}")
            if not engines:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
                raise SparsecError(f"no engine could run {model}: {reasons or 'none was named'}")
            reference = next((engine for engine in engines if engine.name != "sparsec"), engines[0])
            outputs = {engine.name: engine.outputs() for engine in engines}
            rounds = _take_turns(engines, seconds)
        finally:
            for engine in engines:
                engine.close()
    lanes = []
    for engine in engines:
        error, agrees = _compare(outputs[engine.name], outputs[reference.name])
        turns = [turn[engine.name] for turn in rounds]
        fastest = min(min(times) for times in turns)
        medians = [median(times) for times in turns]
        lanes.append(Lane(engine.name, engine.version, engine.load_seconds, medians, fastest, error, agrees))
    return Race(Path(model).name, threads, lanes, absent, reference.name, this_machine())


def seeded_inputs(
    model: str | PathLike[str], shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Random inputs for an ONNX model, the same for the same seed.

    Floats are standard normal. Integers are drawn below the size of the table that they index, masks are all ones.
    """
    try:
        graph = onnx.load(fspath(model), load_external_data=False).graph
    except Exception as error:
        raise ModelError(f"{fspath(model)} cannot be read as an ONNX model: {error}") from error
    rows = {tensor.name: tensor.dims for tensor in graph.initializer}
    bounds = {
        node.input[1]: rows[node.input[0]][next((a.i for a in node.attribute if a.name == "axis"), 0)]
        for node in graph.node
        if node.op_type == "Gather" and node.input[0] in rows
    }
    rng = np.random.default_rng(seed)
    inputs: dict[str, NDArray[Any]] = {}
    for value in graph.input:
        if value.name in rows:
            continue
        tensor = value.type.tensor_type
        shape = (shapes or {}).get(value.name) or [d.dim_value for d in tensor.shape.dim]
        if not all(size > 0 for size in shape):
            open_shape = ",".join(d.dim_param or str(d.dim_value or "?") for d in tensor.shape.dim)
            raise InputError(
                f"input {value.name} of {fspath(model)} has the open shape [{open_shape}]: close it with --shape"
                f" {value.name}=… (shapes={{{value.name!r}: …}} in Python)"
            )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if "mask" in value.name:
            inputs[value.name] = np.ones(shape, dtype)
        elif np.issubdtype(dtype, np.floating):
            inputs[value.name] = rng.standard_normal(shape, np.float32).astype(dtype)
        else:
            inputs[value.name] = rng.integers(0, bounds.get(value.name, 2), shape).astype(dtype)
    return inputs


class _Absent(Exception):
    """An engine cannot take part; the message says why."""


class _Engine:
    """The parent's end of one worker process."""

    def __init__(self, name: str, path: str, threads: int, folder: Path, python: str | None) -> None:
        self.name, self._folder = name, folder
        self._log = (folder / f"{name}.log").open("w+")
        command = [python or sys.executable, worker.__file__, name, path, str(threads), str(folder / "inputs.npz")]
        # The worker's folder would be its first import path, and shadow packages with the names of sparsec's modules.
        env = environ | {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": str(threads)}
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=env
            )
        except OSError as error:
            raise _Absent(f"its interpreter does not start: {error}") from error
        try:
            greeting = self._answer()
        except SparsecError as error:
            self.close()
            raise _Absent(str(error)) from error
        if "version" not in greeting:
            self.close()
            missing = greeting.get("missing")
            raise _Absent(f"not installed: pip install {name}" if missing else greeting["error"])
        self.version: str = greeting["version"]
        self.load_seconds: float = greeting["load_seconds"]

    def outputs(self) -> list[NDArray[Any]]:
        """Run once and return the outputs, in the model's order."""
        path = self._folder / f"{self.name}.npz"
        self._ask(fetch=str(path))
        with np.load(path) as archive:
            return [archive[key] for key in archive.files]

    def run(self, iterations: int) -> list[float]:
        """Take a turn: seconds of each of ``iterations`` runs."""
        return self._ask(run=iterations)["times"]

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _ask(self, **command: Any) -> dict[str, Any]:
        pipe = _open(self._process.stdin)
        try:
            pipe.write(json.dumps(command) + "\n")
            pipe.flush()
        except BrokenPipeError:
            raise SparsecError(f"{self.name} stopped during the race: {self._last_words()}") from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        pipe = _open(self._process.stdout)
        ready, _, _ = select.select([pipe], [], [], _PATIENCE_SECONDS)
        if not ready:
            self._process.kill()
            raise SparsecError(f"{self.name} did not answer within {_PATIENCE_SECONDS:.0f} s")
        line = pipe.readline()
        if not line:
            raise SparsecError(f"{self.name} stopped during the race: {self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return f"exit code {code}" + (f", {lines[-1]}" if lines else "")


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "workers are started with pipes"
    return pipe


def _take_turns(engines: Sequence[_Engine], seconds: float) -> list[dict[str, list[float]]]:
    """Rounds A B C A B C … until the budget is spent; each turn lasts about as long as the others."""
    iterations = {}
    for engine in engines:
        engine.run(2)
        slowest = max(engine.run(2))
        iterations[engine.name] = max(1, min(round(_TURN_SECONDS / slowest), 1000))
    rounds: list[dict[str, list[float]]] = []
    start = time.perf_counter()
    while len(rounds) < _LEAST_ROUNDS or (time.perf_counter() - start) * (1 + 1 / len(rounds)) < seconds:
        times = {}
        for engine in engines:
            times[engine.name] = engine.run(iterations[engine.name])
            time.sleep(_SETTLE_SECONDS)
        rounds.append(times)
    return rounds


def _compare(outputs: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]]) -> tuple[float, bool]:
    """Largest difference relative to the scale of its output, and whether all are within tolerance.

    Equal infinities agree, and so do two NaNs; a NaN on one side only is an infinite error.
    """
    if [ours.shape for ours in outputs] != [theirs.shape for theirs in reference]:
        return float("inf"), False
    error, agrees = 0.0, True
    for ours, theirs in zip(outputs, reference, strict=True):
        scale = float(np.max(np.abs(theirs), where=np.isfinite(theirs), initial=0.0)) or 1.0
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        difference = np.subtract(ours, theirs, where=~same, out=np.zeros_like(theirs, np.float64))
        worst = np.max(np.abs(np.nan_to_num(difference, nan=np.inf)), initial=0.0)
        error = max(error, float(worst) / scale)
        atol = SCALE_TOLERANCE * scale
        agrees &= np.allclose(ours, theirs, rtol=RELATIVE_TOLERANCE, atol=atol, equal_nan=True)
    return error, agrees
