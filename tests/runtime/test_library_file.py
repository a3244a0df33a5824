"""Files that are not whole artifacts get a sentence, never SIGBUS or a wrong answer."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsec.errors import ArtifactError, InputError
from sparsec.runtime.elf import read_manifest
from sparsec.runtime.library import TensorInfo
from sparsec.runtime.session import load


def test_bytes_load_like_a_file(models: Path) -> None:
    x = np.ones((4, 16), np.float32)
    data = (models / "affine.so").read_bytes()
    np.testing.assert_array_equal(load(data, threads=1)(x), load(models / "affine.so", threads=1)(x))


def test_every_truncation_is_refused(models: Path) -> None:
    data = (models / "affine.so").read_bytes()
    for length in [*range(0, len(data), 97), len(data) - 1]:
        with pytest.raises(ArtifactError, match=r"the artifact is (not a sparsec artifact|cut short or damaged)"):
            load(data[:length])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_headers_never_crash_the_reader(models: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray((models / "affine.so").read_bytes())
    section_table = int.from_bytes(whole[40:48], "little")
    positions = st.one_of(st.integers(0, 1000), st.integers(section_table, len(whole) - 1))
    for position in data.draw(st.lists(positions, min_size=1, max_size=4)):
        whole[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.so"
    path.write_bytes(whole)
    with path.open("rb") as file:
        try:
            assert read_manifest(file, "damaged.so")["abi"] == 2
        except ArtifactError as error:
            assert str(error).startswith("damaged.so")


def test_a_section_table_that_is_nowhere_is_told(models: Path) -> None:
    data = bytearray((models / "affine.so").read_bytes())
    data[47] = 128  # of the eight bytes that say where it starts
    with pytest.raises(ArtifactError, match="the artifact is cut short or damaged"):
        load(bytes(data))


def test_other_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("not a library\n" * 100)
    with pytest.raises(ArtifactError, match=r"text.so is not a sparsec artifact: it is not a 64-bit shared library"):
        load(text)
    with pytest.raises(ArtifactError, match=r"cannot open .*missing.so: No such file or directory"):
        load(tmp_path / "missing.so")
    with pytest.raises(ArtifactError, match=r"cannot open .*: Is a directory"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"not \[1, 2\]; what compile returns has a method load of its own"):
        load([1, 2])  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="is a shared library that sparsec did not make"):
        load(np.linalg._umath_linalg.__file__)
    empty = tmp_path / "empty.so"
    empty.touch()
    with pytest.raises(ArtifactError, match=r"empty.so is not a sparsec artifact: it has 0 bytes"):
        load(empty)


def replace_manifest(models: Path, old: bytes, new: bytes) -> bytes:
    data = (models / "affine.so").read_bytes()
    assert data.count(old) == 1 and len(old) == len(new)
    return data.replace(old, new)


def test_another_version_is_refused(models: Path) -> None:
    with pytest.raises(
        ArtifactError, match="has version 9 of the artifact interface, and this sparsec reads version 2"
    ):
        load(replace_manifest(models, b'"abi": 2', b'"abi": 9'))


def test_a_damaged_manifest_is_told(models: Path) -> None:
    with pytest.raises(ArtifactError, match="its manifest cannot be read"):
        load(replace_manifest(models, b'"abi": 2', b'"abi": }'))


def test_another_machine_is_told(models: Path) -> None:
    data = bytearray((models / "affine.so").read_bytes())
    data[18:20] = (243).to_bytes(2, "little")
    with pytest.raises(ArtifactError, match="was compiled for riscv64, and this machine is x86_64"):
        load(bytes(data))


def test_the_manifest_is_json_in_c_too(models: Path) -> None:
    program = f"""
import ctypes
library = ctypes.CDLL({str(models / "affine.so")!r})
library.sparsec_manifest.restype = ctypes.c_char_p
print(library.sparsec_manifest().decode())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["model"] == "affine"


def test_the_shape_of_an_input_tells_what_is_fixed() -> None:
    assert TensorInfo("x", np.dtype("float32"), (1, 4), (8, 4)).shape == (None, 4)
