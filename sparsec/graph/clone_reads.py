"""Read quantised tensors where they are needed, not once for all readers."""

from sparsec.graph.graph import Graph, Node, Value
from sparsec.ir.types import BYTES

_READS = {"add", "astype", "multiply", "subtract"}


def reads_bytes(node: Node) -> bool:
    """Whether a node only turns stored integers of 8 bits into numbers, or is a step of that."""
    sources = [value for value in node.inputs if not value.is_constant]
    if node.op not in _READS or len(sources) != 1 or node.output.dtype in BYTES:
        return False
    return _is_read(sources[0])


def _is_read(value: Value) -> bool:
    return value.dtype in BYTES or (value.producer is not None and reads_bytes(value.producer))


def clone_reads(graph: Graph) -> None:
    """Give every reader of a dequantised tensor its own copy of the few operators that make it.

    Each can then be fused with its reader, so that a quarter of the bytes are stored and read.
    """
    for node in reversed(list(graph.nodes)):
        if not reads_bytes(node):
            continue
        y = node.output
        kept = 0 if y in graph.outputs else 1  # readers that may have the first copy
        for user in list(dict.fromkeys(y.users))[kept:]:
            made = graph.add(node.op, node.inputs, y.shape, node.attrs, dtype=y.dtype, before=node, name=y.name)
            graph.set_inputs(user, [made if value is y else value for value in user.inputs])
