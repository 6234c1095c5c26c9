"""How many pairs of views a second of one core makes: SimCLR's whole recipe, beside other ways to do it.

    python benchmarks/augment.py --data tfds:cifar10 --data-dir DIR          # writes benchmarks/results/augment-cpu.md
    python benchmarks/augment.py --data npz:FILE --quick                     # fewer images and rounds, prints only
    python benchmarks/augment.py ... --torch-python PATH                     # contenders that need PyTorch run there
    python benchmarks/augment.py --data textures --kib 110 --quick --tasks jpeg --only "jaxcl, host" \
        "jaxcl, host, decoding only"                                         # files as large as ImageNet's

From uint8 images in memory to two float views of the same size: crop and resize, flip, jitter at full strength,
grayscale, blur. And from JPEG files of 500 x 375 (the same images, enlarged and compressed again) to views of 224.
`--data textures` are drawn: a random sky of clouds of all sizes, whose amplitude falls with the frequency as that of
photographs; compressed so that files have `--kib` on average.

Every contender is a process of its own, pinned to one core (Linux) and told to use one thread, that waits between its
turns; rounds go through all contenders in order, so that a busy machine is busy for all of them. A turn is one pass
that is not counted and then at least half a second of passes. Reported are medians over rounds of pairs of views per
CPU-second (a process's own time, all threads), with the least and the most. What is not installed is named.
"""

from __future__ import annotations

import argparse
import bisect
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from augment_contenders import BUILDERS, TASKS
from contenders import pin, processor, race, serve

HERE = Path(__file__).resolve()
TORCH = ("torchvision, PIL", "torchvision v2, tensors", "lightly", "kornia", "albumentations")
TITLES = {
    "32": "32 x 32, uint8 in memory",
    "224": "224 x 224, uint8 in memory",
    "jpeg": "JPEG files of 500 x 375 to 224 x 224",
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


def textures(count):
    """uint8 [count, 375, 500, 3]: noise whose amplitude is the inverse of the frequency, mostly gray."""
    import numpy as np

    rng, shape = np.random.default_rng(0), (375, 500)
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    frequency[0, 0] = np.inf  # no mean
    made = []
    for _ in range(count):
        gray, *colors = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(4, *shape))) / frequency, s=shape)
        image = gray[..., None] + 0.4 * np.stack(colors, axis=-1)
        made.append(np.clip(128 + 55 * image / image.std(), 0, 255).astype(np.uint8))
    return np.stack(made)


def prepare(folder, dataset, data_dir, kib=None):
    """Writes 32.npy, 224.npy and 256 JPEG files; a line that says what they are."""
    import numpy as np
    from PIL import Image

    from jaxcl import data

    drawn = dataset == "textures"
    images = textures(64) if drawn else data.load(dataset, "test", data_dir=data_dir).images
    images = images[np.arange(512) % len(images)]
    if images.shape[3] == 1:
        images = np.repeat(images, 3, axis=3)

    def resized(image, size):
        return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)

    np.save(folder / "32.npy", np.stack([np.asarray(resized(image, (32, 32))) for image in images]))
    np.save(folder / "224.npy", np.stack([np.asarray(resized(image, (224, 224))) for image in images[:64]]))
    (folder / "train").mkdir()

    def written(image, path, quality):
        resized(image, (500, 375)).save(path, quality=quality)
        return path.stat().st_size / 1024

    def average(quality):
        return np.mean([written(image, folder / "tried.jpg", quality) for image in images[:8]])

    # The least quality that makes files so large.
    quality = 90 if kib is None else bisect.bisect_left(range(1, 100), kib, key=average) + 1
    sizes = [
        written(image, folder / "train" / f"{i:04}.jpg", quality) for i, image in enumerate(images[:256])
    ]
    return f"{dataset}; the JPEG files have {np.mean(sizes):.0f} KiB on average (quality {quality})"


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
    parser.add_argument("--data", default="tfds:cifar10", help="where the images come from, or textures")
    parser.add_argument("--data-dir")
    parser.add_argument("--kib", type=float, help="size of the JPEG files; without it, that of quality 90")
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
        about = prepare(Path(folder), options.data, options.data_dir, options.kib)
        for task in options.tasks:
            names = [name for name in TASKS[task] if options.only is None or name in options.only]
            results = measure(task, names, folder, rounds, options.core, options.torch_python)
            tables.append(table(task, results))
    text = "\n".join(
        [
            "# Augmentation on a CPU",
            "",
            f"- command: `python benchmarks/augment.py {shlex.join(sys.argv[1:])}`, {rounds} rounds",
            f"- device: {processor()}, one core of {os.cpu_count()}, {platform.system()}",
            f"- {versions(sys.executable)}",
            f"- for what needs PyTorch: {versions(options.torch_python)}",
            f"- images: {about}",
            f"- {time.strftime('%Y-%m-%d')}, {(time.time() - started) / 60:.0f} minutes; medians of {rounds} rounds",
            "",
            *tables,
        ]
    )
    print(text, f"load {os.getloadavg()[0]:.1f}", sep="\n")
    if not options.quick:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


if __name__ == "__main__":
    main()
