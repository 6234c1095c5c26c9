"""CPC v2 (Henaff et al., 2019, arXiv:1905.09272) on one page: by the pseudo-code of its appendix, as its text has
it, and as Falcon and Cho (2020, arXiv:2009.00104) ran it, read in the code of PyTorch Lightning Bolts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcl import keys
from jaxcl.extract import Maps, pool
from jaxcl.images import patches
from jaxcl.methods import checks
from jaxcl.monitor import contrast_monitor
from jaxcl.typing import Array, FiveParts, GridLoss, Method, Net, Scores, Views


def falcon_cho_rows(height: int) -> Mapping[int, float]:
    """Rows below -> weight, as the code of PyTorch Lightning Bolts adds them up: i + 1 rows below, i times.

    >>> falcon_cho_rows(7)
    {2: 1.0, 3: 2.0, 4: 3.0, 5: 4.0, 6: 5.0}
    """
    return {i + 1: float(i) for i in range(1, height - 1)}


def henaff_rows(height: int) -> Mapping[int, float]:
    """Rows below -> weight: two are skipped, then up to three are predicted. A reading of "steps_to_ignore=2,
    steps_to_predict=3" by what the words say; what the published code does with them is `pseudo_code_rows`.

    >>> henaff_rows(6)
    {3: 1.0, 4: 1.0, 5: 1.0}
    """
    return {below: 1.0 for below in range(3, min(6, height))}


def pseudo_code_rows(height: int) -> Mapping[int, float]:
    """Rows below -> weight, as the pseudo-code of Henaff et al. (appendix) computes it: i + 1 rows below for every i
    from steps_to_ignore = 2 to before steps_to_predict = 3, which is the third row alone.

    >>> pseudo_code_rows(6)
    {3: 1.0}
    """
    del height
    return {3: 1.0}


def next_rows(height: int) -> Mapping[int, float]:
    """Rows below -> weight: the next three alike. Ours, for small grids and short runs.

    >>> next_rows(7)
    {1: 1.0, 2: 1.0, 3: 1.0}
    """
    return {below: 1.0 for below in range(1, min(4, height))}


# A word -> settings of `cpc`: as Falcon and Cho ran it; three rows in four directions, a reading of the paper; as the
# paper's pseudo-code; the next three rows. The contexts of the second and third are padded as the pseudo-code's.
CPC_VARIANTS: dict[str, dict[str, Any]] = {
    "falcon_cho": {"rows": falcon_cho_rows, "shared_predictor": True, "rotations": 1},
    "henaff": {"rows": henaff_rows, "shared_predictor": False, "rotations": 4},
    "pseudo_code": {"rows": pseudo_code_rows, "shared_predictor": False, "rotations": 1},
    "next": {"rows": next_rows, "shared_predictor": False, "rotations": 1},
}


def cpc(
    *,
    views: Views,
    encoder: Net,
    context: Net,
    target: Net,
    predictor: Net,
    loss: GridLoss,
    patch: tuple[int, int] = (8, 4),
    rows: Callable[[int], Mapping[int, float]] = falcon_cho_rows,
    shared_predictor: bool = True,
    rotations: int = 1,
    extract: Callable[[Maps], Array] = pool,
    represent: Callable[[Maps], Array] = pool,
    scores: Scores | None = None,
    axis_name: str | None = None,
) -> Method:
    """Predict the patches below from the patches above, against all patches of the batch.

    views
        (key, batch) -> one view [b, h, w, c]: `n_views(augment.compose(augment.flip(), augment.amdim(32)), 1)`, which
        is the Falcon and Cho variant's (Bolts flips ImageNet in tests too: not here). The paper also changes each patch
        by itself: with `augment.cpc_patches(8, 4)` as the recipe's last step the view comes as patches
        [b, rows, columns, p, p, c].
    patch
        size and stride of the squares that images, and views that are none yet, are cut into: (8, 4) for 32 pixels,
        (16, 8) for 64, (32, 16) for 128, all 7 x 7 of them. The paper's is (80, 36) of 260 pixels, 6 x 6.
    encoder, extract
        z = extract(encoder(patch)), one vector a patch: `nets.cpc_resnet()`. Its norm should not be that of the
        batch.
    context
        from the grid of z [b, rows, columns, c] to one that sees nothing below: `nets.masked_context()`.
    target, predictor
        of every position of the grid and of its context, to one width: both
        `mlp_head(norm=no_norm(), hidden=(), out=64)`.
    loss
        (key, predictions [b, rows, columns, d], targets, below=..., axis_name=None) -> scalar, where `below` is {rows
        below: weight} of what these predictions are for: `keyless(patch_nce, scale=0.1)`.
    rows, shared_predictor, rotations
        height of the grid -> {rows below: weight}; whether one predictor serves all of them; and in how many of the
        four directions (down first, the grid then rotated by 90 degrees) it is predicted, each with a context and
        predictors of its own. Losses are added. Falcon and Cho: `falcon_cho_rows`, True, 1, as by default. The paper's
        pseudo-code: `pseudo_code_rows`, False, with the context `masked_context(top=0.0, sides="early")`. The paper
        describes four directions, and the pseudo-code shows one; that each has a context of its own is our reading.
    represent
        (grid,) -> features [b, d]: its average, or `extract.flatten`, as for the figures of Falcon and Cho.
    scores
        (q, k, negatives, own=None, axis_name=None) -> metrics (`monitor.score_monitor`), of
        what the top row predicts, against that row of the batch.
    """
    if not 1 <= rotations <= 4:
        raise ValueError(
            f"rotations, the number of directions of prediction, must be 1 to 4; got rotations={rotations}."
        )

    def cut_up(view):
        return view if view.ndim == 6 else patches(view, *patch)

    def grid_of(params, state, images, *, train):
        cut = cut_up(images)
        b, h, w = cut.shape[:3]
        flat = cut.reshape(b * h * w, *cut.shape[3:])
        maps, encoder_state = encoder.apply(params["encoder"], state["encoder"], flat, train=train)
        return checks.vectors("cpc", extract(maps)).reshape(b, h, w, -1), encoder_state

    def predictors(height):
        """Name -> {rows below: weight} that it predicts."""
        weights = rows(height)
        if not weights or not all(0 < below < height for below in weights):
            raise ValueError(
                f"cpc cannot predict {sorted(weights) or 'no row'} below in a grid of {height} rows; take"
                " smaller patches, larger images or other `rows`."
            )
        if shared_predictor:
            return {"predictor": weights}
        return {f"predictor_{below}": {below: weight} for below, weight in weights.items()}

    def init(key, batch):
        views_key, encoder_key, target_key, *rotation_keys = keys.of_init(key, 2 + rotations)
        (x,) = checks.views_of("cpc", views(views_key, batch), 1)
        params, state = {}, {}
        cut = cut_up(x)
        flat = cut.reshape(-1, *cut.shape[3:])
        params["encoder"], state["encoder"] = encoder.init(encoder_key, flat)
        z, _ = grid_of(params, state, x, train=False)
        params["target"], state["target"] = target.init(target_key, z)
        for rotation, rotation_key in enumerate(rotation_keys):
            rotated = jnp.rot90(z, rotation, axes=(1, 2))
            names = predictors(rotated.shape[1])
            context_key, *predictor_keys = jax.random.split(rotation_key, 1 + len(names))
            p, s = {}, {}
            p["context"], s["context"] = context.init(context_key, rotated)
            for name, predictor_key in zip(names, predictor_keys, strict=True):
                p[name], s[name] = predictor.init(predictor_key, rotated)
            params[f"rotation_{rotation}"], state[f"rotation_{rotation}"] = p, s
        return params, state

    def loss_fn(params, state, key, batch):
        views_key, loss_key = keys.of_step(key, 1)
        (x,) = checks.views_of("cpc", views(views_key, batch), 1)
        z, encoder_state = grid_of(params, state, x, train=True)
        targets, target_state = target.apply(params["target"], state["target"], z, train=True)
        new = {"encoder": encoder_state, "target": target_state}
        value = jnp.zeros(())
        metrics: dict[str, Array] = {}
        for rotation in range(rotations):
            p, s = params[f"rotation_{rotation}"], dict(state[f"rotation_{rotation}"])
            rotated = [jnp.rot90(grid, rotation, axes=(1, 2)) for grid in (z, targets)]
            seen, s["context"] = context.apply(p["context"], s["context"], rotated[0], train=True)
            for number, (name, below) in enumerate(predictors(seen.shape[1]).items()):
                predicted, s[name] = predictor.apply(p[name], s[name], seen, train=True)
                direction = jax.random.fold_in(jax.random.fold_in(loss_key, rotation), number)
                value = value + loss(direction, predicted, rotated[1], below=below, axis_name=axis_name)
                if not metrics:
                    of_top = (
                        predicted[:, 0],
                        rotated[1][:, min(below)],
                    )  # what the top row says of one below
                    q, k = (grid.reshape(-1, grid.shape[-1]) for grid in of_top)
                    metrics = contrast_monitor(q, k, pool((z,)), scores=scores, axis_name=axis_name)
            new[f"rotation_{rotation}"] = s
        return value, (new, metrics)

    def embed(params, state, images):
        return represent((grid_of(params, state, images, train=False)[0],))

    five_parts = FiveParts(
        views={"views": views, "patch": patch},
        encoder={"encoder": encoder},
        extraction={
            "extract": extract,
            "context": context,
            "target": target,
            "predictor": predictor,
            "rows": rows,
            "shared_predictor": shared_predictor,
            "rotations": rotations,
            "represent": represent,
        },
        similarity={},
        loss={"loss": loss},
    )
    return Method(init, loss_fn, embed, five_parts)
