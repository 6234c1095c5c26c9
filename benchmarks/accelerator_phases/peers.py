"""The same work in PyTorch: networks, augmentation on the device, the loss. What the phases compare with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# --- networks -------------------------------------------------------------------------------------------------------


def resnet(depth: int, *, stem: str, width: float = 1.0) -> tuple[nn.Module, int]:
    """A ResNet of torchvision's with pooled features, and how many these are; `stem` as in jaxcl's."""
    import torchvision

    if width != 1:  # a small one, to rehearse with
        net = torchvision.models.resnet._resnet(
            torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], None, False
        )
    else:
        net = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    features = net.fc.in_features
    net.fc = nn.Identity()
    if stem == "cifar":
        net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    return net, features


def with_head(net: nn.Module, features: int, out: int = 128) -> nn.Module:
    """SimCLR's head of two layers, with batch norm after each."""
    layers = [nn.Linear(features, features, bias=False), nn.BatchNorm1d(features), nn.ReLU()]
    return nn.Sequential(net, *layers, nn.Linear(features, out, bias=False), nn.BatchNorm1d(out))


def normalized_cross_entropy(a, b, temperature):
    z = F.normalize(torch.cat([a, b]).float(), dim=1)
    n = len(a)
    s = z @ z.T / temperature
    s = s.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=s.device), float("-inf"))
    # Not `F.cross_entropy`: the compiler of PyTorch 2.11 fails at its mean (Triton 3.6, seen on an H100).
    positive = torch.cat([s.diagonal(n), s.diagonal(-n)])
    return (s.logsumexp(1) - positive).mean()


# --- augmentation: uint8 [b, h, w, c] -> float [b, c, size, size] -------------------------------------------


def none(images, size, *, strength=0.5, blur=False):
    return images.permute(0, 3, 1, 2).float() / 255


def by_hand(images, size, *, strength=0.5, blur=False):
    """SimCLR's recipe as batched tensor operations, every image with draws of its own; one order of the color changes
    for all, and crops by a bicubic grid, without antialiasing: less work than the recipe asks for."""
    n, where = len(images), images.device
    x = none(images, size)

    def uniform(low, high):
        return torch.empty(n, device=where).uniform_(low, high)

    area, log_ratio = uniform(0.08, 1), uniform(-0.2877, 0.2877)
    h, w = (area / log_ratio.exp()).sqrt().clamp_max(1), (area * log_ratio.exp()).sqrt().clamp_max(1)
    cx, cy = (1 - w) * uniform(-1, 1), (1 - h) * uniform(-1, 1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(w)
    theta = torch.stack([torch.stack([w * flip, zero, cx], 1), torch.stack([zero, h, cy], 1)], 1)
    grid = F.affine_grid(theta, (n, x.shape[1], size, size), align_corners=False)
    x = F.grid_sample(x, grid, "bicubic", "reflection", align_corners=False).clamp(0, 1)
    most = 0.8 * strength
    factors = [uniform(1 - most, 1 + most).view(-1, 1, 1, 1) for _ in range(3)]
    jittered = (x * factors[0]).clamp(0, 1)
    center = jittered.mean((2, 3), keepdim=True)
    jittered = ((jittered - center) * factors[1] + center).clamp(0, 1)
    jittered = torch.lerp(gray(jittered).expand_as(x), jittered, factors[2]).clamp(0, 1)
    jittered = hue(jittered, uniform(-0.2 * strength, 0.2 * strength)).clamp(0, 1)
    x = torch.where(uniform(0, 1).view(-1, 1, 1, 1) < 0.8, jittered, x)
    x = torch.where(uniform(0, 1).view(-1, 1, 1, 1) < 0.2, gray(x).expand_as(x), x)
    if blur:
        x = torch.where(uniform(0, 1).view(-1, 1, 1, 1) < 0.5, blurred(x, uniform(0.1, 2.0)), x)
    return x.contiguous(memory_format=torch.channels_last)


def gray(x):
    return (x * torch.tensor([0.2989, 0.587, 0.114], device=x.device).view(3, 1, 1)).sum(1, keepdim=True)


def hue(x, shift):
    value, _ = x.max(1)
    chroma = value - x.amin(1)
    r, g, b = x.unbind(1)
    safe = chroma.clamp_min(1e-8)
    h = torch.where(
        value == r, (g - b) / safe % 6, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)
    )
    h = (h + 6 * shift.view(-1, 1, 1)) % 6
    corners = []
    for n in (5, 3, 1):
        k = (n + h) % 6
        corners.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(corners, 1)


def blurred(x, sigma):
    """A Gaussian of its own for every image, rows and columns apart."""
    b, c, h, w = x.shape
    radius = max(1, h // 20)
    at = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    taps = torch.exp(-(at**2) / (2 * sigma[:, None] ** 2))
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(c, 0)
    x = x.reshape(1, b * c, h, w)
    x = F.conv2d(x, taps[:, None, :, None], padding=(radius, 0), groups=b * c)
    return F.conv2d(x, taps[:, None, None, :], padding=(0, radius), groups=b * c).reshape(b, c, h, w)


def torchvision_v2(images, size, *, strength=0.5, blur=False):
    """torchvision's transforms v2 on the whole batch at once: what it draws, it draws once for all images, which no
    SimCLR does; the least that it can cost."""
    from torchvision.transforms import v2

    most = 0.8 * strength
    steps = [
        v2.RandomResizedCrop(size, antialias=True, interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(most, most, most, most / 4)], 0.8),
        v2.RandomGrayscale(0.2),
        *([v2.RandomApply([v2.GaussianBlur(size // 20 * 2 + 1, (0.1, 2.0))], 0.5)] if blur else []),
    ]
    x = v2.Compose(steps)(images.permute(0, 3, 1, 2))
    return (x.float() / 255).contiguous(memory_format=torch.channels_last)


def torchvision_v2_each(images, size, *, strength=0.5, blur=False):
    """The same for one image at a time, as its draws are meant."""
    return torch.cat([torchvision_v2(image[None], size, strength=strength, blur=blur) for image in images])


# --- a training step --------------------------------------------------------------------------------------------------


def training_step(net, augment, size, *, temperature, amp: bool, blur: bool, compile: str | None):
    """(uint8 images on the device) -> loss: two views, network, loss, gradient, SGD with momentum.

    compile
        a back end of torch.compile for the network and, where they draw for each image on the device, for the views
        (torchvision's draw in Python, which would be compiled anew for each draw).
    """
    where = next(net.parameters()).device.type
    optimizer = torch.optim.SGD(net.parameters(), 0.12, momentum=0.9, weight_decay=5e-4)
    autocast = torch.autocast(where, torch.bfloat16, enabled=amp)

    def views_of(images):
        x = torch.cat([augment(images, size, blur=blur) for _ in range(2)])
        return x.contiguous(memory_format=torch.channels_last)

    def loss_of(x):
        with autocast:
            z = net(x)
        return normalized_cross_entropy(*z.chunk(2), temperature)

    if compile:
        loss_of = torch.compile(loss_of, backend=compile)
        views_of = torch.compile(views_of, backend=compile) if augment is by_hand else views_of

    def step(images):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(views_of(images))
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
