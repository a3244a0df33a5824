"""Random chains of operators: scheduled, they compute what their unscheduled loops compute."""

import random

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op

from tests.schedules.relax_groups import NATIVE, TWO_CORES, Kernel, compiled, group, normal


def sizes(x):
    return [int(d) for d in x.ty.shape]


def centre(emit, x, axes, reduce):
    return emit(op.subtract(x, emit(reduce(x, axis=axes, keepdims=True))))


def strided(emit, x, rng):
    axis = rng.randrange(len(sizes(x)))
    if sizes(x)[axis] < 3:
        return x
    return emit(op.strided_slice(x, [axis], [1], [sizes(x)[axis]], [rng.choice([1, 2, 3])]))


STEPS = {
    "scale by another": lambda emit, x, rng, others: emit(op.multiply(x, rng.choice(others))),
    "gelu": lambda emit, x, rng, others: emit(op.nn.gelu(x)),
    "exp of tanh": lambda emit, x, rng, others: emit(op.exp(emit(op.tanh(x)))),
    "centre": lambda emit, x, rng, others: centre(emit, x, sorted(rng.sample(range(len(sizes(x))), 1)), op.mean),
    "below the largest": lambda emit, x, rng, others: centre(emit, x, list(range(len(sizes(x)))), op.max),
    "softmax": lambda emit, x, rng, others: emit(op.nn.softmax(x, axis=rng.randrange(len(sizes(x))))),
    "permute": lambda emit, x, rng, others: emit(op.permute_dims(x, rng.sample(range(len(sizes(x))), len(sizes(x))))),
    "pad": lambda emit, x, rng, others: emit(op.nn.pad(x, [1, 2] * len(sizes(x)))),
    "slice": lambda emit, x, rng, others: strided(emit, x, rng),
    "concat": lambda emit, x, rng, others: emit(op.concat([x, x], axis=rng.randrange(len(sizes(x))))),
}


@pytest.mark.parametrize("seed", range(24))
def test_random_chain(seed):
    rng = random.Random(seed)
    shape = [rng.choice([1, 2, 3, 5, 16, 17, 33, 40]) for _ in range(rng.randint(1, 4))]
    names = [rng.choice(sorted(STEPS)) for _ in range(rng.randint(2, 6))]

    def build(emit, x, row):
        outputs = []
        for name in names:
            fitting = [x, row] if sizes(x)[-1] == shape[-1] else [x]
            x = STEPS[name](emit, x, rng, fitting)
            if rng.random() < 0.2:
                outputs.append(x)
        return relax.Tuple([*outputs, emit(op.add(x, x))])

    func = group(build, shape, shape[-1:])
    inputs = [normal(*shape, seed=seed), normal(shape[-1], seed=seed)]
    outputs = [np.empty([int(d) for d in p.shape], "float32") for p in func.params[2:]]
    plain = Kernel(tvm.compile(tvm.IRModule({"main": func}), target=NATIVE.tvm()))
    for got, want in zip(compiled(func, TWO_CORES)(inputs, *outputs), plain(inputs, *outputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=f"{shape}: {names}")
