"""What a compiled program does on one device, read from its text: how many operations, and how much memory between.

    cost(jax.jit(f).lower(x).compile())      # Cost(products=..., others=..., temporaries=...)

Nothing is run. XLA's own count (`compiled.cost_analysis()`) takes the body of a loop once, however often it is run,
and some back ends give none; here a loop counts as many times as the compiler knows it to be run. Under a mesh the
text is the program of one device.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np

from jaxcl.hlo import Computations, Instruction, called, read, shape, trips


class Cost(NamedTuple):
    """What one device does and needs.

    products      FLOPs of matrix products and convolutions: two for each number that is multiplied and added. What
                  only meets padding, or holes between strides, is not counted
    others        one for each entry of the result of any other arithmetic, of floats and of integers; for each entry
                  that is summed; m log2 m to sort m entries. What only moves numbers is not counted, nor what a
                  library does (a QR decomposition)
    temporaries   bytes that the compiler plans for beside arguments and results
    """

    products: float
    others: float
    temporaries: int

    @property
    def operations(self) -> float:
        return self.products + self.others

    def __sub__(self, other: Any) -> Cost:  # by entries
        return Cost(*(a - b for a, b in zip(self, other, strict=True)))


def cost(compiled: Any) -> Cost:
    """Of what `jax.jit(...).lower(...).compile()` returns.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.ones((8, 16))
    >>> program = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda i, y: (y @ x.T) @ x, x)).lower(x).compile()
    >>> cost(program).products == 5 * 2 * (2 * 8 * 8 * 16)
    True
    """
    computations, entry = read(compiled.as_text())
    products, others = counted(computations, entry, {})
    return Cost(products, others, compiled.memory_analysis().temp_size_in_bytes)


# What moves numbers, or holds them, or names them.
IDLE = frozenset(
    """parameter constant tuple get-tuple-element bitcast bitcast-convert copy broadcast reshape transpose slice reverse
    dynamic-slice dynamic-update-slice concatenate pad iota gather scatter convert all-gather all-reduce all-to-all
    reduce-scatter collective-permute collective-broadcast partition-id replica-id custom-call after-all opt-barrier
    optimization-barrier infeed outfeed domain add-dependency get-dimension-size""".split()
)


def counted(
    computations: Computations, name: str, known: dict[str, tuple[float, float]]
) -> tuple[float, float]:
    """(products, others) of a computation and of all that it calls, as often as it does."""
    if name not in known:
        types = {each.name: each.type for each in computations[name]}
        sums = np.zeros(2)
        for each in computations[name]:
            within = [np.array(counted(computations, other, known)) for _, other in called(each)]
            if each.operation == "while":
                sums += trips(each, computations) * sum(within)
            elif each.operation == "conditional":
                sums += max(within, key=sum)
            elif within:
                sums += sum(within)
            else:
                sums += alone(each, [shape(types[operand]) for operand in each.operands if operand in types])
        known[name] = (float(sums[0]), float(sums[1]))
    return known[name]


def alone(each: Instruction, operands: list[tuple[int, ...]]) -> np.ndarray:
    """(products, others) of an instruction that calls no other."""
    made = math.prod(shape(each.type))
    if each.operation == "dot":
        dimensions = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.rest)
        summed = [operands[0][int(i)] for i in dimensions[1].split(",") if i] if dimensions else []
        return np.array([2.0 * made * math.prod(summed), 0])
    if each.operation == "convolution":
        return np.array([convolution(each, *operands[:2]), 0])
    if each.operation in IDLE or each.operation.endswith(("-start", "-update", "-done")):
        return np.zeros(2)
    if each.operation in ("reduce", "select-and-scatter"):
        return np.array([0, float(math.prod(operands[0]))])
    if each.operation == "reduce-window":
        return np.array([0, float(made * math.prod(window(each, "size", 0)))])
    if each.operation == "sort":
        along = re.search(r"dimensions=\{(\d+)", each.rest)
        length = operands[0][int(along[1])] if along else made
        return np.array([0, made * math.log2(max(length, 2))])
    return np.array([0, float(made)])


def window(each: Instruction, setting: str, dimensions: int, *, default: str = "1") -> list[Any]:
    """A setting of `window={size=3x3 stride=2x2 pad=1_1x1_1}`, a dimension a number; pads come as (low, high)."""
    found = re.search(rf"window=\{{[^}}]*\b{setting}=([\d_x\-]+)", each.rest)
    words = found[1].split("x") if found else [default] * dimensions
    return [tuple(map(int, word.split("_"))) if "_" in word else int(word) for word in words]


def convolution(each: Instruction, image: tuple[int, ...], kernel: tuple[int, ...]) -> float:
    """FLOPs: two for each entry of the result, entry of the kernel it sees, and number it meets there."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", each.rest)
    assert labels is not None, each
    of_image, of_kernel, of_result = labels.groups()
    spatial = [label for label in of_kernel if label.isdigit()]
    made, n = shape(each.type), len(spatial)
    settings = zip(
        spatial,
        window(each, "size", n),
        window(each, "stride", n),
        window(each, "pad", n, default="0_0"),
        window(each, "lhs_dilate", n),
        window(each, "rhs_dilate", n),
        strict=True,
    )
    pairs = 1
    for label, size, stride, (low, _), spread, holes in settings:
        length = (image[of_image.index(label)] - 1) * spread + 1
        first = np.arange(made[of_result.index(label)])[:, None] * stride - low
        place = first + np.arange(size) * holes
        pairs *= int(np.sum((place >= 0) & (place < length) & (place % spread == 0)))
    others = [made[of_result.index(label)] for label in "bf"]
    return 2.0 * math.prod(others) * kernel[of_kernel.index("i")] * pairs
