"""The full SimCLR training step (augmentation, ResNet-18 with the CIFAR stem, NT-Xent, SGD) beside PyTorch's.

    python benchmarks/step.py [--batch 512] [--rounds 5] [--dtype bfloat16|float32] [--torch-python PYTHON]

Each contender lives in a process of its own and runs one round when its turn comes, so that both see the same weather
on a noisy machine. `--torch-python` names an interpreter that has PyTorch, if this one has not. The table is printed
and written to benchmarks/results/step-DEVICE.md: images/s (two views each), the ratio, seconds to compile, and the
fraction of this machine's measured matmul rate that the convolutions' arithmetic comes to.

PyTorch runs channels-last, under autocast where the type is bfloat16, through torch.compile, with the same recipe
written as batched tensor operations on the device (one order of the colour operations a batch: less work than ours).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

CLASSES = 4096  # images to choose batches from


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# --- contenders: each returns (about, run) where run() does one step and waits for it -------------------------------


def jax_contender(batch, dtype):
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxcl import augment, devices, nets
    from jaxcl.losses import keyless, nt_xent
    from jaxcl.methods import simclr
    from jaxcl.train import init_state, make_step, optim, placement

    dtype = jnp.dtype(dtype)
    encoder = nets.resnet(18, stem="cifar", norm=nets.batch_norm(), dtype=dtype)
    method = simclr(
        views=augment.two_views(augment.simclr(32, strength=0.5, blur=False)),
        encoder=encoder,
        head=nets.projection_head(layers=2, out=128, norm=nets.batch_norm()),
        loss=keyless(nt_xent, temperature=0.5),
    )
    optimizer = optim.sgd(0.12, momentum=0.9, weight_decay=5e-4)
    mesh = devices.make_mesh(devices=1)
    step = placement.place(make_step(method, optimizer), "jit", mesh)
    images = np.random.default_rng(0).integers(0, 256, (CLASSES, 32, 32, 3), dtype=np.uint8)

    def make_batch(i):
        index = (np.arange(batch, dtype=np.int32) + i * batch) % CLASSES
        return devices.split({"image": images[index], "index": index}, mesh)

    key = jax.random.key(0)
    state = devices.replicate(init_state(key, method, optimizer, make_batch(0)), mesh)
    key = devices.replicate(key, mesh)
    start = time.perf_counter()
    compiled = step.lower(state, key, make_batch(0)).compile()
    compile_seconds = time.perf_counter() - start
    forward = jax.jit(lambda params, x: encoder.apply(params, state.state["encoder"], x, train=False)[0][-1])
    flops = forward.lower(state.params["encoder"], jnp.zeros((1, 32, 32, 3))).cost_analysis()["flops"]

    carry = {"state": state, "i": 0}

    def run():
        carry["state"], metrics = compiled(carry["state"], key, make_batch(carry["i"]))
        carry["i"] += 1
        return float(metrics["loss"])

    m = 8192 if jax.default_backend() == "gpu" else 2048
    a = jnp.ones((m, m), jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32)
    product = jax.jit(lambda a: a @ a)

    def matmul_rate():
        product(a).block_until_ready()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            product(a).block_until_ready()
            times.append(time.perf_counter() - start)
        return 2 * m**3 / min(times)

    about = {
        "name": f"jaxcl, jax {jax.__version__}",
        "device": jax.devices()[0].device_kind,
        "compile_seconds": compile_seconds,
        # a backward pass is twice a forward one, and an image has two views
        "flops_per_image": 3 * 2 * flops,
        "temporaries_mib": compiled.memory_analysis().temp_size_in_bytes / 2**20,
    }
    return about, run, matmul_rate


def torch_contender(batch, dtype):
    import torch
    from accelerator_phases import peers

    device = peers.device()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    net = peers.with_head(*peers.resnet(18, stem="cifar"))
    net = net.to(device, memory_format=torch.channels_last)
    step = peers.training_step(
        net, peers.by_hand, 32, temperature=0.5, amp=dtype == "bfloat16", blur=False, compile="inductor"
    )
    images = torch.randint(0, 256, (CLASSES, 32, 32, 3), dtype=torch.uint8)
    carry = {"i": 0}

    def run():
        index = (torch.arange(batch) + carry["i"] * batch) % CLASSES
        carry["i"] += 1
        return float(step(images[index].to(device, non_blocking=True)))

    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    start = time.perf_counter()
    run()
    about = {
        "name": f"PyTorch {torch.__version__}",
        "compile_seconds": first - (time.perf_counter() - start),
    }
    return about, run, None


def serve(contender, batch, dtype):
    """Runs steps when asked to on standard input, one JSON answer a line."""
    about, run, matmul_rate = (jax_contender if contender == "jax" else torch_contender)(batch, dtype)
    run()
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        if line.strip() == "matmul":
            print(json.dumps({"matmul": matmul_rate() if matmul_rate else None}), flush=True)
            continue
        steps = int(line)
        cpu, start = cpu_seconds(), time.perf_counter()
        for _ in range(steps):
            run()
        print(json.dumps({"wall": time.perf_counter() - start, "cpu": cpu_seconds() - cpu}), flush=True)


def command(torch_python):
    """What was run, without this machine's path to PyTorch."""
    words = ["PYTHON_WITH_TORCH" if word == torch_python else word for word in sys.argv[1:]]
    return " ".join(["python", "benchmarks/step.py", *words])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="steps a round; 20 or more on a GPU")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--serve", choices=["jax", "torch"], help=argparse.SUPPRESS)
    own = parser.parse_args()
    if own.serve:
        serve(own.serve, own.batch, own.dtype)
        return

    def start(contender, python):
        command = [python, __file__, "--serve", contender, "--batch", str(own.batch), "--dtype", own.dtype]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return child, json.loads(child.stdout.readline())

    def ask(child, what):
        child.stdin.write(f"{what}\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())

    contenders = {"jax": start("jax", sys.executable), "torch": start("torch", own.torch_python)}
    rounds = {name: [] for name in contenders}
    matmul = []
    for _ in range(own.rounds):
        for name, (child, _) in contenders.items():
            rounds[name].append(ask(child, own.steps))
        matmul.append(ask(contenders["jax"][0], "matmul")["matmul"])
    for child, _ in contenders.values():
        child.stdin.close()
        child.wait()

    ours = contenders["jax"][1]
    rate = statistics.median(matmul)
    images = own.batch * own.steps
    lines = [
        f"# The full training step: ResNet-18, CIFAR stem, batch {own.batch}, {own.dtype}",
        "",
        f"`{command(own.torch_python)}`",
        "",
        f"{ours['device']}, {os.cpu_count()} CPU cores, {time.strftime('%Y-%m-%d')}; medians of {own.rounds}"
        f" interleaved rounds of {own.steps} step(s); matmul rate in the same run {rate / 1e12:.2f} TFLOP/s.",
        "",
        "| | images/s | min to max | CPU-seconds a step | to compile, s | of the matmul rate | ratio to PyTorch |",
        "|---|---|---|---|---|---|---|",
    ]
    speed = {name: [images / r["wall"] for r in rs] for name, rs in rounds.items()}
    for name, (_, about) in contenders.items():
        median = statistics.median(speed[name])
        ratio = statistics.median(a / b for a, b in zip(speed[name], speed["torch"], strict=True))
        lines.append(
            f"| {about['name']} | {median:.1f} | {min(speed[name]):.1f} to {max(speed[name]):.1f}"
            f" | {statistics.median(r['cpu'] for r in rounds[name]) / own.steps:.1f} | {about['compile_seconds']:.1f}"
            f" | {median * ours['flops_per_image'] / rate:.0%} | {ratio:.2f} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    slug = ours["device"].lower().replace(" ", "-")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / f"step-{slug}-{own.dtype}.md").write_text(text)


if __name__ == "__main__":
    main()
