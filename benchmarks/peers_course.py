"""How one row of `make bench-peers` is raced: which form of a network each engine runs, and what is measured."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import sparsec
from benchmarks.int8_models import RECIPES, written
from benchmarks.models import cached
from benchmarks.peers_rows import Row
from sparsec.bench import Race, Ratio, race, seeded_inputs
from sparsec.bench.profile import profile
from sparsec.bench.settings import Setting, compare_settings, outputs
from sparsec.report.measured import steps_of_layers

DENSE = ("onnxruntime", "openvino")
"""Peers that skip no zeros; their answers are what sparsec's are compared with."""

_PART = 0.25  # of the budget of a race, for each heat before it and each comparison after it


@dataclass(frozen=True)
class Compiled:
    """An ONNX file, the library that it became, and the seconds that it took."""

    model: Path
    artifact: Path
    seconds: float


@cache
def compile_once(model: Path, target: str, threads: int) -> Compiled:
    """Compile a file, once in a run and anew in each, since the compiler may have changed."""
    artifact = model.with_suffix(f".{target}.{threads}.so")
    start = time.perf_counter()
    sparsec.compile(model, target, threads=threads).save(artifact)
    return Compiled(model, artifact, time.perf_counter() - start)


@dataclass(frozen=True)
class Course:
    """Where rows are raced.

    Parameters
    ----------
    folder : Path
        Where models are kept.
    seconds : float
        Budget of one race.
    peers : tuple of str
        Engines beside sparsec.
    pythons : mapping
        Interpreters of peers that live in an environment of their own.
    """

    folder: Path
    seconds: float
    peers: tuple[str, ...] = DENSE
    pythons: Mapping[str, str] = field(default_factory=dict)

    def files(self, row: Row) -> dict[str, Path]:
        """The row's ONNX files by form, written if they are not there yet; the first is what sparsec compiles."""
        network = (self.folder, row.network, row.sparsity)
        recipes = RECIPES[row.network] if row.precision == "int8" else ()
        forms = {recipe: written(*network, recipe, **row.options) for recipe in recipes}
        return forms | {"fp32": cached(*network, **row.options)}

    def compiled(self, row: Row) -> Compiled:
        """The row as a library; the files are written first."""
        return compile_once(next(iter(self.files(row).values())), row.target, row.threads)

    def race(self, row: Row) -> tuple[Race, dict[str, Any]]:
        """Race a row; return the race, and with it all that is kept of the row."""
        library, files = self.compiled(row), self.files(row)
        limits = self._limits(row, library)  # before the race, which is not lost where there is no profile
        forms = {peer: self._fastest_form(row, peer) for peer in self.peers}
        raced = {peer: files[form] for peer, form in forms.items()}
        result = race(
            library.model,
            self.peers,
            row.threads,
            library.artifact,
            self.seconds,
            pythons=self.pythons,
            files=raced,
            pinned=True,
        )
        found = {
            "row": asdict(row),
            "forms": forms,
            "compile_seconds": library.seconds,
            "artifact_bytes": library.artifact.stat().st_size,
            **limits,
            "gain": {engine: asdict(ratio) for engine, ratio in self._gains(row, forms, result).items()},
            **result.to_json(),
        }
        if row.precision == "int8":
            found["float_error"] = self._float_errors(row, forms, result)
        return result, found

    def _limits(self, row: Row, library: Compiled) -> dict[str, float]:
        """Seconds that the useful operations take at the peak of the cores, and what share of it pruned layers reach.

        The peak is that of the instructions that the layers use, measured beside them.
        """
        session, inputs = sparsec.load(library.artifact, threads=row.threads), seeded_inputs(library.model)
        given = [inputs[info.name] for info in session.inputs]
        steps = profile(session, given, seconds=_PART * self.seconds).steps
        layers = session.manifest["layers"]
        places = zip(steps_of_layers(layers, steps), layers, strict=True)
        pruned = [steps[place] for own, layer in places for place in own if layer["sparsity"] > 0]
        limit, reached = (sum(s.seconds * (s.share_of_peak or 0.0) for s in found) for found in (steps, pruned))
        taken = sum(step.seconds for step in pruned)
        return {"limit_seconds": limit} | ({"share_of_peak": reached / taken} if taken else {})

    def _fastest_form(self, row: Row, peer: str) -> str:
        """The form that a peer is fastest on; the first where it runs none, so that the race says why."""
        forms = [form for form in self.files(row) if row.precision == "fp32" or form != "fp32" or peer not in DENSE]
        if len(forms) == 1:
            return forms[0]
        times = self._compare(peer, {form: self._setting(row, peer, form) for form in forms})
        return min(times, key=lambda form: median(times[form]), default=forms[0])

    def _gains(self, row: Row, forms: dict[str, str], result: Race) -> dict[str, Ratio]:
        """How much faster an item is than alone on one thread: with more threads for sparsec, in a batch for all."""
        if row == row.base:
            return {}
        gains = {}
        for lane in result.lanes if row.batch > 1 else result.lanes[:1]:
            form = forms.get(lane.engine, "")
            rows = {"base": row.base, "row": row}
            times = self._compare(lane.engine, {name: self._setting(r, lane.engine, form) for name, r in rows.items()})
            if len(times) == len(rows):
                gains[lane.engine] = Ratio.of([row.batch * time for time in times["base"]], times["row"])
        return gains

    def _float_errors(self, row: Row, forms: dict[str, str], result: Race) -> dict[str, float]:
        """How far each engine's first output is from the float network's: a share of its root mean square.

        A rounding that falls the other way changes all layers behind it, so that answers in bytes are not held against
        one another.
        """
        original = self.files(row)["fp32"]
        truth = outputs("onnxruntime", Setting(original, original))[0].astype(np.float64)
        errors = {}
        for engine in (lane.engine for lane in result.lanes):
            answer = outputs(engine, self._setting(row, engine, forms.get(engine, "")), self.pythons.get(engine))[0]
            errors[engine] = float(np.sqrt(np.mean((answer - truth) ** 2) / np.mean(truth**2)))
        return errors

    def _setting(self, row: Row, engine: str, form: str) -> Setting:
        """How an engine runs a row in one of its forms."""
        library = self.compiled(row)
        file = library.artifact if engine == "sparsec" else self.files(row)[form]
        return Setting(library.model, file, row.threads)

    def _compare(self, engine: str, settings: dict[str, Setting]) -> dict[str, list[float]]:
        return compare_settings(engine, settings, _PART * self.seconds, self.pythons.get(engine), pinned=True)
