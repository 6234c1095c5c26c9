"""Weights in and out: an encoder as a file of named arrays, for PyTorch or for another run.

    jaxcl export runs/RUN --to torchvision --out resnet.safetensors     a ResNet by torchvision's names and layouts
    jaxcl export runs/RUN --to timm                                     by timm's: ResNet-D, SE and SK as well
    jaxcl export runs/RUN --to safetensors                              any encoder, by jaxcl's own names
    jaxcl train CONFIG --init FILE.safetensors                          a run that starts from any of these, or from a
                                                                        file of torchvision, timm, MoCo, lightly,
                                                                        solo-learn, or SimCLR's converted to PyTorch

Of a .pth file PyTorch reads arrays alone (weights_only), so that nothing in it is executed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcl import tensors
from jaxcl.encoder import Encoder, encoder_of
from jaxcl.nets.net import STATISTICS
from jaxcl.nets.simclr_v2 import ANCHOR, simclr_v2_names
from jaxcl.nets.timm import check_file, check_timm, in_timm
from jaxcl.nets.torchvision import (
    check_named,
    check_torchvision,
    from_torchvision,
    in_torch,
    to_torchvision,
    without_prefix,
)
from jaxcl.nets.torchvision import (
    names as torchvision_names,
)
from jaxcl.records import parsed
from jaxcl.runs import Run, open_run
from jaxcl.train.state import TrainState, by_path, encoder_parameters, encoder_statistics, with_encoder
from jaxcl.typing import Made, Method, Net, PyTree

# What an encoder is exported to -> the name of the file.
NAMES = {
    "torchvision": "torchvision.safetensors",
    "timm": "timm.safetensors",
    "safetensors": "encoder.safetensors",
}
# A library of PyTorch -> (module) -> the module, where that library can make it; and -> lines of Python that do.
LIBRARIES: dict[str, tuple[Callable, Callable]] = {
    "torchvision": (check_torchvision, in_torch),
    "timm": (check_timm, in_timm),
}
# The endings of files that PyTorch writes.
PICKLED = (".pth", ".pt", ".tar", ".ckpt", ".bin")


# --- out ---------------------------------------------------------------------------------------------------------


def export_run(
    run_dir: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    trust: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Writes the encoder of a run's newest good checkpoint to a file, and returns its path.

    to
        "torchvision": a ResNet's weights by torchvision's names and in its layouts, and `say` gets the lines of Python
        that make the same network of them there. "timm": the same for timm, which also has ResNet-D,
        squeeze-and-excitation and selective kernels. "safetensors": whatever the representation is made of, under
        "params/..." and "state/...", as in the run's checkpoints.
    out
        RUN_DIR/weights/torchvision.safetensors, timm.safetensors or encoder.safetensors unless given; for torchvision
        and timm also .pth, which needs PyTorch.

    Raises ValueError where the encoder is none of torchvision's (timm's), with what it has that those lack.
    """
    if to not in NAMES:
        raise ValueError(f"Weights are exported to {', '.join(NAMES)}; got {to!r}.")
    run = open_run(run_dir, trust=trust)
    out = Path(out) if out is not None else run.dir / "weights" / NAMES[to]
    if out.suffix != ".safetensors" and not (to in LIBRARIES and out.suffix in (".pth", ".pt")):
        raise ValueError(f"Weights are written as .safetensors{' or .pth' * (to in LIBRARIES)}; got {out}.")
    made = made_of(run.recipe.method) if to in LIBRARIES else None
    if made is not None:
        check, in_python = LIBRARIES[to]
        try:
            check(made.module)
        except ValueError as error:
            raise ValueError(
                f"{error} `--to safetensors` writes any encoder, by jaxcl's own names."
            ) from error
    torch = _torch(f"{out} is written") if out.suffix in (".pth", ".pt") else None
    encoder = encoder_of(run, run.recipe.method.embed)
    about = {"made by": "jaxcl", "config": str(run.record.get("config")), "step": str(encoder.step)}
    if made is None:
        named = by_path({"params": encoder.params, "state": encoder.state})
        tensors.write(out, {name: np.asarray(x) for name, x in named.items()}, about=about)
        say(f"{len(named)} arrays of step {encoder.step}: {out}")
        return out
    params, state = _parts(run, encoder)
    arrays = to_torchvision(made.module, params, state)
    channels = run.about.shape[-1]
    lines = [*in_python(made.module, channels=channels), *_loading(out), *_scaling(made, channels)]
    if torch is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        torch.save({name: torch.from_numpy(x) for name, x in arrays.items()}, out)
    else:
        about |= {"pool": made.module.pool, "python": "\n".join(lines)}
        about |= {"selective": "3x3 3x3"} if made.module.selective else {}
        tensors.write(out, arrays, about=about)
    say(f"{len(arrays)} arrays of step {encoder.step}: {out}\nIn PyTorch:")
    for line in lines:
        say(f"  {line}")
    return out


def made_of(method: Method) -> Made:
    """What a method's one encoder was made of. Raises ValueError where that is not known."""
    net = None if method.five_parts is None else method.five_parts.encoder.get("encoder")
    if not isinstance(net, Net) or net.made is None:
        raise ValueError(
            "The method has no single encoder of jaxcl.nets, so its weights cannot be exported. `jaxcl embed`"
            " writes the features instead."
        )
    return net.made


def check_seen_alike(init: str | Path, theirs: Method, own: Method) -> None:
    """Raises ValueError where the encoder of the run `init` and that of a run which starts from it standardize images,
    or pad the max pool of their stem, each in its way: neither has parameters, so no table of arrays tells.

    What an encoder was made of is not always known (`Net.made`); then nothing is compared.
    """
    try:
        there, here = made_of(theirs), made_of(own)
    except ValueError:
        return
    if not (_close(there.mean, here.mean) and _close(there.std, here.std)):
        sets = STATISTICS.items()
        known = (name for name, by in sets if _close(by["mean"], there.mean) and _close(by["std"], there.std))
        name = next(known, None) if there.mean else "none"
        knob = "" if name is None else f"Give --standardize {name} where the config has it, or "
        raise ValueError(
            f"--init: the encoder of {init} standardizes images by {_scale(there)}, and that of this config by"
            f" {_scale(here)}: it would see images on another scale than it was trained on."
            f" {knob}{'set' if knob else 'Set'} it in a copy of the config."
        )
    pools = [getattr(made.module, "pool", None) for made in (there, here)]
    stems = [getattr(made.module, "stem", None) for made in (there, here)]
    if stems == ["imagenet", "imagenet"] and pools[0] != pools[1]:
        raise ValueError(
            f"--init: the max pool of the encoder of {init} is padded as pool={pools[0]!r} of nets.resnet, and that of"
            f" this config as pool={pools[1]!r}: its maps would be shifted. Give --pool {pools[0]} where the config has"
            " it, or set it in a copy of the config."
        )


def _close(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and np.allclose(a, b, rtol=0, atol=1e-6)


def _scale(made: Made) -> str:
    return f"mean {made.mean} and std {made.std}" if made.mean else "nothing"


def _parts(run: Run, encoder: Encoder) -> tuple[PyTree, PyTree]:
    """The parameters and statistics of an encoder that is one network."""
    params, state = encoder_parameters(encoder.params, whose=str(run.dir)), encoder_statistics(encoder.state)
    if any(x is None for x in jax.tree.leaves((params, state), is_leaf=lambda x: x is None)):
        raise ValueError(
            f"The representation of {run.dir} uses only a part of its network, so its weights cannot be exported."
            " `jaxcl embed` writes the features instead."
        )
    return params, state


def _loading(out: Path) -> list[str]:
    if out.suffix == ".safetensors":
        return [
            "from safetensors.torch import load_file",
            f"model.load_state_dict(load_file({str(out)!r}))",
        ]
    return [f"model.load_state_dict(torch.load({str(out)!r}, weights_only=True))"]


def _scaling(made: Made, channels: int) -> list[str]:
    takes = f"# It takes images [b, {channels}, h, w] in [0, 1], "
    if not made.mean:
        return [takes + "not standardized."]
    return [takes + f"standardized by mean {made.mean} and std {made.std}."]


# --- in ----------------------------------------------------------------------------------------------------------


def is_file(init: str | Path) -> bool:
    """Whether --init names a file of weights, there or not, and no run directory."""
    return Path(init).suffix in (".safetensors", *PICKLED) and not Path(init).is_dir()


def of_tensorflow(init: str | Path) -> str | None:
    """A sentence about a checkpoint of TensorFlow's, where --init names one: SimCLR's authors publish theirs so."""
    path = Path(init)
    if not (
        Path(f"{path}.index").is_file() or list(path.glob("*.index")) or (path / "saved_model.pb").is_file()
    ):
        return None
    return (
        f"--init: {init} is a checkpoint of TensorFlow's, which is not read here. SimCLR's are converted by"
        " tonylins/simclr-converter, SimCLRv2's by Separius/SimCLRv2-Pytorch; --init reads the .pth that they write."
    )


def starting_from(
    path: str | Path,
    method: Method,
    *,
    carries: tuple[str, ...] | None = None,
    say: Callable[[str], None] = print,
) -> Callable[[TrainState], TrainState]:
    """A function of the state before the first step: the same with the encoder of a file, its batch statistics too.

    The file is read at once, so that what is wrong with it is found now. Raises ValueError, where it holds no encoder,
    another one, or one that pads otherwise; FileNotFoundError where there is none.
    """
    found, about = read(path)
    if carries not in (None, ("encoder",)):
        raise ValueError(
            f"--init: {path} has an encoder alone, and this run also starts from {', '.join(carries or ())}."
        )

    def begin(train: TrainState) -> TrainState:
        params, state = encoder_parameters(train.params), encoder_statistics(train.state)
        try:
            loaded = by_our_names(found, params, state)
            if loaded is not None:
                _say_scale(method, say)
            else:
                loaded = by_torch_names(found, method, params, state, about=about, say=say)
        except ValueError as error:
            raise ValueError(f"--init: {path} cannot be started from. {error}") from error
        like = jax.tree.map(lambda x, own: jax.numpy.asarray(x, own.dtype), loaded, (params, state))
        say(f"Starts from the encoder of {path}, with its batch statistics.")
        return with_encoder(train, like[0], statistics=like[1])

    return begin


def read(path: str | Path) -> tensors.Tensors:
    """The named arrays of a safetensors file, or of one that PyTorch saved; names of dicts within dicts are joined by
    dots. Needs PyTorch for the latter, and reads arrays alone.

    Raises ValueError for a damaged file, and for one that holds more than arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; expected weights, or a run directory.")
    if path.suffix == ".safetensors":
        arrays, about = tensors.read(path)
        return tensors.Tensors(arrays, _beside(path) | about)
    torch = _torch(f"{path} is read")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle.UnpicklingError, or whatever a damaged file makes of it
        raise ValueError(
            f"{path} holds more than arrays, or is damaged, and is not opened, as that would execute it"
            f" ({str(error).strip().splitlines()[0][:200]}). Where you trust it, save its state_dict alone, or as"
            " safetensors."
        ) from error
    found: dict[str, np.ndarray] = {}

    def gather(place: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[place] = value.detach().float().numpy() if value.is_floating_point() else value.numpy()
        elif isinstance(value, Mapping):
            for name, inner in value.items():
                gather(f"{place}.{name}" if place else str(name), inner)

    gather("", saved)
    return tensors.Tensors(found, _beside(path))


def _beside(path: Path) -> dict[str, str]:
    """What a config.json beside a file says of its network, as the Hugging Face Hub keeps one beside timm's."""
    try:
        said = parsed((path.parent / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    name = said.get("architecture") if isinstance(said, dict) else None
    return {"architecture": name} if isinstance(name, str) else {}


def by_our_names(
    found: Mapping[str, np.ndarray], params: PyTree, state: PyTree
) -> tuple[PyTree, PyTree] | None:
    """The encoder of a file that `export_run` wrote to safetensors, in the form of `params` and `state`; None where the
    file has other names."""
    if not any(name.startswith("params/") for name in found):
        return None
    new = []
    for what, tree in (("params", params), ("state", state)):
        inside = {
            name.rpartition("encoder/")[2]: x
            for name, x in found.items()
            if name.startswith(f"{what}/") and "encoder/" in name
        }
        own = by_path(tree)
        wrong = [name for name, x in own.items() if name not in inside or inside[name].shape != x.shape]
        if wrong or inside.keys() - own.keys():
            some = ", ".join([*wrong, *sorted(inside.keys() - own.keys())][:4])
            raise ValueError(f"The file has another encoder than this config: {what} differ in {some}.")
        structure = jax.tree.structure(tree)
        new.append(jax.tree.unflatten(structure, [inside[name] for name in own]))
    return new[0], new[1]


def by_torch_names(
    found: Mapping[str, np.ndarray],
    method: Method,
    params: PyTree,
    state: PyTree,
    *,
    about: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> tuple[PyTree, PyTree]:
    """The ResNet of a file of PyTorch's, in the form of `params` and `state`.

    about
        what the file says of itself: "pool", how the max pool of its stem is padded (`nets.resnet`), which is "torch"
        but in a file that `export_run` wrote of a run that pads otherwise; "architecture", timm's name of it.

    By the names of torchvision and timm, below a prefix; or those of SimCLRv2's networks converted to PyTorch.
    """
    made, about = made_of(method), about or {}
    module = check_named(made.module)
    anchors = [name for name in found if name == ANCHOR or name.endswith(f".{ANCHOR}")]
    if anchors:  # Google's weights were trained with TensorFlow's padding
        prefix, names, pool = anchors[0].removesuffix(ANCHOR), simclr_v2_names, "same"
        inside = {name.removeprefix(prefix): x for name, x in found.items() if name.startswith(prefix)}
    else:
        prefix, inside = without_prefix(found)
        names, pool = torchvision_names, about.get("pool", "torch")
        check_file(module, inside, about)
    if module.stem == "imagenet" and module.pool != pool:
        raise ValueError(
            f"The max pool of its network is padded as pool={pool!r} of nets.resnet, and that of this config as"
            f" pool={module.pool!r}: what the weights make of images would differ. Give --pool {pool} where the config"
            " has it, or set it in a copy of the config."
        )
    loaded = from_torchvision(module, params, state, inside, names=names)
    if prefix:
        say(f"The ResNet is that of {prefix}* in the file.")
    if module.variant == "d" and not anchors and "made by" not in about:
        say(
            "The 2x2 average pooling of shortcuts counts zeros beyond the edge, timm's does not: the same for images"
            " whose side is a multiple of 32."
        )
    _say_scale(method, say)
    return loaded


def _say_scale(method: Method, say: Callable[[str], None]) -> None:
    """A file does not tell how its network's images were standardized."""
    with contextlib.suppress(ValueError):
        made = made_of(method)
        by = _scale(made) + ("" if made.mean else ": they are in [0, 1]")
        say(
            f"The config standardizes images by {by}. Check that the file's network was trained with the same."
        )


def _torch(what: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{what} by PyTorch, which is not installed: pip install torch. Files of .safetensors need nothing."
        ) from error
    return torch
