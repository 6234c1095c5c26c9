"""What `jaxcl parts` prints is what the training step does."""

import inspect
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import pytest

from jaxcl import augment, extract, losses, methods, nets
from jaxcl.cli import main
from jaxcl.config import load_config
from jaxcl.five_parts import NAMES, described, five_parts
from jaxcl.losses import keyless
from jaxcl.losses.similarities import SIMILARITIES
from jaxcl.similarity import cosine, dot, normalize
from jaxcl.typing import FiveParts, Method

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


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


def parts_of(loss, **changes):
    return five_parts(simclr(loss, **changes))


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_a_loss_is_printed_with_the_settings_that_it_was_given(temperature):
    parts = parts_of(keyless(losses.nt_xent, temperature=temperature))
    assert parts[NAMES["loss"]] == [("loss", f"nt_xent(temperature={temperature})")]
    assert parts[NAMES["similarity"]] == [("of the loss", "cosine")]


def test_a_setting_that_was_not_given_is_printed_with_the_default_of_the_signature():
    parts = parts_of(keyless(losses.nt_xent))
    assert parts[NAMES["loss"]] == [("loss", "nt_xent(temperature=0.5)")]


def test_the_innermost_of_several_partials_gives_way_to_those_around_it():
    loss = keyless(partial(partial(losses.nt_xent, temperature=0.1), similarity=dot), temperature=0.3)
    parts = parts_of(loss)
    assert parts[NAMES["loss"]] == [("loss", "nt_xent(temperature=0.3)")]
    assert parts[NAMES["similarity"]] == [("of the loss", "dot")]


def test_a_term_that_a_loss_was_given_is_printed_with_what_it_compares_with():
    spread = keyless(losses.log_sum_exp, temperature=0.2)
    parts = parts_of(partial(losses.generalized, distribution=spread, weight=0.2, per="sample"))
    assert parts[NAMES["loss"]] == [
        (
            "loss",
            "generalized(distribution=log_sum_exp(temperature=0.2, mask_self=True), weight=0.2, per='sample',"
            " normalized=True)",
        )
    ]
    assert [kind for _, kind in parts[NAMES["similarity"]]] == [
        "squared differences of the pair (cosine_by_row with per='sample')",
        "cosine",
    ]


def test_a_loss_times_a_factor_is_printed_with_what_the_loss_compares_with():
    parts = parts_of(partial(losses.scaled, loss=keyless(losses.nt_xent, temperature=0.1), factor=2.0))
    assert parts[NAMES["loss"]] == [("loss", "scaled(loss=nt_xent(temperature=0.1), factor=2)")]
    assert parts[NAMES["similarity"]] == [("of the loss", "cosine")]


def test_another_similarity_is_printed():
    def euclidean(q, k):
        return -jnp.sum((q[:, None] - k) ** 2, axis=2)

    for kind, name in ((dot, "dot"), (euclidean, "euclidean")):
        parts = parts_of(keyless(losses.nt_xent, similarity=kind))
        assert parts[NAMES["similarity"]] == [("of the loss", name)]


def margin(key, z1, z2, *, least=0.2, axis_name=None):
    return jnp.mean(jnp.maximum(0, least - jnp.sum(cosine(z1, z2))))


def test_a_loss_from_elsewhere_has_its_name_and_says_itself_what_it_compares_with(monkeypatch):
    parts = parts_of(partial(margin, least=0.3))
    assert parts[NAMES["loss"]] == [("loss", "margin(least=0.3)")]
    (line,) = parts[NAMES["similarity"]]
    assert line[1] == "none of jaxcl.similarity: margin compares by itself"
    monkeypatch.setattr(margin, "compares_with", "cosine", raising=False)
    assert parts_of(margin)[NAMES["similarity"]] == [("of the loss", "cosine")]


def test_a_lambda_is_named_by_where_it_stands():
    parts = parts_of(lambda key, z1, z2, *, axis_name: jnp.zeros(()))
    ((role, line),) = parts[NAMES["loss"]]
    number = inspect.currentframe().f_lineno - 2
    assert (role, line) == ("loss", f"lambda (test_five_parts.py, line {number})")


def test_every_exported_loss_says_what_it_compares_with():
    for name in losses.__all__:
        parameters = inspect.signature(getattr(losses, name)).parameters
        if "axis_name" in parameters:
            says = "similarity" in parameters or getattr(losses, name) in SIMILARITIES
            assert says, f"{name} needs a line in losses/similarities.py"


def test_what_is_given_is_what_is_printed():
    def half(maps):
        return extract.pool(maps)[:, :2]

    parts = parts_of(keyless(losses.nt_xent), extract=half)
    assert parts[NAMES["extraction"]] == [
        ("extract", "half"),
        ("head", "MLPHead(norm=Bias, hidden=(), out=4, bias=True, initialization='lecun')"),
    ]
    batch_norm = "BatchNorm(groups=1, views=1, momentum=0.9, epsilon=1e-05)"
    assert parts[NAMES["encoder"]] == [("encoder", f"SmallConvNet(norm={batch_norm}, features=(4, 4))")]
    assert parts[NAMES["views"]] == [("views", "n_views(n=2, recipe=flip(probability=0.5))")]


def test_what_makers_close_over_is_printed():
    shared = augment.each_view([augment.grayscale()] * 2, shared=augment.flip())
    assert described(shared) == (
        "each_view(recipes=2 x grayscale(probability=0.2), shared=flip(probability=0.5))"
    )
    assert described(methods.cosine_decay(0.9, steps=10)) == "cosine_decay(start=0.9, steps=10)"
    assert described(nets.standardized(LINEAR, mean=[0.5], std=[0.25])) == (
        "standardized(net=MLPHead(norm=Bias, hidden=(), out=4, bias=True, initialization='lecun'),"
        " mean=(0.5,), std=(0.25,))"
    )
    distance = partial(losses.sliced_wasserstein, prior=losses.uniform_sphere)
    assert described(distance) == "sliced_wasserstein(prior=uniform_sphere)"


def test_a_method_that_does_not_name_its_parts_is_asked_to():
    made = simclr(keyless(losses.nt_xent))
    with pytest.raises(ValueError, match="give its Method a `five_parts`"):
        five_parts(Method(made.init, made.loss, made.embed))


def test_a_probe_beside_a_method_changes_none_of_its_parts():
    method = simclr(keyless(losses.nt_xent))
    probed, _ = methods.with_probe(method, classes=4, views=augment.n_views(augment.clip(), 1))
    assert five_parts(probed) == five_parts(method)


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
    methods.simsiam,
    methods.yadim,
]


@pytest.mark.parametrize("make", GIVEN, ids=lambda make: make.__name__)
def test_every_argument_of_a_method_is_among_its_parts(make):
    names = set(inspect.signature(make).parameters) - {"axis_name", "scores"}
    things = {name: object() for name in names}
    things |= {name: 1 for name in ("spaces", "rotations") if name in names}
    things |= {name: (object(), object()) for name in ("embedded", "encoders", "heads") if name in names}
    things |= {"compare": ((0, 1),)} if "compare" in names else {}
    things |= {"pairs": "all"} if "pairs" in names else {}
    parts = make(**things).five_parts
    assert isinstance(parts, FiveParts)
    named = {role: thing for part in parts for role, thing in part.items()}
    if "loss" not in names:  # the page's own, with some of the arguments for settings
        named |= named.pop("loss").keywords
    if make is methods.yadim:
        assert named.pop("compare") == ((0, 0),)
        (named["head"],) = named.pop("heads")
    assert {role: named.get(role) for role in names} == things
    own = {role: thing for role, thing in named.items() if role not in names}
    if make is methods.simsiam:
        assert own.pop("decay") is None
    assert set(map(id, own.values())) <= set(
        map(id, (normalize, dot, methods.cmc.__globals__["dot_with_rows"]))
    )
