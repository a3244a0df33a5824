"""The answer of a rule or a step that does not apply."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Declined:
    """Why a rule or a step does not apply; an answer, not an error.

    Parameters
    ----------
    reason : str
        One sentence for a person who reads why a kernel is scheduled as it is.
    """

    reason: str
