"""From a plan, through LLVM and a linker, to one shared library."""
