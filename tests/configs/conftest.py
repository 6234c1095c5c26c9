"""What the tests of configs share."""

import pytest

from jaxcl.nets.resnet import DEPTHS


@pytest.fixture
def few_blocks(monkeypatch):
    """A ResNet of any depth has blocks of each kind alone: a first one, one whose shortcut is the map itself, and one
    that makes the map smaller. Tracing takes its time; slow tests trace each depth as it is."""
    for depth, (_, bottleneck) in DEPTHS.items():
        monkeypatch.setitem(DEPTHS, depth, ((2, 0, 0, 1), bottleneck))
