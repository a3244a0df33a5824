"""Races between a compiled model and the dense runtimes; the engine behind ``sparsec bench``."""

from sparsec.bench.race import Lane, Race, Ratio, race, seeded_inputs
from sparsec.bench.table import race_table, summary_table

__all__ = ["Lane", "Race", "Ratio", "race", "race_table", "seeded_inputs", "summary_table"]
