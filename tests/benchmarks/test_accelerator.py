"""The script for a GPU is rehearsed where there is none: every phase runs, fails by itself, and keeps to its time."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def accelerator():
    """The script as a module, with its folder on the path as if it were run."""
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("accelerator", BENCHMARKS / "accelerator.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """What `accelerator.py rehearse` leaves where the packages that a GPU machine may lack are hidden."""
    out, hidden = tmp_path_factory.mktemp("rehearsal"), tmp_path_factory.mktemp("hidden")
    for name in ("tensorflow", "tensorflow_datasets", "tyro", "tensorboardX"):
        (hidden / f"{name}.py").write_text(f"raise ModuleNotFoundError('hidden', name={name!r})\n")
    environment = {**os.environ, "PYTHONPATH": str(hidden), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)  # the test suite pretends several devices
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "accelerator.py"), "rehearse", "--out", str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + (out / "log.txt").read_text()[-5000:]
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    return out, rows


@pytest.mark.slow
def test_every_phase_runs_at_toy_size_or_names_the_package_that_it_misses(accelerator, rehearsal):
    _, rows = rehearsal
    ends = {row["phase"]: row["end"] for row in rows if "end" in row}
    assert set(ends) == {phase.name for phase in [*accelerator.KERNELS, *accelerator.TRAIN]}
    for phase in [*accelerator.KERNELS, *accelerator.TRAIN]:
        allowed = {"done"} if phase.framework == "jax" else {"done", "not run: torch is not installed"}
        assert ends[phase.name] in allowed, (phase.name, ends[phase.name])


@pytest.mark.slow
def test_no_contender_of_ours_is_left_out_at_toy_size(rehearsal):
    _, rows = rehearsal
    left_out = [row for row in rows if "left_out" in row and row.get("framework") != "torch"]
    assert not left_out


@pytest.mark.slow
def test_the_report_has_a_table_for_every_phase_that_ran(accelerator, rehearsal):
    out, _ = rehearsal
    page = (out / "report.md").read_text()
    for name in accelerator.MODULES:
        title = importlib.import_module(f"accelerator_phases.{name}").TITLE
        assert f"## {title}" in page
        section = page.split(f"## {title}")[1].split("\n## ")[0]
        assert section.count("\n|") >= 3, f"{title} has no table"


@pytest.mark.slow
def test_losses_on_the_device_agree_with_float64_on_the_host(rehearsal):
    _, rows = rehearsal
    found = [row for row in rows if row["module"] == "truth" and "value_error" in row]
    assert len({row["name"] for row in found}) >= 15
    for row in found:
        assert row["value_error"] < 1e-3, row
        assert row["gradient_error"] < 1e-3, row


# --- the runner -------------------------------------------------------------------------------------------------------

SHAPES = """
import time
TITLE = "A test"
def run(toy, emit, *, how="well"):
    emit({"name": "first"})
    if how == "raises":
        raise ValueError("on purpose")
    if how == "hangs":
        time.sleep(600)
    if how == "dies":
        import os
        os._exit(3)
    emit({"name": "second"})
def report(rows, ceilings):
    return [row["name"] for row in rows]
"""


@pytest.fixture
def phases(accelerator, monkeypatch, tmp_path):
    """A folder of phases that end well, raise, hang or die."""
    import accelerator_phases

    (tmp_path / "accelerator_phases").mkdir()
    (tmp_path / "accelerator_phases" / "__init__.py").write_text("")
    (tmp_path / "accelerator_phases" / "behaves.py").write_text(SHAPES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    script = tmp_path / "accelerator.py"
    script.write_text((BENCHMARKS / "accelerator.py").read_text())
    monkeypatch.setattr(accelerator, "HERE", script)
    monkeypatch.setattr(accelerator, "MODULES", ["behaves"])
    monkeypatch.setattr(
        accelerator_phases, "__path__", [*accelerator_phases.__path__, str(tmp_path / "accelerator_phases")]
    )

    def phase(how, limit=60.0):
        return accelerator.Phase(how, "behaves", "jax", limit, {"how": how})

    return phase


def test_a_phase_that_raises_hangs_or_dies_is_named_and_the_next_one_runs(accelerator, phases, tmp_path):
    out = tmp_path / "out"
    order = [phases("raises"), phases("dies"), phases("hangs", limit=3.0), phases("well")]
    ends = accelerator.go_through("kernels", order, out, minutes=5)
    assert ends["raises"] == "failed: ValueError: on purpose"
    assert ends["dies"].startswith("failed: its process ended")
    assert ends["hangs"].startswith("stopped after its limit of 3 s")
    assert ends["well"] == "done"
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows if row["phase"] == "hangs" and "name" in row] == ["first"]
    assert [row["name"] for row in rows if row["phase"] == "well" and "name" in row] == ["first", "second"]
    assert "kernels, dies: failed" in (out / "report.md").read_text()


def test_what_the_minutes_do_not_suffice_for_is_listed_as_not_run(accelerator, phases, tmp_path):
    ends = accelerator.go_through(
        "kernels", [phases("hangs", limit=60.0), phases("well")], tmp_path / "out", minutes=0.05
    )
    assert ends["hangs"].startswith("stopped after its limit")
    assert ends["well"] == "not run: no time was left"


# --- counting ---------------------------------------------------------------------------------------------------------


def test_products_are_counted_as_by_hand_and_as_often_as_a_loop_runs(accelerator):
    from accelerator_phases.common import arithmetic

    x, w = jnp.ones((8, 16, 16, 3)), jnp.ones((3, 3, 3, 5))

    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).sum()

    forward = 2 * 8 * 8 * 8 * 5 * 27
    assert arithmetic(conv, x, w) == forward
    # Both gradients have as many products as the forward pass, strides or not.
    assert arithmetic(jax.grad(conv, argnums=(0, 1)), x, w) == pytest.approx(3 * forward, rel=0.01)
    batched = (jnp.ones((7, 3, 4)), jnp.ones((7, 4, 5)))
    assert arithmetic(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), *batched) == 7 * 2 * 3 * 4 * 5

    def loop(a):
        return jax.lax.scan(lambda a, _: (a @ a, None), a, length=7)[0]

    assert arithmetic(jax.jit(loop), jnp.ones((4, 4))) == 7 * 2 * 4**3


def test_a_resnet_18_at_32_pixels_costs_what_is_known(accelerator):
    from accelerator_phases.training import flops_of_step, task

    # 0.56 billion multiply-adds an image: three passes over two views of 512, and the loss.
    t = task(18, toy=False)
    flops = flops_of_step(t)
    loss = 4 * (2 * t.batch) ** 2 * 128
    np.testing.assert_allclose((flops - loss) / (3 * 2 * t.batch), 2 * 0.5556e9, rtol=0.01)


@pytest.mark.slow
def test_every_program_at_its_real_size_can_be_traced(accelerator):
    """Compiling them for an H100 is `accelerator.py compile`, which needs the extra `cuda`."""
    for name in accelerator.MODULES:
        for program in importlib.import_module(f"accelerator_phases.{name}").programs(False):
            jax.eval_shape(program.function, *program.arguments)
