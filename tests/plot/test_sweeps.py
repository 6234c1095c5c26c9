"""Accuracy against a knob: what is averaged, and what is refused."""

import statistics

import numpy as np
import pytest

from jaxcl.plot import sweep_curves


def results(losses=("nt_xent", "swd"), seeds=3, bits=("10", "0", "5")):
    """Accuracy = 80 - 5 bits + seed (- 10 for swd)."""
    return [
        {
            "knobs": {"bits": b, "loss": loss, "seed": str(seed)},
            "encoder": encoder,
            "protocol": "linear",
            "accuracy": 80.0 - 5 * int(b) + seed - 10 * (loss == "swd") - 30 * (encoder != "trained"),
        }
        for b in bits
        for loss in losses
        for seed in range(seeds)
        for encoder in ("trained", "raw pixels")
    ]


def means(figure):
    return [np.asarray(drawn.lines[0].get_ydata(), float) for drawn in figure.axes[0].containers]


def test_a_line_is_the_mean_over_seeds_in_the_order_of_the_knob():
    figure = sweep_curves(results(), knob="bits", lines="loss", chance=10)
    first, second = means(figure)
    np.testing.assert_allclose(first, [81, 56, 31])
    np.testing.assert_allclose(second, [71, 46, 21])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "nt_xent (n = 3)",
        "swd (n = 3)",
    ]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "5", "10"]


def test_a_bar_is_the_sample_standard_deviation():
    figure = sweep_curves(results(), knob="bits", where={"loss": "swd"})
    (bars,) = figure.axes[0].containers[0].lines[2]
    for low, high in (segment[:, 1] for segment in bars.get_segments()):
        assert high - low == pytest.approx(2 * statistics.stdev([0, 1, 2]))


def test_single_runs_have_no_bars_and_no_count():
    figure = sweep_curves(results(seeds=1), knob="bits", lines="loss")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["nt_xent", "swd"]
    figure.canvas.draw()


def test_encoders_and_kinds_of_labels_can_be_the_lines():
    assert len(means(sweep_curves(results(("swd",)), knob="bits", lines="encoder"))) == 2
    kinds = [row | {"labels": kind} for row in results(("swd",)) for kind in ("photo", "digit")]
    assert len(means(sweep_curves(kinds, knob="bits", lines="labels"))) == 2


def test_a_knob_of_words_stands_in_their_order():
    figure = sweep_curves(results(bits=("0",)), knob="loss")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["nt_xent", "swd"]


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged():
    with pytest.raises(ValueError, match=r"differ in loss \(nt_xent, swd\).*where=\{'loss': 'nt_xent'\}"):
        sweep_curves(results(), knob="bits")
    two = results(("swd",)) + [row | {"protocol": "knn"} for row in results(("swd",))]
    with pytest.raises(ValueError, match=r"differ in protocol \(linear, knn\)"):
        sweep_curves(two, knob="bits")


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="None of the 36 results has a knob 'width'"):
        sweep_curves(results(), knob="width")


def test_several_knobs_tell_the_lines_apart():
    figure = sweep_curves(results(seeds=1), knob="bits", lines=("loss", "protocol"))
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["nt_xent linear", "swd linear"]


def test_what_has_no_value_of_the_knob_is_a_level_line():
    with_bits = results(losses=("nt_xent",))
    without = [
        row | {"knobs": row["knobs"] | {"loss": "swd", "bits": ""}} for row in results(bits=("5",))[:6]
    ]
    figure = sweep_curves([*with_bits, *without], knob="bits", lines="loss")
    first, second = means(figure)
    np.testing.assert_allclose(first, [81, 56, 31])
    np.testing.assert_allclose(second, [56, 56, 56])


def test_results_on_other_images_or_asked_otherwise_are_lines_and_no_part_of_a_mean():
    own = results(("swd",))
    for name in ("data", "variant"):
        both = own + [row | {name: "others", "accuracy": 1.0} for row in own]
        with pytest.raises(ValueError, match=f"differ in {name} .* not to be averaged"):
            sweep_curves(both, knob="bits")
        first, second = means(sweep_curves(both, knob="bits", lines=name))
        np.testing.assert_allclose(first, [71, 46, 21])
        np.testing.assert_allclose(second, [1, 1, 1])
    # A sweep may vary the data that it learns from.
    learnt = [row | {"knobs": row["knobs"] | {"data": "digits"}} for row in own]
    np.testing.assert_allclose(
        means(sweep_curves(learnt, knob="bits", where={"data": "digits"}))[0], [71, 46, 21]
    )
