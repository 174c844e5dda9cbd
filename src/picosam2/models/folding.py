"""Batch norms folded into the convolutions before them: how the network is deployed everywhere."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_Network = TypeVar("_Network", bound=nn.Module)


def fold_batchnorm(model: _Network) -> _Network:
    """A copy in evaluation mode whose convolutions have taken in the batch norms after them."""
    folded = deepcopy(model).cpu().float().eval()
    for sequence in [m for m in folded.modules() if isinstance(m, nn.Sequential)]:
        for index in range(len(sequence) - 1):
            convolution, norm = sequence[index], sequence[index + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[index] = fuse_conv_bn_eval(convolution, norm)
                sequence[index + 1] = nn.Identity()
    return folded
