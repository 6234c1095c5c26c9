"""What does not fit is refused where it is given, in words; nothing is broadcast that is meant row by row."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment, memory, monitor, similarity
from jaxcl import feature_transform as transform

KEY = jax.random.key(0)


def rows(*shape):
    return jnp.ones(shape)


REFUSED = {
    "two widths": (
        similarity.dot,
        (rows(2, 3), rows(4, 5)),
        r"dot takes q \[n, d\] and k \[m, d\]; got \[2, 3\] and",
    ),
    "a single row": (similarity.cosine, (rows(3), rows(2, 3)), r"cosine .* got \[3\] and \[2, 3\]"),
    "one row for all": (similarity.cosine_by_row, (rows(2, 3), rows(1, 3)), "cosine_by_row takes"),
    "rows of others": (similarity.dot_with_own, (rows(2, 3), rows(3, 4, 3)), r"k \[n, m, d\]"),
    "fewer numbers": (
        similarity.dot_with_rows,
        (rows(2, 3), rows(5, 3), jnp.zeros((1, 2), int)),
        r"q \[n, d\], bank \[m, d\] and numbers \[n, k\]; got \[2, 3\], \[5, 3\] and \[1, 2\]",
    ),
    "one key for all": (
        partial(transform.extrapolate_positives, KEY),
        (rows(2, 3), rows(1, 3)),
        "extrapolate",
    ),
    "one negative": (
        partial(transform.interpolate_negatives, KEY),
        (rows(3),),
        "interpolate_negatives takes",
    ),
    "other views": (partial(transform.mixed_nt_xent, KEY), (rows(2, 3), rows(1, 3)), "batch_scores takes"),
    "maps": (monitor.effective_rank, (rows(4, 2, 2, 3),), r"effective_rank takes h \[m, k\]"),
    "other rows": (monitor.contrast_monitor, (rows(4, 3), rows(1, 3), rows(4, 8)), "contrast_monitor takes"),
    "one positive": (
        partial(monitor.score_monitor, temperature=0.1),
        (rows(4, 3), rows(1, 3), rows(7, 3)),
        r"negatives \[m, d\]; got \[4, 3\], \[1, 3\] and \[7, 3\]",
    ),
    "another tree": (partial(memory.ema, decay=0.9), ({"a": rows(3)}, {"b": rows(3)}), "ema takes two trees"),
    "another shape": (
        partial(memory.ema, decay=0.9),
        ({"a": rows(3)}, {"a": rows(1)}),
        "ema takes two trees",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_and_its_shapes_are_said(name):
    function, given, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(function, *given)


def test_numbers_of_images_and_rows_are_whole():
    batch = {"image": np.zeros((2, 8, 8, 3), np.uint8), "index": np.zeros(2, np.float32)}
    with pytest.raises(TypeError, match="index as whole numbers; got float32"):
        jax.eval_shape(augment.two_views(augment.flip()), KEY, batch)
    bank = memory.Bank(rows(4, 3))
    with pytest.raises(TypeError, match="blend takes index as whole numbers"):
        memory.blend(bank, rows(2), rows(2, 3), momentum=0.5)
    with pytest.raises(TypeError, match="own as whole numbers"):
        monitor.score_monitor(rows(2, 3), rows(2, 3), rows(4, 3), temperature=0.1, own=rows(2, 1))


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.uint32])
def test_any_whole_numbers_are_taken(dtype):
    bank = memory.blend(memory.Bank(rows(4, 3)), jnp.arange(2, dtype=dtype), rows(2, 3), momentum=0.5)
    np.testing.assert_allclose(bank.rows[2:], 1)
