"""How many pairs of views a second of one core makes: SimCLR's whole recipe, beside other ways to do it.

    python benchmarks/augment.py --data tfds:cifar10 --data-dir DIR          # writes benchmarks/results/augment-cpu.md
    python benchmarks/augment.py --data npz:FILE --quick                     # fewer images and rounds, prints only
    python benchmarks/augment.py ... --torch-python PATH                     # contenders that need PyTorch run there

From uint8 images in memory to two float views of the same size: crop and resize, flip, jitter at full strength,
grayscale, blur. And from JPEG files of 500 x 375 (the same images, enlarged and compressed again) to views of 224.

Every contender is a process of its own, pinned to one core (Linux) and told to use one thread, that waits between its
turns; rounds go through all contenders in order, so that a busy machine is busy for all of them. A turn is one pass
that is not counted and then at least half a second of passes. Reported are medians over rounds of pairs of views per
CPU-second (a process's own time, all threads), with the least and the most. What is not installed is named.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contenders import pin, processor, race, serve

HERE = Path(__file__).resolve()
TORCH = ("torchvision, PIL", "torchvision v2, tensors", "lightly", "kornia", "albumentations")
# Task -> contenders -> images a turn. The first of a task is what the others are compared with.
TASKS = {
    "32": {
        "google style, tf.data": 256,
        "jaxcl, exact": 512,
        "jaxcl, fused": 512,
        "jaxcl, fused, bfloat16": 512,
        "jaxcl, host": 512,
        "dm-pix": 256,
        "torchvision, PIL": 128,
        "torchvision v2, tensors": 128,
        "lightly": 128,
        "kornia": 256,
        "albumentations": 256,
    },
    "224": {
        "google style, tf.data": 64,
        "jaxcl, exact": 64,
        "jaxcl, fused": 64,
        "jaxcl, fused, bfloat16": 64,
        "jaxcl, host": 256,
        "dm-pix": 16,
        "torchvision, PIL": 16,
        "torchvision v2, tensors": 16,
        "lightly": 32,
        "kornia": 16,
        "albumentations": 64,
    },
    "jpeg": {
        "google style, tf.data": 64,
        "jaxcl, host": 256,
        "jaxcl, host, decoding only": 256,
        "torchvision, PIL": 16,
        "albumentations": 64,
    },
}
TITLES = {
    "32": "32 x 32, uint8 in memory",
    "224": "224 x 224, uint8 in memory",
    "jpeg": "JPEG files of 500 x 375 to 224 x 224",
}


# --- contenders: (images or files, size) -> a function that makes two views of every image once, and its compile time


def jaxcl(name, images, size):
    import jax.numpy as jnp

    from jaxcl import augment

    recipe = augment.simclr(size)
    if "fused" in name:
        recipe = augment.fuse(recipe, dtype=jnp.bfloat16 if "bfloat16" in name else jnp.float32)
    return compiled(augment.two_views(recipe), images)


def compiled(views, images):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_compilation_cache", False)
    batch = {"image": jnp.asarray(images), "index": jnp.arange(len(images))}
    key = jax.random.key(0)
    start = time.process_time()
    program = jax.jit(views).lower(key, batch).compile()
    seconds = time.process_time() - start
    return lambda: jax.block_until_ready(program(key, batch)), seconds


def dm_pix(name, images, size):
    """What one writes first: pix ops and jax.image, an image at a time, under vmap."""
    import dm_pix as pix
    import jax
    import jax.numpy as jnp

    from jaxcl import augment

    box = augment.random_resized_crop(size, distribution=augment.uniform_height)

    def one(key, image):
        keys = jax.random.split(key, 12)
        crop = box.sample(keys[0], image.shape)
        scale = size / jnp.stack([crop.height, crop.width])
        start = -jnp.stack([crop.top, crop.left]) * scale
        x = image.astype(jnp.float32) / 255
        x = jax.image.scale_and_translate(x, (size, size, 3), (0, 1), scale, start, "cubic", antialias=False)
        x = pix.random_flip_left_right(keys[1], x)
        changes = [
            lambda x: x * jax.random.uniform(keys[2], (), minval=0.2, maxval=1.8),
            lambda x: pix.random_contrast(keys[3], x, 0.2, 1.8),
            lambda x: pix.random_saturation(keys[4], x, 0.2, 1.8),
            lambda x: pix.random_hue(keys[5], x, 0.2),
        ]
        jittered = x
        order = jax.random.permutation(keys[6], 4)
        for place in range(4):
            jittered = jnp.clip(jax.lax.switch(order[place], changes, jittered), 0, 1)
        x = jnp.where(jax.random.bernoulli(keys[7], 0.8), jittered, x)
        gray = jnp.broadcast_to(pix.rgb_to_grayscale(x), x.shape)
        x = jnp.clip(jnp.where(jax.random.bernoulli(keys[8], 0.2), gray, x), 0, 1)
        sigma = jax.random.uniform(keys[9], (), minval=0.1, maxval=2.0)
        blurred = pix.gaussian_blur(x, sigma, kernel_size=kernel(size), padding="SAME")
        return jnp.where(jax.random.bernoulli(keys[10], 0.5), blurred, x)

    def views(key, batch):
        keys = jax.random.split(key, (2, len(batch["image"])))
        return tuple(jax.vmap(one)(keys[view], batch["image"]) for view in range(2))

    return compiled(views, images)


def google_style(name, images, size):
    """The way of google-research/simclr's data_util.py, in tf.data: an image at a time, blur on the whole batch."""
    import tensorflow as tf

    def crop(image):
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        (top, left, _), (height, width, _) = tf.unstack(begin), tf.unstack(extent)
        image = tf.image.crop_to_bounding_box(image, top, left, height, width)
        return tf.image.resize([image], (size, size), tf.image.ResizeMethod.BICUBIC)[0]

    def jitter(image):
        def change(i, x):
            def first():
                return tf.cond(
                    i < 1,
                    lambda: x * tf.random.uniform([], 0.2, 1.8),
                    lambda: tf.image.random_contrast(x, 0.2, 1.8),
                )

            def second():
                return tf.cond(
                    i < 3,
                    lambda: tf.image.random_saturation(x, 0.2, 1.8),
                    lambda: tf.image.random_hue(x, 0.2),
                )

            return tf.cond(i < 2, first, second)

        order = tf.random.shuffle(tf.range(4))
        for place in range(4):
            image = tf.clip_by_value(change(order[place], image), 0.0, 1.0)
        return image

    def sometimes(probability, function, x):
        return tf.cond(tf.random.uniform([]) < probability, lambda: function(x), lambda: x)

    def view(image):
        x = crop(image)
        x = tf.image.random_flip_left_right(x)
        x = sometimes(0.8, jitter, x)
        x = sometimes(0.2, lambda x: tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(x)), x)
        return tf.clip_by_value(tf.reshape(x, (size, size, 3)), 0.0, 1.0)

    def blur(x):
        radius = size // 10 // 2
        sigma = tf.random.uniform([], 0.1, 2.0)
        taps = tf.exp(-(tf.range(-radius, radius + 1, dtype=tf.float32) ** 2) / (2 * sigma**2))
        taps = taps / tf.reduce_sum(taps)
        y = x
        for shape in ((-1, 1), (1, -1)):
            kernel = tf.tile(tf.reshape(taps, (*shape, 1, 1)), (1, 1, 3, 1))
            y = tf.nn.depthwise_conv2d(y, kernel, (1, 1, 1, 1), "SAME")
        return tf.where(tf.random.uniform((tf.shape(x)[0], 1, 1, 1)) < 0.5, y, x)

    def pair(image):
        if image.dtype == tf.string:
            image = tf.io.decode_jpeg(image, channels=3)
        image = tf.image.convert_image_dtype(image, tf.float32)
        return view(image), view(image)

    rows = tf.data.Dataset.from_tensor_slices(images).repeat().map(pair)
    return drained(
        rows.batch(64, drop_remainder=True).map(lambda a, b: (blur(a), blur(b))), len(images) // 64
    )


def drained(batches, turns):
    """A function that takes `turns` batches of a tf.data pipeline, on one thread."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    iterator = iter(batches.with_options(options).as_numpy_iterator())

    def once():
        for _ in range(turns):
            next(iterator)

    return once, None


def task_of(images, size):
    return "jpeg" if isinstance(images, Path) else str(size)


def jaxcl_host(name, images, size):
    from jaxcl import augment, data

    if isinstance(images, Path):
        source = data.find_images(f"folder:{images}", "train")
    else:
        source = data.from_arrays(images, name="benchmark")
    if "decoding" in name:
        start = data.host_images(source, 256, threads=1)
    else:
        start = data.host_views(source, augment.simclr(size), threads=1)
    batches = start(batch_size=64, seed=0)

    def once():
        for _ in range(TASKS[task_of(images, size)][name] // 64):
            next(batches)

    return once, None


def kernel(size):
    return 2 * (size // 20) + 1


def torch_by_image(transform, images, to_image):
    def once():
        for image in images:
            image = to_image(image)
            transform(image), transform(image)

    return once, None


def torchvision_pil(name, images, size):
    from torchvision import transforms as T

    steps = [
        T.RandomResizedCrop(size, scale=(0.08, 1.0), interpolation=T.InterpolationMode.BICUBIC),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
        T.RandomGrayscale(0.2),
        T.RandomApply([T.GaussianBlur(kernel(size), (0.1, 2.0))], 0.5),
        T.ToTensor(),
    ]
    return torch_by_image(T.Compose(steps), images, pil)


def pil(image):
    from PIL import Image

    return (
        Image.open(io.BytesIO(image)).convert("RGB") if isinstance(image, bytes) else Image.fromarray(image)
    )


def torchvision_v2(name, images, size):
    import torch
    from torchvision.transforms import v2 as T

    steps = [
        T.RandomResizedCrop(
            size, scale=(0.08, 1.0), interpolation=T.InterpolationMode.BICUBIC, antialias=True
        ),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
        T.RandomGrayscale(0.2),
        T.RandomApply([T.GaussianBlur(kernel(size), (0.1, 2.0))], 0.5),
        T.ToDtype(torch.float32, scale=True),
    ]
    return torch_by_image(
        T.Compose(steps), images, lambda x: torch.from_numpy(x).permute(2, 0, 1).contiguous()
    )


def lightly(name, images, size):
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(input_size=size, normalize=None)

    def once():
        for image in images:
            transform(pil(image))

    return once, None


def kornia(name, images, size):
    import torch
    from kornia import augmentation as K

    steps = torch.nn.Sequential(
        K.RandomResizedCrop((size, size), scale=(0.08, 1.0), resample="BICUBIC", cropping_mode="resample"),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((kernel(size), kernel(size)), (0.1, 2.0), p=0.5),
    )

    def once():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            steps(torch.cat([x, x]))

    return once, None


def albumentations(name, images, size):
    import albumentations as A
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    steps = [
        A.RandomResizedCrop(size=(size, size), scale=(0.08, 1.0), interpolation=cv2.INTER_CUBIC),
        A.HorizontalFlip(),
        A.ColorJitter((0.2, 1.8), (0.2, 1.8), (0.2, 1.8), (-0.2, 0.2), p=0.8),
        A.ToGray(p=0.2),
        A.GaussianBlur(blur_limit=(kernel(size), kernel(size)), sigma_limit=(0.1, 2.0), p=0.5),
    ]
    transform = A.Compose(steps)

    def once():
        for image in images:
            if isinstance(image, bytes):
                image = cv2.cvtColor(
                    cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
                )
            for _ in range(2):
                transform(image=image)["image"].astype(np.float32) / 255

    return once, None


BUILDERS = {
    "dm-pix": dm_pix,
    "google style, tf.data": google_style,
    "torchvision, PIL": torchvision_pil,
    "torchvision v2, tensors": torchvision_v2,
    "lightly": lightly,
    "kornia": kornia,
    "albumentations": albumentations,
    "jaxcl, host": jaxcl_host,
    "jaxcl, host, decoding only": jaxcl_host,
    "jaxcl, exact": jaxcl,
    "jaxcl, fused": jaxcl,
    "jaxcl, fused, bfloat16": jaxcl,
}


# --- one process a contender ----------------------------------------------------------------------------------------


def work(task, name, folder, core):
    pin(core)
    import numpy as np

    n, size = TASKS[task][name], 32 if task == "32" else 224
    if task == "jpeg":
        files = sorted((folder / "train").glob("*.jpg"))
        # Ours reads files as they lie; the others get what is in them.
        images = (
            folder / "train" if "host" in name else [files[i % len(files)].read_bytes() for i in range(n)]
        )
    else:
        images = np.load(folder / f"{task}.npy")[:n]
    if name in TORCH:
        import torch

        torch.set_num_threads(1)
        declare_compiled_ops(torch)
    once, compile_seconds = BUILDERS[name](name, images, size)
    once()
    start = time.process_time()
    once()
    repeats = math.ceil(0.5 / max(time.process_time() - start, 1e-3))

    def often():
        for _ in range(repeats):
            once()

    # Warmed up each time: after a pause nothing is in the cache, and a pipeline has batches in store.
    serve({"compile": compile_seconds, "images": n * repeats}, often, warm=once)


def declare_compiled_ops(torch):
    """torchvision wants its compiled ops to exist when it is imported, also where only the transforms are used."""
    real = torch.library.register_fake

    def only_of_others(name, *arguments, **more):
        return (lambda f: f) if str(name).startswith("torchvision::") else real(name, *arguments, **more)

    torch.library.register_fake = only_of_others
    import torchvision  # noqa: F401

    torch.library.register_fake = real


def measure(task, names, folder, rounds, core, torch_python):
    """name -> {"compile": s, "images": n, "cpu": [s], "wall": [s]} or the reason why there is none."""

    def command(name):
        python = torch_python if name in TORCH else sys.executable
        return [python, str(HERE), "--worker", task, name, str(folder), "--core", str(core)]

    return race(
        {name: command(name) for name in names},
        rounds,
        TF_CPP_MIN_LOG_LEVEL="3",
        TF_NUM_INTRAOP_THREADS="1",
        NO_ALBUMENTATIONS_UPDATE="1",
    )


def table(task, results):
    def rate(name):
        return results[name]["images"] / statistics.median(results[name]["cpu"])

    def times(name, other):
        found = isinstance(results.get(other), dict)
        return f"{rate(name) / rate(other):.1f}" if found else "-"

    lines = [f"## {TITLES[task]}", ""]
    lines += [
        "| | pairs of views per CPU-second | least to most | google style: 1 | torchvision, PIL: 1 | compile, CPU s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, result in results.items():
        if isinstance(result, str):
            lines.append(f"| {name} | - | - | - | - | {result} |")
            continue
        n = result["images"]
        spread = f"{n / max(result['cpu']):,.0f} to {n / min(result['cpu']):,.0f}"
        ratios = f"{times(name, 'google style, tf.data')} | {times(name, 'torchvision, PIL')}"
        compile_seconds = "" if result["compile"] is None else f"{result['compile']:.1f}"
        lines.append(f"| {name} | {rate(name):,.0f} | {spread} | {ratios} | {compile_seconds} |")
    return "\n".join([*lines, ""])


# --- what they work on ------------------------------------------------------------------------------------------------


def prepare(folder, dataset, data_dir):
    """Writes 32.npy, 224.npy and 256 JPEG files; a line that says what they are."""
    import numpy as np
    from PIL import Image

    from jaxcl import data

    images = data.load(dataset, "test", data_dir=data_dir).images
    images = images[np.arange(512) % len(images)]
    if images.shape[3] == 1:
        images = np.repeat(images, 3, axis=3)

    def resized(image, size):
        return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)

    np.save(folder / "32.npy", np.stack([np.asarray(resized(image, (32, 32))) for image in images]))
    np.save(folder / "224.npy", np.stack([np.asarray(resized(image, (224, 224))) for image in images[:64]]))
    (folder / "train").mkdir()
    sizes = []
    for i, image in enumerate(images[:256]):
        path = folder / "train" / f"{i:04}.jpg"
        resized(image, (500, 375)).save(path, quality=90)
        sizes.append(path.stat().st_size)
    return f"{dataset}; the JPEG files have {np.mean(sizes) / 1024:.0f} KiB on average"


PACKAGES = ("jax", "tensorflow-cpu", "tensorflow", "dm-pix", "torch", "torchvision", "lightly", "kornia")
PACKAGES += ("albumentations", "opencv-python-headless", "pillow")


def versions(python):
    """What an interpreter has."""
    program = (
        "import json, sys, platform\nfrom importlib import metadata\nfound = {'python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n    try: found[name] = metadata.version(name)\n"
        "    except metadata.PackageNotFoundError: pass\nprint(json.dumps(found))"
    )
    out = subprocess.run(
        [python, "-c", program, *PACKAGES], capture_output=True, text=True, check=True
    ).stdout
    return ", ".join(f"{name} {version}" for name, version in json.loads(out).items())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="tfds:cifar10", help="where the images come from")
    parser.add_argument("--data-dir")
    parser.add_argument("--quick", action="store_true", help="three rounds, printed only")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--only", nargs="+", help="these contenders only")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--core", type=int, default=0, help="the core to pin to; -1 for none")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="an interpreter for what needs PyTorch"
    )
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "augment-cpu.md")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        task, name, folder = options.worker
        return work(task, name, Path(folder), options.core)
    rounds, started = 3 if options.quick else options.rounds, time.time()
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        about = prepare(Path(folder), options.data, options.data_dir)
        for task in options.tasks:
            names = [name for name in TASKS[task] if options.only is None or name in options.only]
            results = measure(task, names, folder, rounds, options.core, options.torch_python)
            tables.append(table(task, results))
    text = "\n".join(
        [
            "# Augmentation on a CPU",
            "",
            f"- command: `python benchmarks/augment.py --data {options.data} --rounds {rounds}`",
            f"- device: {processor()}, one core of {os.cpu_count()}, {platform.system()}",
            f"- {versions(sys.executable)}",
            f"- for what needs PyTorch: {versions(options.torch_python)}",
            f"- images: {about}",
            f"- {time.strftime('%Y-%m-%d')}, {(time.time() - started) / 60:.0f} minutes; medians of {rounds} rounds",
            "",
            *tables,
        ]
    )
    print(text)
    if not options.quick:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


if __name__ == "__main__":
    main()
