"""Features can be mixed in the config of every contrastive method, or the reason is here."""

from pathlib import Path

import pytest

from jaxcl import About
from jaxcl.config import load_config
from jaxcl.five_parts import described

CONFIGS = Path(__file__).parents[2] / "configs"
WITHOUT = {
    "amdim": "its scores are products of vectors of any length",
    "amdim_cifar10_cpu": "as amdim",
    "byol": "no negatives",
    "byol_cifar10_cpu": "no negatives",
    "cpc": "as amdim",
    "cpc_cifar10_cpu": "as amdim",
    "distill": "no pairs",
    "moco_cifar10": "both alphas are knobs",
    "moco_cifar10_cpu": "both alphas are knobs",
    "randbits_mnist": "the notebook's loss, across views alone",
    "supervised": "no negatives",
    "yadim": "as amdim",
    "yadim_cifar10_cpu": "as amdim",
}
WITH = [path.stem for path in sorted(CONFIGS.glob("*.py")) if path.stem not in WITHOUT]
ALPHAS = {"extrapolate": 2.0, "interpolate": 1.6}


def said(name, **knobs):
    """The parts of a config's method in which features are mixed or not, in words."""
    config = load_config(CONFIGS / f"{name}.py")
    parts = config.recipe(config.Knobs(**knobs), About(10_000, (32, 32, 3), ("a", "b"))).method.five_parts
    return f"{described(parts.extraction)} {described(parts.loss)}"


@pytest.mark.parametrize("name", WITH)
def test_a_word_mixes_the_features_of_a_config(name):
    mixed = said(name, mix="dimensions" if name not in ("cmc", "cmc_cifar10_cpu") else "both")
    assert "mixing" in mixed or "mixed_nt_xent" in mixed or "batch_scores" in mixed
    plain = said(name)
    assert "mixing" not in plain
    assert "mixed_nt_xent" not in plain
    assert "batch_scores" not in plain


@pytest.mark.parametrize("name", ["moco_cifar10", "moco_cifar10_cpu"])
def test_two_numbers_mix_those_of_mocos_small_configs(name):
    assert "mixing" in said(name, **ALPHAS)
    assert "mixing" not in said(name)
    assert "dimension_wise=False" in said(name, **ALPHAS)
    assert "dimension_wise=True" in said(name, **ALPHAS, dimension_wise=True)


def test_simclr_v2_without_its_memory_is_mixed_as_simclr_is():
    assert "mixed_nt_xent" in said("simclr_v2", memory=0, mix="both")


@pytest.mark.parametrize("name", ["losses_cifar10", "randbits"])
def test_a_loss_without_scores_is_not_mixed(name):
    with pytest.raises(ValueError, match="--mix both with --loss swd_cube. Leave out --mix, or choose"):
        said(name, loss="swd_cube", mix="both")
