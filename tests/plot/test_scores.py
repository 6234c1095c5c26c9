import numpy as np
import pytest

from jaxcl.plot import score_curves, score_distributions
from jaxcl.plot.scores import unmixed


def a_run(prefixes=("",), n=30):
    records = []
    for i in range(1, n + 1):
        record = {"step": 10 * i, "epoch": i / 3, "loss": 1.0}
        for shift, prefix in enumerate(prefixes):
            for side, at in (("positive", 6), ("negative", 3)):
                fractions = np.zeros(8)
                fractions[at - shift] = 1.0
                mean = (at - shift + 0.5) / 4 - 1
                record |= {
                    f"{prefix}{side}_histogram": fractions.tolist(),
                    f"{prefix}{side}_mean": mean,
                    f"{prefix}{side}_variance": 0.1,
                }
        records.append(record)
    return records


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


def test_a_cell_is_dark_where_the_scores_are_and_the_line_is_their_mean():
    figure = score_distributions(a_run())
    assert titles(figure) == ["Positives", "Negatives"]
    for ax, position, mean in zip(figure.axes, (6, 3), (0.625, -0.125), strict=True):
        (mesh,) = ax.collections
        shown = np.asarray(mesh.get_array()).reshape(8, 30)
        assert shown[position].min() == 1
        assert np.delete(shown, position, axis=0).max() == 0
        assert set(ax.lines[0].get_ydata()) == {mean}
        assert ax.lines[0].get_xdata()[-1] == 10


def test_a_run_that_mixed_is_drawn_before_and_after(tmp_path):
    records = a_run(("", "unmixed_"))
    figure = score_distributions(records)
    assert titles(figure) == [
        "Positives",
        "Negatives",
        "Positives, before mixing",
        "Negatives, before mixing",
    ]
    figure.savefig(tmp_path / "a.png")
    curves = score_curves(records)
    assert [text.get_text() for text in curves.legends[0].get_texts()] == [
        "as the loss sees them",
        "before mixing",
    ]
    assert unmixed(records)[0]["positive_mean"] == 0.375


def test_curves_of_several_runs_have_four_panels_and_a_single_one_no_legend():
    assert titles(score_curves({"m = 0.9": a_run(), "m = 0.99": a_run()})) == [
        "Positive scores, mean",
        "Negative scores, mean",
        "Positive scores, variance",
        "Negative scores, variance",
    ]
    assert not score_curves(a_run()).legends


def test_a_single_record_is_enough_and_none_is_refused(tmp_path):
    score_distributions(a_run(n=1)).savefig(tmp_path / "a.png")
    with pytest.raises(ValueError, match="None of the records has score histograms"):
        score_distributions([{"step": 1, "loss": 1.0}])
    with pytest.raises(ValueError, match="nothing to draw"):
        score_curves([{"step": 1, "loss": 1.0}])
