"""The kernels in tests/golden/ir, by name."""

from pathlib import Path

TEXTS = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((Path(__file__).parent.parent / "golden" / "ir").glob("*.kernel"))
}
