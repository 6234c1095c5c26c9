"""What flax's own ImageNet example accesses in a training step, compiled for a machine that is not there: what the
bytes of ours are measured by.

    git clone https://github.com/google/flax FLAX
    python benchmarks/flax_example.py FLAX --machine tpu-v5e-1 --images 128        # a device; needs jaxcl[tpu]

Its `train.py` as it stands: a ResNet-50 of 1,000 classes in bfloat16, batch norm over the axis, SGD with momentum,
images of 224 pixels that the host has cut. Its modules that read data and write logs are left out, as nothing is run.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from traffic import table

READ_OR_LOG = ("absl", "clu", "input_pipeline", "ml_collections", "tensorflow", "tensorflow_datasets")


def its_train(flax: Path) -> Any:
    folder = flax / "examples" / "imagenet"
    if not (folder / "train.py").exists():
        raise SystemExit(f"{folder} has no train.py; give a clone of https://github.com/google/flax.")
    sys.path.insert(0, str(folder))
    importlib.import_module("flax.training.checkpoints")  # looks for tensorflow itself
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in READ_OR_LOG}):
        return importlib.import_module("train")


def traced_step(train: Any, machine: Any, images: int) -> Any:
    """Its step on each device's images, under an axis as it names it."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    rate = train.create_learning_rate_fn(
        SimpleNamespace(warmup_epochs=5.0, num_epochs=100.0), 0.1 * images * len(machine.devices) / 256, 1251
    )
    model = train.models.ResNet50(num_classes=train.NUM_CLASSES, dtype=jnp.bfloat16)
    # Where it asks for the platform it sees the machine that traces, a CPU, for which it scales no loss: as for a TPU.
    half = SimpleNamespace(momentum=0.9, half_precision=True)
    state = jax.eval_shape(
        lambda key: train.create_train_state(key, half, model, 224, rate), jax.random.key(0)
    )
    mesh = jax.make_mesh((len(machine.devices),), ("batch",), devices=machine.devices)
    whole, rows = PartitionSpec(), PartitionSpec("batch")

    def placed(tree: Any, where: PartitionSpec) -> Any:
        sharding = NamedSharding(mesh, where)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    n = images * len(machine.devices)
    batch = {
        "image": jax.ShapeDtypeStruct((n, 224, 224, 3), jnp.bfloat16),
        "label": jax.ShapeDtypeStruct((n,), jnp.int32),
    }
    step = jax.shard_map(
        partial(train.train_step, learning_rate_fn=rate),
        mesh=mesh,
        in_specs=(whole, rows),
        out_specs=whole,
        check_vma=False,  # as under pmap, which it is written for
    )
    return jax.jit(step, donate_argnums=0).trace(placed(state, whole), placed(batch, rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("flax", type=Path, help="a clone of flax")
    parser.add_argument("--machine", default="tpu-v5e-1")
    parser.add_argument("--images", type=int, default=128, help="of a device")
    given = parser.parse_args()
    from jaxcl import machines, plan, programs

    machine = machines.described(given.machine)
    start = time.perf_counter()
    compiled, needed = plan.compile_for(
        traced_step(its_train(given.flax), machine, given.images), machine, []
    )
    if compiled is None:
        parser.error(f"it needs {needed} bytes a device, which are more than there are; lower --images")
    costs, memory = compiled.cost_analysis() or {}, programs.memory(compiled)
    print(f"{given.machine}, {given.images} images a device, {time.perf_counter() - start:.0f} s to compile")
    if "bytes accessed" in costs:
        told = costs["bytes accessed"]
        print(
            f"{told / 1e9:.1f} GB, {told / given.images / 1e6:.1f} MB an image, by the compiler's own count"
        )
        print(f"{costs['flops'] / 1e12:.2f} TFLOP")
    print(f"{memory['temporary_bytes'] / 1e9:.2f} GB of temporaries")
    print("\n".join(table(compiled.as_text(), given.images)))


if __name__ == "__main__":
    main()
