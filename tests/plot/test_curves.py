import numpy as np
import pytest

from jaxcl.plot import training_curves
from jaxcl.plot.curves import series, smooth


def a_run(n=60):
    return [
        {"step": 10 * i, "epoch": i / 4, "loss": 5 - i / 20, "contrast_accuracy": i / 100, "grad_norm": 2.0}
        for i in range(1, n + 1)
    ]


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


def test_metrics_that_no_record_has_get_no_panel():
    assert titles(training_curves(a_run())) == ["Loss", "Contrastive accuracy", "Gradient norm"]


def test_keys_choose_the_panels_and_their_order_and_may_be_unknown_ones():
    records = [record | {"input_wait": 0.1} for record in a_run()]
    assert titles(training_curves(records, keys=["input_wait", "loss"])) == ["input wait", "Loss"]


def test_the_raw_line_is_what_was_logged_and_shares_are_percent():
    figure = training_curves(a_run())
    raw, smoothed = figure.axes[1].lines
    np.testing.assert_allclose(raw.get_ydata(), np.arange(1, 61), rtol=1e-12)
    np.testing.assert_allclose(raw.get_xdata(), np.arange(1, 61) / 4)
    assert raw.get_alpha() < 0.5
    assert smoothed.get_linewidth() > raw.get_linewidth()


@pytest.mark.parametrize("missing", [float("nan"), float("inf"), None, "NaN"])
def test_values_that_are_not_finite_leave_a_gap_and_a_mark(missing, tmp_path):
    records = a_run()
    records[20]["loss"] = missing
    figure = training_curves(records)
    figure.savefig(tmp_path / "a.png")
    raw, smoothed, marks = figure.axes[0].lines
    assert np.flatnonzero(~np.isfinite(smoothed.get_ydata())).tolist() == [20]
    assert marks.get_xdata().tolist() == [21 / 4]


def test_a_metric_that_is_never_finite_is_drawn_without_an_error(tmp_path):
    records = [{"step": i, "loss": float("nan"), "grad_norm": 0.0} for i in range(20)]
    training_curves(records).savefig(tmp_path / "a.png")


def test_an_evaluation_logged_without_its_epoch_lands_at_the_epoch_of_its_step():
    records = [*a_run(), {"step": 300, "knn_accuracy": 80.0}, {"step": 605, "knn_accuracy": 85.0}]
    figure = training_curves(records, keys=["knn_accuracy"])
    assert figure.axes[0].lines[0].get_xdata().tolist() == [7.5, 15.0]
    assert figure.axes[0].get_title(loc="right") == "85"


def test_where_epochs_repeat_the_axis_is_the_step():
    records = [{"step": i, "epoch": i // 10, "loss": 1.0} for i in range(1, 41)]
    assert training_curves(records).get_supxlabel() == "step"
    assert training_curves(a_run()).get_supxlabel() == "epoch"


def test_a_step_logged_twice_counts_as_it_was_logged_last():
    records = [{"step": 2, "loss": 2.0}, {"step": 1, "loss": 1.0}, {"step": 2, "loss": 3.0}]
    steps, values = series(records, "loss")
    assert (steps.tolist(), values.tolist()) == ([1.0, 2.0], [1.0, 3.0])


def test_several_runs_are_laid_over_each_other_with_a_legend():
    figure = training_curves({"one device": a_run(), "eight devices": a_run(30), "nothing yet": []})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "one device",
        "eight devices",
        "nothing yet",
    ]
    assert len(figure.axes[0].lines) == 4


def test_records_without_any_metric_are_refused():
    with pytest.raises(ValueError, match="None of the records has any of the metrics loss"):
        training_curves([{"step": 1}])


def test_smoothing_keeps_a_constant_and_the_values_between_the_extremes():
    np.testing.assert_allclose(smooth(np.full(40, 3.0), 2.0), 3.0)
    x = np.random.default_rng(0).normal(size=50)
    assert smooth(x, 3.0).min() >= x.min()
    assert smooth(x, 3.0).max() <= x.max()
    assert np.var(smooth(x, 3.0)) < np.var(x) / 2


def test_smoothing_is_the_weighted_mean_written_as_two_loops():
    x = np.random.default_rng(0).normal(size=15)
    x[4] = np.nan
    want = np.full(15, np.nan)
    for i in range(15):
        weights = [
            np.exp(-0.5 * ((i - j) / 1.5) ** 2) if abs(i - j) <= 5 and j != 4 else 0.0 for j in range(15)
        ]
        if i != 4:
            want[i] = sum(w * v for w, v in zip(weights, x, strict=True) if w) / sum(weights)
    np.testing.assert_allclose(smooth(x, 1.5), want, rtol=1e-12)


def test_a_constant_is_drawn_as_a_line_in_a_range_of_its_own_size():
    low, high = training_curves([{"step": i, "learning_rate": 0.3} for i in range(50)]).axes[0].get_ylim()
    assert 0.29 < low < 0.3 < high < 0.31


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1, 2.34, 1e4])
@pytest.mark.parametrize("key", ["loss", "grad_norm"])
@pytest.mark.parametrize("spread", [1.2, 3.0, 1000.0])
def test_every_panel_has_at_least_two_ticks_and_no_two_read_alike(scale, key, spread):
    records = [{"step": i, key: scale * spread ** (i / 30)} for i in range(31)]
    figure = training_curves(records)
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    ticks = figure.axes[0].yaxis.get_major_ticks()
    texts = [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high]
    assert len(texts) >= 2
    assert len(set(texts)) == len(texts)
