"""The examples in docstrings run, and give what they say."""

import doctest
from importlib import import_module

import pytest

from tests.test_architecture import modules


@pytest.mark.parametrize("name", [name for name, path in modules() if ">>> " in path.read_text()])
def test_examples(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0
