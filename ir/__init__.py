"""Layouts, operators and kernels: the sparse intermediate representation."""

if __name__ != "sparsec.ir":
    raise ImportError(
        "import this package as 'sparsec.ir'; a second copy under another name would duplicate every class"
    )
