"""Races between a compiled model and the dense runtimes; the engine behind ``sparsec bench``."""

from sparsec.bench.inputs import seeded_inputs
from sparsec.bench.memory import run_memory
from sparsec.bench.racing import race
from sparsec.bench.result import Lane, Race, Ratio
from sparsec.bench.table import race_table, summary_table

__all__ = ["Lane", "Race", "Ratio", "race", "race_table", "run_memory", "seeded_inputs", "summary_table"]
