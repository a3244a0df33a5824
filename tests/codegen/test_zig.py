"""Zig's compiler: where it keeps what it builds."""

from pathlib import Path

import pytest

from sparsec.codegen.zig import zig_cache


def test_what_zig_keeps_goes_to_the_users_cache_or_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert zig_cache(tmp_path / "work") == str(tmp_path / "sparsec" / "zig")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert zig_cache(tmp_path / "work") == str(tmp_path / "work" / "zig")
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", "/elsewhere")
    assert zig_cache(tmp_path / "work") == "/elsewhere"
