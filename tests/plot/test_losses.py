import numpy as np
import pytest

from jaxcl.losses.compare import LossComparison
from jaxcl.plot import loss_comparison


def comparison():
    similarity = np.linspace(-1, 1, 40)
    weights = np.stack([np.ones(40), np.exp(5 * similarity)])
    weights /= weights.sum(axis=1, keepdims=True)
    agreement = np.array([[1.0, 0.25], [0.25, 1.0]])
    return LossComparison(("even", "hard"), np.ones(2), agreement, similarity, weights, np.zeros(2))


def test_an_even_loss_is_a_line_at_one_and_cosines_are_written_in_their_cells():
    figure = loss_comparison(comparison())
    cosines, weights = figure.axes
    assert sorted(text.get_text() for text in cosines.texts) == ["0.25", "0.25", "1.00", "1.00"]
    even, hard = weights.lines
    np.testing.assert_allclose(even.get_ydata(), 1)
    assert np.all(np.diff(hard.get_ydata()) > 0)
    assert [line.get_label() for line in weights.lines] == ["even", "hard"]


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="one bin or more"):
        loss_comparison(comparison(), bins=0)
