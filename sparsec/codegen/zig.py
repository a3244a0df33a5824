"""The C compiler and linker of the `ziglang` wheel, which builds for any target, and where it keeps what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def zig_cc(triple: str, arguments: Sequence[str], folder: Path, keep: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `zig cc` in a folder, and return its status and what it said.

    What it builds on the way goes into the folder, and away with it; its own builds of libc stubs are always kept.

    Parameters
    ----------
    triple : str
        What to compile for, as ``"x86_64-linux-gnu.2.28"``.
    arguments : sequence of str
        Flags and files; paths are relative to the folder.
    folder : Path
        An absolute one.
    keep : bool
        Keep what it builds where the stubs are, and find it there the next time that it is the same.
    """
    kept = zig_cache(folder)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, *arguments]
    environment = os.environ | {
        "ZIG_LOCAL_CACHE_DIR": kept if keep else str(folder / "cache"),
        "ZIG_GLOBAL_CACHE_DIR": kept,
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def zig_cache(fallback: Path) -> str:
    """A folder for what Zig builds once for each target: in the user's cache, or for this run alone."""
    if folder := os.environ.get("ZIG_GLOBAL_CACHE_DIR"):
        return folder
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sparsec", "zig")
    try:
        if home.is_absolute():  # it is not where a user has no home
            home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return str(fallback / "zig")
    return str(home) if os.access(home, os.W_OK) else str(fallback / "zig")
