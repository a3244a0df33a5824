"""Races of sparsec against dense runtimes, and the pruned networks that they run on."""
