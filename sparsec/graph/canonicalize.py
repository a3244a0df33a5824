"""From a graph as it was imported to the canonical graph that layouts are planned on."""

from collections.abc import Callable

from sparsec.graph.contract_chains import associate, contract_chains
from sparsec.graph.fold_batch_norm import fold_batch_norm
from sparsec.graph.fold_constants import fold_constants
from sparsec.graph.graph import Graph
from sparsec.graph.layer_names import layer_names
from sparsec.graph.merge_positions import merge_positions
from sparsec.graph.move_reshapes import move_reshapes
from sparsec.graph.open_images import open_images
from sparsec.graph.recognize import recognize
from sparsec.graph.remove_dead_channels import remove_dead_channels
from sparsec.graph.simplify import simplify
from sparsec.graph.spread_taps import spread_taps

PASSES = (
    simplify,
    associate,
    fold_constants,
    simplify,
    recognize,
    move_reshapes,
    fold_batch_norm,
    remove_dead_channels,
    contract_chains,
    fold_batch_norm,  # what both left in biases
    fold_constants,
    simplify,
    open_images,
    merge_positions,
    spread_taps,
)


def canonicalize(graph: Graph, after: Callable[[str, Graph], None] | None = None) -> list[str]:
    """Rewrite an imported graph to the operators that :mod:`sparsec.graph.recognize` lists.

    Returns the names of the layers that were recognized; some may be gone from the graph.

    Parameters
    ----------
    after : callable, optional
        Called with the name of each pass that has run, and the graph, as for a dump.
    """
    layers: list[str] = []
    for pass_ in PASSES:
        pass_(graph)
        if pass_ is recognize:
            layers = layer_names(graph)
        if after is not None:
            after(pass_.__name__, graph)
    graph.verify()
    return layers
