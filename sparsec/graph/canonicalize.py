"""From an imported model to the canonical graph that layouts are planned on."""

from sparsec.frontends.model import Imported
from sparsec.graph.fold_batch_norm import fold_batch_norm
from sparsec.graph.fold_constants import fold_constants
from sparsec.graph.from_relax import from_relax
from sparsec.graph.graph import Graph
from sparsec.graph.move_reshapes import move_reshapes
from sparsec.graph.recognize import recognize
from sparsec.graph.simplify import simplify

PASSES = (simplify, fold_constants, simplify, recognize, move_reshapes, fold_batch_norm, fold_constants, simplify)


def canonicalize(imported: Imported) -> Graph:
    """Read an imported model and rewrite it to the operators that :mod:`sparsec.graph.recognize` lists."""
    graph = from_relax(imported)
    for pass_ in PASSES:
        pass_(graph)
    graph.verify()
    return graph
