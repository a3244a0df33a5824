"""Fair races: engines take turns on one machine, and the median of the ratios counts.

Absolute times drift on shared machines, by half and more; the ratio of two turns that lie next to each other does not.
So every engine runs in a process of its own on the same model file, inputs and threads, only one runs at a time, and a
speed-up is the median over rounds of the ratio within a round.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sparsec.bench import worker
from sparsec.bench.engine import Absent, Engine
from sparsec.bench.inputs import seeded_inputs
from sparsec.bench.machine import this_machine
from sparsec.bench.result import INT8_TOLERANCE, RELATIVE_TOLERANCE, SCALE_TOLERANCE, STORAGE_TOLERANCE, Lane, Race
from sparsec.errors import InputError, SparsecError

_TURN_SECONDS = 0.3
_SETTLE_SECONDS = 0.02  # time for an engine's idle threads to fall asleep before the next engine runs
_LEAST_ROUNDS = 3


def race(
    model: str | PathLike[str],
    peers: Sequence[str] = ("onnxruntime", "openvino"),
    threads: int = 1,
    artifact: str | PathLike[str] | None = None,
    seconds: float = 20.0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    pythons: Mapping[str, str] | None = None,
    files: Mapping[str, str | PathLike[str]] | None = None,
    storage: str | None = None,
    pinned: bool = False,
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
    files : mapping, optional
        ONNX files of peers that run another form of ``model``, one with the same inputs and outputs.
    storage : str, optional
        What the weights of the artifact were rounded to, which its outputs are allowed for.
    pinned : bool
        Whether every engine is held to as many cores as it has threads, all to the same ones.

    Raises
    ------
    ModelError
        The file is no ONNX model.
    InputError
        A peer is unknown, or an input's shape is open.
    SparsecError
        No peer could run the model, or sparsec could not run its artifact.
    """
    for peer in peers:
        if peer not in worker.ENGINES or peer == "sparsec":
            known = ", ".join(sorted(set(worker.ENGINES) - {"sparsec"}))
            raise InputError(f"unknown peer {peer!r}: sparsec can be raced against {known}")
    inputs = seeded_inputs(model, shapes, seed)
    paths = {peer: fspath((files or {}).get(peer, model)) for peer in peers}
    if artifact is not None:
        paths = {"sparsec": fspath(artifact)} | paths
    absent: dict[str, str] = {}
    engines: list[Engine] = []
    with tempfile.TemporaryDirectory(prefix="sparsec-race-") as folder:
        np.savez(f"{folder}/inputs.npz", **inputs)  # type: ignore[arg-type]
        try:
            for name, path in paths.items():
                try:
                    python = (pythons or {}).get(name)
                    engines.append(Engine(name, path, threads, Path(folder), python, pinned=pinned))
                except Absent as reason:
                    absent[name] = str(reason)
            if artifact is not None and "sparsec" in absent:
                raise SparsecError(f"sparsec could not run {artifact}: {absent['sparsec']}")
            if not engines or (absent and len(absent) == len(set(peers))):
                reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
                raise SparsecError(f"no peer could run {model}: {reasons or 'none was named'}")
            reference = next((engine for engine in engines if engine.name != "sparsec"), engines[0])
            outputs = {engine.name: engine.outputs() for engine in engines}
            rounds = take_turns(engines, seconds)
        finally:
            for engine in engines:
                engine.close()
    lanes, in_bytes = [], _rounds_activations(model)
    for engine in engines:
        tolerance = INT8_TOLERANCE if in_bytes else SCALE_TOLERANCE
        if storage and engine.name == "sparsec":
            tolerance = max(tolerance, STORAGE_TOLERANCE[storage.partition(":")[0]])
        error, agrees = _compare(outputs[engine.name], outputs[reference.name], tolerance)
        turns = [turn[engine.name] for turn in rounds]
        fastest = min(min(times) for times in turns)
        medians = [median(times) for times in turns]
        facts = engine.name, engine.version, engine.load_seconds
        lanes.append(Lane(*facts, medians, fastest, error, agrees, engine.memory_bytes))
    return Race(Path(model).name, threads, lanes, absent, reference.name, this_machine())


def take_turns(engines: Sequence[Engine], seconds: float) -> list[dict[str, list[float]]]:
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


def _rounds_activations(model: str | PathLike[str]) -> bool:
    """Whether a model computes with bytes."""
    nodes = onnx.load(fspath(model), load_external_data=False).graph.node
    return any("QuantizeLinear" in node.op_type for node in nodes if node.op_type != "DequantizeLinear")


def _compare(
    outputs: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]], tolerance: float = SCALE_TOLERANCE
) -> tuple[float, bool]:
    """Largest difference relative to the scale of its output, and whether all are within tolerance.

    Equal infinities agree, and so do two NaNs; a NaN on one side only is an infinite error.
    """
    if [ours.shape for ours in outputs] != [theirs.shape for theirs in reference]:
        return float("inf"), False
    error, agrees = 0.0, True
    for ours, theirs in zip(outputs, reference, strict=True):
        scale = float(np.max(np.abs(theirs), where=np.isfinite(theirs), initial=0.0)) or 1.0
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        difference = np.subtract(ours, theirs, where=~same, out=np.zeros_like(theirs, np.float64), dtype=np.float64)
        worst = np.max(np.abs(np.nan_to_num(difference, nan=np.inf)), initial=0.0)
        error = max(error, float(worst) / scale)
        agrees &= np.allclose(ours, theirs, rtol=RELATIVE_TOLERANCE, atol=tolerance * scale, equal_nan=True)
    return error, agrees
