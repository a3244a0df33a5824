"""Races between a compiled model and the dense runtimes; the engine behind ``sparsec bench``."""

from sparsec.bench.race import Lane, Race, Ratio, race, seeded_inputs

__all__ = ["Lane", "Race", "Ratio", "race", "seeded_inputs"]
