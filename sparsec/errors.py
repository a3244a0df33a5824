"""The errors that users of sparsec may meet; each says what, where, why and what to try."""

import re


class SparsecError(Exception):
    """Base of every error that sparsec raises on purpose. The CLI prints it as one sentence and exits with 2."""


class ModelError(SparsecError):
    """The model cannot be read: not an ONNX file, truncated, external data missing, shapes left open."""


class UnsupportedError(SparsecError):
    """The model is readable, but holds an operator, attribute or type that sparsec does not compile."""


class LayoutError(SparsecError):
    """A layout is malformed, or cannot hold the operand that it was given."""


class KernelError(SparsecError):
    """A kernel does not parse or does not verify; the message holds the line and column."""


class ScheduleError(SparsecError):
    """A trace does not apply to the kernel that it was replayed on."""


class TargetError(SparsecError):
    """The target is unknown, or this machine is not one that the artifact was compiled for."""


class ArtifactError(SparsecError):
    """A shared library is truncated, foreign, of another version, or could not be written."""


class PruningError(SparsecError):
    """A pattern, a sparsity or a score makes no sense, or does not fit the model that it is to prune."""


class InputError(SparsecError):
    """A session was called with a wrong input name, shape or dtype."""


def last_line(error: BaseException) -> str:
    """What an error of TVM or torch says, without its backtrace and the printed forms of its objects.

    >>> last_line(RuntimeError("Traceback:\\n  in f\\nthere is no such axis\\n"))
    'there is no such axis'
    """
    text = re.sub(r"# Metadata omitted\..*? show it\.|In ir\.Op\(.*\), (?=the )", "", str(error))
    text = re.sub(r"T\.int64\((-?\d+)\)", r"\1", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
