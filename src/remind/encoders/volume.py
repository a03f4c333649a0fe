"""Volumes and videos: torchvision's R3D-18, as in the paper's runs on videos."""

from torch import nn

from remind.encoders.pooling import PooledMap, even_grid
from remind.encoders.projected import ProjectedEncoder, narrowed
from remind.modalities.volume import VolumeShape
from remind.pretrained import load_torchvision
from remind.registry import Positive

FRAME_STRIDE, STRIDE = 8, 16  # from frames and pixels to cells


class VolumeEncoder(ProjectedEncoder):
    """``[n, 3, frames, size, size]`` in Kinetics' normalisation in, ``[n, tokens, dim]`` out.

    Args:
        shape: frames, and the size of a side.
        dim: width of the tokens; the paper's Linear to 512 comes before it.
        weights: ``kinetics``, ``random``, or a file of torchvision's weights.
        frames: the frames (slices) to which volumes are resized.
        size: the side to which they are resized.
        tokens: the cells to which the last map is averaged; one by default.
        frozen: whether the backbone stays as it is.
    """

    def __init__(
        self,
        shape: VolumeShape,
        dim: int,
        *,
        weights: str = "kinetics",
        frames: Positive = 16,
        size: Positive = 224,
        tokens: Positive | None = None,
        frozen: bool = False,
    ) -> None:
        backbone = r3d_18(shape, weights, tokens or 1)
        super().__init__(backbone, narrowed(backbone.width, dim), frozen=frozen)


def r3d_18(shape: VolumeShape, weights: str, tokens: int) -> PooledMap:
    """R3D-18 (Tran et al., 2018): cells of width 512, one for 8 frames of 16 x 16 pixels before pooling.

    Without pretrained weights, every residual branch begins at zero, as in ``resnet50``.
    """
    from torchvision.models import video

    side = -(-shape.size // STRIDE)
    grid = even_grid(tokens, (-(-shape.frames // FRAME_STRIDE), side, side))
    network = video.r3d_18()
    for block in network.modules():
        if isinstance(block, video.resnet.BasicBlock):
            nn.init.zeros_(block.get_parameter("conv2.1.weight"))
    made = PooledMap(network, nn.AdaptiveAvgPool3d(grid), width=network.fc.in_features, tokens=tokens)
    load_torchvision(made.network, weights, "r3d_18", "volume")
    return made
