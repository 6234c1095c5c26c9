"""What `jaxcl parts` tells is what the step does."""

import inspect
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment, extract, losses, methods, nets
from jaxcl.cli import main
from jaxcl.experiment import load_config
from jaxcl.five_parts import NAMES, described, five_parts
from jaxcl.similarity import cosine, dot, normalize
from jaxcl.typing import FiveParts, Method

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
BATCH = {"image": np.zeros((4, 16, 16, 3), np.uint8), "index": np.arange(4, dtype=np.int32)}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_prints_five_parts_none_of_them_empty(path, small_knobs, capsys):
    small = small_knobs(load_config(path).Knobs)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in small.items()]
    assert main(["parts", str(path), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [i for i, line in enumerate(lines) if not line.startswith(" ")]
    assert [lines[i] for i in heads] == list(NAMES.values())
    assert all(after - before > 1 for before, after in zip(heads, [*heads[1:], len(lines)], strict=True))
    assert "0x" not in "".join(lines)  # an address is no name


NORM = nets.batch_norm()
LINEAR = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=4)
ENCODER = nets.small_convnet(features=(4, 4), norm=NORM)


def simclr(loss, **changes):
    given = {"views": augment.two_views(augment.flip()), "encoder": ENCODER, "head": LINEAR, "loss": loss}
    return methods.simclr(**(given | changes))


def told(loss, **changes):
    return five_parts(simclr(loss, **changes), BATCH)


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_a_loss_is_told_with_the_values_with_which_it_was_called(temperature):
    parts = told(lambda key, z1, z2: losses.nt_xent(z1, z2, temperature=temperature))
    assert parts[NAMES["loss"]] == [
        ("loss", "lambda key, z1, z2: losses.nt_xent(z1, z2, temperature=temperature)"),
        ("calls", f"nt_xent(temperature={temperature})"),
    ]
    assert parts[NAMES["similarity"]] == [("of the loss", "cosine")]


def test_another_similarity_is_told():
    def euclidean(q, k):
        return -jnp.sum((q[:, None] - k) ** 2, axis=2)

    for kind, name in ((dot, "dot"), (euclidean, "euclidean")):
        parts = told(lambda key, z1, z2, kind=kind: losses.nt_xent(z1, z2, similarity=kind))
        assert parts[NAMES["similarity"]] == [("of the loss", name)]


def margin(key, z1, z2, *, least=0.2):
    return jnp.mean(jnp.maximum(0, least - jnp.sum(cosine(z1, z2))))


def test_a_loss_from_elsewhere_has_its_name_and_what_it_compares_with():
    parts = told(partial(margin, least=0.3))
    assert parts[NAMES["loss"]] == [("loss", "margin(least=0.3)")]
    assert parts[NAMES["similarity"]] == [("of the loss", "cosine")]


def test_a_loss_that_compares_by_itself_is_said_to():
    parts = told(lambda key, z1, z2: losses.barlow_twins(z1, z2))
    (line,) = parts[NAMES["similarity"]]
    assert line[1] == "none of jaxcl.similarity: barlow_twins compares by itself"


def test_what_is_given_is_what_is_told():
    def half(maps):
        return extract.pool(maps)[:, :2]

    parts = told(lambda key, z1, z2: losses.nt_xent(z1, z2), extract=half)
    assert parts[NAMES["extraction"]] == [
        ("extract", "half"),
        ("head", "MLPHead(norm=Bias, hidden=(), out=4, bias=True)"),
    ]
    batch_norm = "BatchNorm(groups=1, momentum=0.9, epsilon=1e-05)"
    assert parts[NAMES["encoder"]] == [("encoder", f"SmallConvNet(norm={batch_norm}, features=(4, 4))")]
    assert parts[NAMES["views"]] == [("views", "n_views(n=2, recipe=flip(probability=0.5))")]


def test_what_makers_close_over_is_told():
    shared = augment.each_view([augment.grayscale()] * 2, shared=augment.flip())
    assert described(shared) == (
        "each_view(recipes=2 x grayscale(probability=0.2), shared=flip(probability=0.5))"
    )
    assert described(methods.cosine_decay(0.9, steps=10)) == "cosine_decay(start=0.9, steps=10)"
    assert described(nets.standardized(LINEAR, mean=[0.5], deviation=[0.25])) == (
        "standardized(net=MLPHead(norm=Bias, hidden=(), out=4, bias=True), deviation=(0.25,), mean=(0.5,))"
    )
    distance = partial(losses.sliced_wasserstein, prior=losses.uniform_sphere)
    assert described(distance) == "sliced_wasserstein(prior=uniform_sphere)"


def test_a_method_that_does_not_tell_is_asked_to():
    told = simclr(lambda key, z1, z2: losses.nt_xent(z1, z2))
    with pytest.raises(ValueError, match="give its Method a `five_parts`"):
        five_parts(Method(told.init, told.loss, told.embed), BATCH)


def test_a_probe_beside_a_method_changes_none_of_its_parts():
    method = simclr(lambda key, z1, z2: losses.nt_xent(z1, z2))
    probed, _ = methods.with_probe(
        method, labels=np.arange(4), classes=4, views=augment.n_views(augment.clip(), 1)
    )
    assert five_parts(probed, BATCH) == five_parts(method, BATCH)


# What a method is given but for where it runs and what is watched; what is no part stands in for nothing.
GIVEN = [
    methods.amdim,
    methods.byol,
    methods.cmc,
    methods.cpc,
    methods.looc,
    methods.moco,
    methods.simclr,
    methods.simclr_v2,
]


@pytest.mark.parametrize("make", GIVEN, ids=lambda make: make.__name__)
def test_every_argument_of_a_method_is_among_its_parts(make):
    names = set(inspect.signature(make).parameters) - {"axis_name", "scores"}
    things = {name: object() for name in names}
    things |= {name: 1 for name in ("spaces", "turns") if name in names}
    things |= {name: (object(), object()) for name in ("embedded", "encoders", "heads") if name in names}
    things |= {"compare": ((0, 1),)} if "compare" in names else {}
    parts = make(**things).five_parts
    assert isinstance(parts, FiveParts)
    told = {role: thing for part in parts for role, thing in part.items()}
    assert {role: told.get(role) for role in names} == things
    own = {role: thing for role, thing in told.items() if role not in names}
    assert set(map(id, own.values())) <= set(
        map(id, (normalize, dot, methods.cmc.__globals__["dot_with_own"]))
    )
