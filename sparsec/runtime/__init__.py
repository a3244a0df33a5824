"""Loads and runs artifacts with NumPy alone: nothing here imports TVM or the compiler."""
