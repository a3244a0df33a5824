"""What is claimed of ONNX operators, as data in ``operators.json``, and which cases follow from it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from tests.conformance.cases import Case, all_cases

DATA = Path(__file__).parent / "operators.json"


@dataclass(frozen=True)
class Claims:
    """The claimed operators, and what contradicts them.

    Parameters
    ----------
    onnx : str
        The version of onnx whose cases were run.
    claimed : dict
        Operator to its ``versions`` and element ``types`` and the number of its ``cases`` that pass.
    limits : dict
        Case that fails although its operators are claimed, to the reason.
    unclaimed : dict
        Operator to one of its cases that fails and the reason.
    """

    onnx: str
    claimed: dict[str, dict[str, Any]]
    limits: dict[str, str]
    unclaimed: dict[str, dict[str, str]]

    @classmethod
    def read(cls) -> "Claims":
        return cls(**json.loads(DATA.read_text()))

    def write(self) -> None:
        DATA.write_text(json.dumps(self.__dict__, indent=1, sort_keys=True) + "\n")

    @property
    def is_current(self) -> bool:
        """Whether the cases at hand are those that the claims were made from."""
        return onnx.__version__ == self.onnx

    def must_pass(self) -> list[Case]:
        """The cases all of whose operators are claimed."""
        return [case for case in all_cases()[0] if self._covers(case) and case.name not in self.limits]

    def must_fail(self) -> list[Case]:
        """The cases that contradict a claim of their operators, and one for each operator that is not claimed."""
        names = self.limits.keys() | {row["case"] for row in self.unclaimed.values()}
        return [case for case in all_cases()[0] if case.name in names]

    def _covers(self, case: Case) -> bool:
        return case.operators <= self.claimed.keys()
