"""Eight pretend devices for every test, and programs compiled quickly and kept; set before jax starts."""

import dataclasses
import gc
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("JAX_PLATFORMS", "cpu")
flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# Most of the suite's time would be compiling: the same small programs again, and into better machine code than a test
# that runs once needs. With the second set to 0 they are compiled as a user's are (`make test-slow` does so).
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")


# The secret by which one's own runs are known is the suite's own.
os.environ["XDG_STATE_HOME"] = str(Path(__file__).parents[1] / ".pytest_cache" / "state")

# jax keeps millions of small objects that live as long as the suite: they are looked through less often.
gc.set_threshold(50_000, 20, 50)


def pytest_sessionfinish():
    gc.freeze()  # pytest looks through all that is left several times


def teacher(folder, data):
    """A run directory of the config of supervised learning, saved before its first step."""
    from jaxcl.config import load_config, open_data
    from jaxcl.keys import init_key
    from jaxcl.runs import create_or_resume
    from jaxcl.train import checkpoint, init_state
    from jaxcl.train.state import blank_batch

    where, path = folder / "teacher", Path(__file__).parents[1] / "configs" / "supervised.py"
    if not where.exists():
        config = load_config(path)
        knobs = config.Knobs(data=data, batch_size=16, features=(4, 4))
        about = open_data(config, knobs).about
        create_or_resume(where, path, knobs, about)
        recipe = config.recipe(knobs, about)
        state = init_state(init_key(0), recipe.method, recipe.optimizer, blank_batch(about))
        checkpoint.save(where / "checkpoints", 1, state)
    return str(where)


@pytest.fixture(scope="session")
def drawn():
    """(init, *its arguments) -> a tree as init gives it, of other numbers.

    What init draws takes XLA a second to compile; here it is traced for its shapes. Kernels are normal with a variance
    of 1 / fan in, other matrices (queues, banks) have rows of length 1, scales and variances are 1, all else is 0.
    """
    import jax  # once the settings above are made
    import jax.numpy as jnp

    def draw(init, *arguments):
        rng = np.random.default_rng(0)

        def leaf(path, of):
            name = jax.tree_util.keystr(path[-1:], simple=True)
            if name in ("scale", "var"):
                return jnp.asarray(np.ones(of.shape, of.dtype))
            if len(of.shape) < 2 or name in ("bias", "mean") or not jnp.issubdtype(of.dtype, jnp.floating):
                return jnp.asarray(np.zeros(of.shape, of.dtype))
            x = rng.normal(size=of.shape)
            length = (
                np.sqrt(np.prod(of.shape[:-1]))
                if name == "kernel"
                else np.linalg.norm(x, axis=-1, keepdims=True)
            )
            return jnp.asarray(x / length, of.dtype)

        return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init, *arguments))

    return draw


@pytest.fixture(scope="session")
def small_knobs(tmp_path_factory):
    """A config's Knobs -> those of them that make its recipe small: few images at a time, and few of them.

    64 images of 32 x 32 x 3, and of 28 x 28 x 1, of 10 classes; and 64 JPEGs of many sizes, of 3 classes.
    """
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, shape in {"color": (32, 32, 3), "gray": (28, 28, 1)}.items():
        images, labels = rng.integers(0, 256, (64, *shape), np.uint8), np.arange(64) % 10
        np.savez(
            folder / f"{name}.npz",
            train_images=images,
            train_labels=labels,
            test_images=images,
            test_labels=labels,
        )
    for i in range(64):
        path = folder / "photos" / ("train" if i % 2 else "test") / str(i % 3) / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 30 + i, 3), np.uint8)).save(path)
    color, gray = f"npz:{folder / 'color'}.npz", f"npz:{folder / 'gray'}.npz"
    sources = {"mnist": gray, "imagenet": f"folder:{folder / 'photos'}"}

    def knobs_of(knobs):
        has = {field.name: field.default for field in dataclasses.fields(knobs)}
        source = next((where for name, where in sources.items() if name in has["data"]), color)
        small = {"data": source, "batch_size": 16, "train_canvases": 64, "test_canvases": 32}
        if has["encoded"]:
            small |= {"size": 32}
        if "teacher" in has:
            small |= {"teacher": teacher(folder, color)}
        if isinstance(has.get("digits"), str):
            small |= {"digits": gray}
        return {name: value for name, value in small.items() if name in has}

    return knobs_of
