"""The page of many runs says what stands in their directories, and what does not; its numbers are those of scipy."""

import base64
import hashlib
import json
import os
import re
import warnings

import numpy as np
import pytest
from scipy import stats

from jaxcl import plot
from jaxcl.cli import main
from jaxcl.report import report_runs

ACCURACIES = {
    ("0.1", "nt_xent"): [50.0, 60.5, 71.0],
    ("0.1", "swd"): [52.0, 61.5, 74.0],
    ("1.0", "nt_xent"): [40.0, 48.0, 62.0],
    ("1.0", "swd"): [55.0, 60.0, 72.5],
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, make_run):
    folder = tmp_path_factory.mktemp("runs") / "study"
    for (temperature, loss), values in ACCURACIES.items():
        for seed, accuracy in enumerate(values):
            make_run(
                folder / f"temperature={temperature},loss={loss},seed={seed}",
                knobs={"temperature": float(temperature), "loss": loss, "seed": seed},
                results={"knn": accuracy, "linear": accuracy + seed * 2.5},
                untrained=20.0 + seed,
                histogram=[0.25, 0.5, 0.25],
            )
    return folder


@pytest.fixture(scope="module")
def page(sweep, read):
    return read(report_runs([sweep], interactive=False).page)


@pytest.fixture
def undrawn(monkeypatch):
    """For what a page says: its panels are not drawn, which is most of its time."""
    monkeypatch.setattr(plot, "draw_panel", lambda panel: None)
    monkeypatch.setattr(plot, "svg", lambda figure: b"<svg xmlns='http://www.w3.org/2000/svg'/>")


def interval(values):
    """By scipy's own interval of a mean."""
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    return np.mean(values), (high - low) / 2


def test_means_and_intervals_are_those_of_scipy(page):
    header, *rows = page.tables["Accuracy on test images, percent; n=3 in all cells"]
    assert header == ["temperature", "loss", "knn", "linear"]
    assert [tuple(row[:2]) for row in rows] == list(ACCURACIES)
    for (_, values), row in zip(ACCURACIES.items(), rows, strict=True):
        mean, half = interval(values)
        assert row[2] == f"{mean:.1f} ± {half:.1f}"
        mean, half = interval([values[0], values[1] + 2.5, values[2] + 5.0])
        assert row[3] == f"{mean:.1f} ± {half:.1f}"
    baseline = page.tables["Accuracy on test images, percent: untrained encoder; n=3 in all cells"]
    mean, half = interval([20.0, 21.0, 22.0])
    assert baseline[1][2] == f"{mean:.1f} ± {half:.1f}"


def test_differences_are_of_one_knob_at_a_time_by_seed_and_corrected_for_all_cells(page):
    header, *rows = page.tables["Difference in accuracy, percentage points; n=3 in all cells"]
    assert header == ["difference", "at", "knn", "linear"]
    pairs = [
        (("1.0", "nt_xent"), ("0.1", "nt_xent"), "temperature: 1.0 minus 0.1", "loss=nt_xent"),
        (("1.0", "swd"), ("0.1", "swd"), "temperature: 1.0 minus 0.1", "loss=swd"),
        (("0.1", "swd"), ("0.1", "nt_xent"), "loss: swd minus nt_xent", "temperature=0.1"),
        (("1.0", "swd"), ("1.0", "nt_xent"), "loss: swd minus nt_xent", "temperature=1.0"),
    ]
    # Both protocols have the same differences: those between settings do not depend on what a seed adds to both.
    p = [stats.ttest_rel(ACCURACIES[a], ACCURACIES[b]).pvalue for a, b, *_ in pairs for _ in range(2)]
    order, corrected, largest = np.argsort(p, kind="stable"), [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, (len(p) - rank) * p[i])
        corrected[i] = min(1.0, largest)
    found = {(row[0], row[1]): row[2:] for row in rows}
    for k, (a, b, what, where) in enumerate(pairs):
        mean, half = interval(np.subtract(ACCURACIES[a], ACCURACIES[b]))
        for column in range(2):
            words = f"{mean:+.1f} ± {half:.1f}, p {corrected[2 * k + column]:.2g}"
            assert found[what, where][column] == words


def test_differences_are_averaged_over_the_other_knobs_before_seeds_are_compared(page):
    caption = "Averaged over the other knobs, difference in accuracy, percentage points; n=3 in all cells"
    header, first, second = page.tables[caption]
    assert header == ["difference", "knn", "linear"]
    assert (first[0], second[0]) == ("temperature: 1.0 minus 0.1", "loss: swd minus nt_xent")
    by_loss = {t: np.mean([ACCURACIES[t, "nt_xent"], ACCURACIES[t, "swd"]], axis=0) for t in ("0.1", "1.0")}
    mean, half = interval(by_loss["1.0"] - by_loss["0.1"])
    assert first[1].startswith(f"{mean:+.1f} ± {half:.1f}, p ")
    assert first[1] == first[2]
    by_t = {
        one: np.mean([ACCURACIES["0.1", one], ACCURACIES["1.0", one]], axis=0) for one in ("nt_xent", "swd")
    }
    p = [
        stats.ttest_rel(by_loss["1.0"], by_loss["0.1"]).pvalue,
        stats.ttest_rel(by_t["swd"], by_t["nt_xent"]).pvalue,
    ]
    # Four cells, each p twice: the smaller is multiplied by 4, the larger by 2.
    small, large = sorted(range(2), key=lambda i: p[i])
    corrected = {small: min(1.0, 4 * p[small])}
    corrected[large] = min(1.0, max(corrected[small], 2 * p[large]))
    assert first[1].endswith(f", p {corrected[0]:.2g}")
    assert second[1].endswith(f", p {corrected[1]:.2g}")


@pytest.mark.usefixtures("undrawn")
def test_bands_cells_and_dots_of_the_panels_are_the_same_numbers(sweep, read, tmp_path):
    pytest.importorskip("plotly")
    found = read(report_runs([sweep], out=tmp_path / "a.html", interactive=True).page)
    (written,) = [script for kind, script in found.scripts if kind == "application/json"]
    panels = json.loads(written)["panels"]
    knn = next(one for one in panels if one["layout"]["xaxis"]["title"]["text"] == "temperature")
    band, line, dots = knn["data"][:3]
    means, halves = zip(*(interval(ACCURACIES[t, "nt_xent"]) for t in ("0.1", "1.0")), strict=True)
    assert line["x"] == [0.1, 1.0]
    assert knn["layout"]["xaxis"]["type"] == "log"
    np.testing.assert_allclose(line["y"], means, rtol=1e-5)
    np.testing.assert_allclose(band["y"][:2], np.add(means, halves), rtol=1e-5)
    np.testing.assert_allclose(band["y"][2:][::-1], np.subtract(means, halves), rtol=1e-5)
    assert dots["y"] == ACCURACIES["0.1", "nt_xent"] + ACCURACIES["1.0", "nt_xent"]
    assert dots["text"][1] == "temperature=0.1,<br>loss=nt_xent,<br>seed=1: 60.5"
    apart = next(one for one in panels if one["layout"]["xaxis"]["title"]["text"] == "loss")
    np.testing.assert_allclose(apart["data"][0]["error_y"]["array"][0], halves[0], rtol=1e-5)
    assert apart["data"][0]["mode"] == "markers"  # nothing lies between two words
    (grid,) = [
        one
        for one in panels
        if one["data"][0]["type"] == "heatmap" and "knn" in one["layout"]["title"]["text"]
    ]
    assert grid["data"][0]["z"][0][0] == pytest.approx(np.mean(ACCURACIES["0.1", "nt_xent"]), rel=1e-5)
    assert grid["data"][0]["text"][1][0].startswith("62.5 ± ")  # rows are losses, columns temperatures
    curves = next(one for one in panels if one["layout"]["title"]["text"] == "Loss")
    assert len(curves["data"]) == 12


def test_what_all_runs_share_is_said_once(page):
    shared = dict(page.tables["Knobs that all runs share"][1:])
    assert shared["batch_size"] == "8"
    assert not {"temperature", "loss", "seed"} & shared.keys()
    for caption, (header, *_) in page.tables.items():
        assert "batch_size" not in header, caption
    runs = page.tables["Every run"]
    assert len(runs) == 13
    assert runs[0][:3] == ["temperature", "loss", "seed"]


def test_what_a_number_means_stands_beside_it(page):
    assert "half the width of its 95 % confidence interval" in page.words
    assert "seed by seed" in page.words
    assert "Holm" in page.words
    assert "Fewer than three seeds" not in page.words
    assert "Highest mean accuracy by linear: 65.0 ± " in page.words


def test_what_ran_where_for_how_long_is_by_the_log(page):
    (_, row) = page.tables["What ran where, and how long"]
    # Twelve runs of 57 s, all at the same time.
    assert row[:5] == ["1 x cpu", "jaxcl 0.1.0, jax 0.12.0", "12", "11 min", "57 s"]
    assert page.tables["Begun by"][1] == ["jaxcl sweep mine.py"]


def test_few_seeds_missing_results_and_divergence_are_said(tmp_path, make_run, read):
    for seed, accuracy in enumerate([50.0, 60.0]):
        make_run(tmp_path / f"s/t=0.1,seed={seed}", knobs={"t": 0.1, "seed": seed}, results={"knn": accuracy})
    make_run(tmp_path / "s/t=0.5,seed=0", knobs={"t": 0.5}, results={"linear": 70.0})
    make_run(tmp_path / "s/t=0.5,seed=1", knobs={"t": 0.5, "seed": 1}, steps=7, saved=False)
    gone = make_run(tmp_path / "s/t=0.9,seed=0", knobs={"t": 0.9, "seed": 0})
    (gone / "diverged.json").write_text('{"step": 12, "why": "loss was not finite"}')
    found = read(report_runs([tmp_path / "s"], interactive=False).page)
    assert "Fewer than three seeds" in found.words
    assert "1 run has no results yet: t=0.5,seed=1 (stopped, step 7 of 20)" in found.words
    assert "No result by knn of: t=0.5,seed=0" in found.words
    assert "Diverged, and not among the means: t=0.9,seed=0 (at step 12: loss was not finite)" in found.words
    assert ["runs", "5: 3 done, 1 stopped, 1 diverged"] in found.tables["summary"]


@pytest.mark.parametrize("knobs", [("t",), ("t", "loss")])
@pytest.mark.parametrize("protocols", [("knn",), ("knn", "linear")])
def test_of_a_sweep_under_way_the_table_is_that_of_what_there_is(tmp_path, make_run, read, knobs, protocols):
    """Only the first setting has results, so among results no knob varies."""
    settings = [{"t": 0.1, "loss": "a"}, {"t": 0.5, "loss": "a"}, {"t": 0.1, "loss": "b"}][: 1 + len(knobs)]
    for setting in settings:
        for seed in range(3):
            results = {protocol: 50.0 + seed for protocol in protocols} if setting == settings[0] else None
            folder = tmp_path / f"s/t={setting['t']},loss={setting['loss']},seed={seed}"
            make_run(folder, knobs=setting | {"seed": seed}, results=results)
    tables = read(report_runs([tmp_path / "s"], interactive=False).page).tables
    (header, row) = tables["Accuracy on test images, percent; n=3 in all cells"]
    assert header == [*knobs, *protocols]
    assert [cell.split(" ")[0] for cell in row[len(knobs) :]] == ["51.0"] * len(protocols)


def test_a_page_of_a_single_run_says_that_it_is_one(tmp_path, make_run, read, capsys):
    folder = make_run(tmp_path / "one", knobs={}, results={"knn": 50.0, "linear": 61.25}, untrained=30.0)
    assert main(["report", str(folder), "--static"]) == 0
    assert f"Report: {folder / 'report.html'}" in capsys.readouterr().out
    found = read(folder / "report.html")
    rows = found.tables["Accuracy on test images, percent"]
    assert ["knn", "30.0", "50.0"] in rows or ["trained", "50.0", "61.2"] in rows
    assert "what another seed would give is not known" in found.words
    assert dict(found.tables["Knobs"][1:])["batch_size"] == "8"
    assert found.tables["summary"][0] == ["state", "done, step 20 of 20"]
    assert "jaxcl plot" in found.words  # there are no pictures yet
    assert main(["report", str(tmp_path / "nothing")]) == 1
    assert "neither a run directory nor that of a sweep" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_several_runs_are_told_apart_also_where_their_knobs_are_the_same(tmp_path, make_run, read):
    for name in ("a", "b"):
        make_run(tmp_path / name, knobs={}, results={"knn": 50.0})
    found = read(
        report_runs([tmp_path / "a", tmp_path / "b"], out=tmp_path / "page.html", interactive=False).page
    )
    assert found.tables["Accuracy on test images, percent"][1:] == [["a", "50.0"], ["b", "50.0"]]


@pytest.mark.usefixtures("undrawn")
def test_knobs_that_differ_together_are_one_difference(tmp_path, make_run, read):
    for config, temperature, width in (("one", 0.1, 8), ("two", 0.5, 16)):
        for seed in range(3):
            knobs = {"temperature": temperature, "width": width, "seed": seed}
            results = {"knn": 50.0 + width + seed * seed}
            make_run(tmp_path / f"s/{config} {seed}", knobs=knobs, results=results, config=f"{config}.py")
    found = read(report_runs([tmp_path / "s"], interactive=False).page)
    assert ["what differs", "config (and 2 along with it)"] in found.tables["summary"]
    assert found.tables["Accuracy on test images, percent; n=3 in all cells"][0] == ["config", "knn"]
    (_, row) = found.tables["Difference in accuracy, percentage points; n=3 in all cells"]
    assert row == ["config: two minus one", "+8.0 ± 0.0"]
    rows = found.tables["Knobs that differ along with config"]
    assert rows == [["config", "one", "two"], ["temperature", "0.1", "0.5"], ["width", "8", "16"]]


@pytest.mark.usefixtures("undrawn")
def test_runs_that_each_start_from_the_run_of_their_seed_are_one_setting(tmp_path, make_run, read):
    for width in (8, 16):
        for seed in range(3):
            knobs = {"width": width, "seed": seed, "init": f"runs/first/{width}-{seed}"}
            make_run(tmp_path / f"s/{width} {seed}", knobs=knobs, results={"knn": 50.0 + seed})
    found = read(report_runs([tmp_path / "s"], interactive=False).page)
    assert [row[0] for row in found.tables["Accuracy on test images, percent; n=3 in all cells"]] == [
        "width",
        "8",
        "16",
    ]
    assert "start from others (--init)" in found.words


@pytest.mark.usefixtures("undrawn")
def test_settings_that_differ_in_more_than_one_knob_are_compared_as_they_are(tmp_path, make_run, read):
    for i, (a, b) in enumerate([(1, 2), (2, 3), (3, 1), (4, 3)]):
        for seed in range(3):
            make_run(
                tmp_path / f"s/{i} {seed}",
                knobs={"a": a, "b": b, "c": 5 * (i > 2), "seed": seed},
                results={"knn": 50.0 + i * seed},
            )
    found = read(report_runs([tmp_path / "s"], interactive=False).page)
    header, *rows = found.tables["Difference in accuracy, percentage points; n=3 in all cells"]
    assert header == ["a, b, c", "minus", "knn"]
    assert [row[:2] for row in rows][:2] == [["2, 3, 0", "1, 2, 0"], ["3, 1, 0", "1, 2, 0"]]
    assert len(rows) == 6


BAD = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & $\\frac$ 'x' \"y\""


def test_hostile_words_stay_words_wherever_they_stand(tmp_path, make_run, read):
    pytest.importorskip("plotly")
    name = BAD.replace("/", "_")
    for seed in range(2):
        for value in (BAD, f"_{BAD}"):
            folder = make_run(
                tmp_path / f"s {name}" / f"{value.replace('/', '_')} {seed}",
                knobs={"loss": value, BAD: BAD, "seed": seed},
                results={"knn": 50.0 + seed},
                device=BAD,
                config=f"{name}.py",
                command=["jaxcl", BAD],
                versions={"jaxcl": BAD},
            )
            rows = [{"encoder": BAD, "protocol": BAD, "accuracy": 3.0, "labels": BAD, "step": 1}]
            (folder / "evaluations" / "other.json").write_text(json.dumps(rows))
            (folder / "plots").mkdir()
            (folder / "plots" / "figure-1-views.png").write_bytes(b"\x89PNG\r\n\x1a\n and so on")
            (folder / "plots" / "figure-2-x.png").write_bytes(b"<svg onload='alert(1)'/>")
            listed = [
                {"file": "figure-1-views.png", "caption": f"Views {BAD}"},
                {"file": "../../knobs.json", "caption": "Views elsewhere"},
                {"file": "figure-2-x.png", "caption": "Views that are none"},
            ]
            (folder / "plots" / "figures.json").write_text(json.dumps(listed))
    path = report_runs([tmp_path / f"s {name}"], interactive=True).page
    text = path.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "<svg" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    found = read(path)
    assert BAD in dict(found.tables["Knobs that all runs share"][1:]).values()
    assert not [a for a in found.attributes if a[1].startswith("on")]
    assert "is no PNG" in found.words
    panels = json.loads(next(script for kind, script in found.scripts if kind != "program"))["panels"]
    # What plotly draws has its markup escaped, beside that of page and JSON.
    assert "<script>" not in json.dumps(panels)
    assert "&lt;script&gt;" in json.dumps(panels)


@pytest.mark.usefixtures("undrawn")
def test_no_config_is_executed_and_no_image_opened(tmp_path, make_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_run(tmp_path / "run", knobs={"data": f"npz:{tmp_path / 'fifo'}"}, results={"knn": 50.0})
    (folder / "config.py").write_text("from pathlib import Path\nPath('sprung').touch()\n")
    assert main(["report", str(folder), "--static"]) == 0
    assert not (tmp_path / "sprung").exists()


def test_a_page_loads_nothing_and_runs_no_script_but_its_own(sweep, read, tmp_path):
    pytest.importorskip("plotly")
    path = report_runs([sweep], out=tmp_path / "page.html", interactive=True).page
    found = read(path)
    addresses = [
        value for _, name, value in found.attributes if name in ("src", "href", "srcset", "action", "data")
    ]
    assert addresses
    assert all(address.startswith("data:image/") for address in addresses)
    policy = next(
        value for _, name, value in found.attributes if name == "content" and "default-src" in value
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind, script in found.scripts:
        sha = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert (f"'sha256-{sha}'" in policy) == (kind == "program")
    assert len(found.scripts) == 3
    drawn = [base64.b64decode(address.split(",")[1]).decode() for address in addresses if "svg" in address]
    for svg in drawn:
        assert set(re.findall(r"https?://[^\"'\s)]+", svg)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
            "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd",
        }
    rest = re.sub(r"<script>.*?</script>|base64,[^']+", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "http" not in rest.replace("http-equiv", "")


def test_each_panel_is_a_drawn_picture_first_so_that_it_prints_and_needs_no_script(page):
    panels = [value for tag, name, value in page.attributes if (tag, name) == ("figure", "data-panel")]
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(panels) == len(pictures) > 8
    assert len([kind for kind, _ in page.scripts]) == 1  # static: ours alone, and no data


def test_what_is_damaged_is_left_out_and_said(tmp_path, make_run, read):
    for seed in range(5):
        make_run(tmp_path / f"s/seed={seed}", knobs={"seed": seed}, results={"knn": 50.0 + seed})
    (tmp_path / "s/seed=0/knobs.json").write_text("[" * 1000)
    (tmp_path / "s/seed=1/evaluations/knn.json").write_text('[{"encoder": "seed=1", "accuracy": "high"}, 3]')
    with open(tmp_path / "s/seed=2/metrics.jsonl", "a") as log:
        log.write('{"step": "many"}\n')
    (tmp_path / "s/seed=3/run.json").write_text("{")
    (tmp_path / "s/seed=4/knobs.json").write_text('{"seed": 4, "epochs": ["x"], "batch_size": {"a": [1]}}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(report_runs([tmp_path / "s"], interactive=False).page)
    for words in (
        "seed=0 is left out",
        "seed=1: a result is left out",
        "seed=2: Line 21",
        "seed=3: where and when",
    ):
        assert words in found.words
    for seed in range(3):
        (tmp_path / f"s/seed={seed}/knobs.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        report_runs([tmp_path / "s/seed=0"])


def test_a_metric_that_is_no_number_leaves_a_gap_and_the_page_stands(tmp_path, make_run):
    folder = make_run(tmp_path / "run", knobs={}, results={"knn": 50.0})
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines += [
        json.dumps({"step": 21, "time": 1e300, "epoch": None, "loss": None, "positive_histogram": [None]})
    ]
    lines += [json.dumps({"step": 22, "time": -1e300, "loss": 1e308})]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert report_runs([folder], interactive=False).page.exists()


@pytest.mark.usefixtures("undrawn")
def test_what_runs_were_warned_of_stands_on_top_once_for_all(tmp_path, make_run, read):
    for seed in range(3):
        folder = make_run(tmp_path / f"s/seed={seed}", knobs={"seed": seed}, results={"knn": 50.0})
        said = {"step": 10 + seed, "warning": "the loss has been <0> for 100 steps."}
        (folder / "warnings.jsonl").write_text(json.dumps(said) + "\n")
    found = read(report_runs([tmp_path / "s"], interactive=False).page)
    who = "seed=0 at step 10, seed=1 at step 11, seed=2 at step 12"
    assert found.words.count(f"Warned of {who}: the loss has been <0> for 100 steps.") == 1


def test_names_that_utf_8_cannot_hold_are_shown_with_question_marks(tmp_path, make_run, read):
    for seed in range(2):
        knobs = {"seed": seed, "loss": "a" + "\ud800" * seed}
        folder = make_run(tmp_path / f"s/{seed}", knobs=knobs, results={"knn": 50.0}, device="\ud800 x cpu")
        results = folder / "evaluations/knn.json"
        results.write_text(results.read_text().replace("knn", "\\ud800"))
        (folder / "plots").mkdir()
        (folder / "plots/figure-1.png").write_bytes(b"no picture")
        (folder / "plots/figures.json").write_text('[{"file": "figure-1.png", "caption": "Views \\ud800"}]')
    folder.rename(os.fsdecode(os.fsencode(tmp_path) + b"/s/\xff"))
    made = report_runs([tmp_path / "s"], interactive=False)
    found = read(made.page)
    assert "a?" in str(found.tables)
    assert "? x cpu" in str(found.tables)
    assert all(sentence.isascii() for sentence in made.left_out)


@pytest.mark.parametrize("accuracy", [1e308, -1.0, 100.5])
def test_an_accuracy_that_is_no_percentage_is_left_out_and_said(tmp_path, make_run, accuracy):
    folders = [
        make_run(tmp_path / f"{i}", knobs={"epochs": i}, results={"knn": x})
        for i, x in ((1, accuracy), (2, 50.0))
    ]
    assert (
        "1: a result is left out"
        in report_runs(folders, interactive=False, out=tmp_path / "page").left_out[0]
    )


def test_a_step_or_a_number_beyond_all_floats_is_no_record(tmp_path, make_run):
    folder = make_run(tmp_path / "run", knobs={}, results={"knn": 50.0})
    with open(folder / "metrics.jsonl", "a") as log:
        log.write(f'{{"step": 1{"0" * 26}, "loss": 1}}\n{{"step": 21, "loss": 1{"0" * 400}}}\n')
    said = report_runs([folder], interactive=False).left_out
    assert "Line 21" in said[0]
    assert "no step, a whole number from 0 to 2^53" in said[0]
    assert "Line 22" in said[1]


@pytest.mark.parametrize(
    "file", ["knobs.json", "run.json", "metrics.jsonl", "evaluations/knn.json", "owner.json"]
)
@pytest.mark.usefixtures("undrawn")
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, make_run, file):
    for name in "ab":
        folder = make_run(tmp_path / f"s/{name}", knobs={"loss": name}, results={"knn": 50.0})
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)
    said = report_runs([tmp_path / "s"], interactive=False).left_out
    assert file == "owner.json" or any(
        f"{file} is a pipe or a device; expected a file" in sentence for sentence in said
    )
