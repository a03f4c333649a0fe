"""Images: torchvision's ViT-B/16 with all its tokens, as in the paper's EMBED runs, or ResNet-50."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remind.encoders import Backbone
from remind.encoders.pooling import PooledMap, even_grid
from remind.encoders.projected import ProjectedEncoder, narrowed, straight
from remind.pretrained import load_torchvision
from remind.registry import Positive
from remind.types import Ragged

VIT_SIZE = 224  # its position embeddings are for 14 x 14 patches
STRIDE = 32  # ResNet-50's, from pixels to cells


class ImageEncoder(ProjectedEncoder):
    """``[n, 3, size, size]`` in ImageNet's normalisation in, ``[n, tokens, dim]`` out.

    Args:
        shape: the size of a side.
        dim: width of the tokens.
        backbone: ``vit_b_16`` gives tokens of width 768; ``resnet50`` cells of 2048, which the paper makes 512 first.
        weights: ``imagenet``, ``random``, or a file of torchvision's weights.
        size: the side to which images are resized; a ViT needs 224.
        tokens: the cells to which the ViT's patches (without its class token), or ResNet's map, are averaged. By
            default all 197 of the ViT, and one of the ResNet.
        frozen: whether the backbone stays as it is.
    """

    def __init__(
        self,
        shape: int,
        dim: int,
        *,
        backbone: Literal["vit_b_16", "resnet50"] = "vit_b_16",
        weights: str = "imagenet",
        size: Positive = VIT_SIZE,
        tokens: Positive | None = None,
        frozen: bool = False,
    ) -> None:
        if backbone == "vit_b_16":
            made = ViT(shape, weights, tokens)
            project = straight(made.width, dim)
        else:
            made = resnet50(shape, weights, tokens or 1)
            project = narrowed(made.width, dim)
        super().__init__(made, project, frozen=frozen)


class ViT(Backbone):
    """ViT-B/16 (Dosovitskiy et al., 2021) without its head: tokens after the last norm, the class token first."""

    def __init__(self, size: int, weights: str, tokens: int | None) -> None:
        super().__init__()
        if size != VIT_SIZE:
            raise ValueError(f"vit_b_16 needs images of size {VIT_SIZE}, not {size}; set that, or backbone=resnet50")
        from torchvision import models

        self.vit = models.vit_b_16()
        del self.vit.heads
        load_torchvision(self.vit, weights, "vit_b_16", "image")
        side = self.vit.image_size // self.vit.patch_size
        self.cells = (side, side)
        self.pool = None if tokens is None else nn.AdaptiveAvgPool2d(even_grid(tokens, self.cells))
        self.width, self.num_tokens = self.vit.hidden_dim, tokens or self.vit.seq_length

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Ragged:
        """All tokens ``[n, 197, 768]``, or patches averaged to ``[n, tokens, 768]``."""
        patches = self.vit._process_input(inputs)
        first = self.vit.class_token.expand(len(inputs), -1, -1)
        tokens = self.vit.encoder(torch.cat([first, patches], dim=1))
        if self.pool is None:
            return Ragged(tokens)
        patches = tokens[:, 1:].transpose(1, 2).unflatten(2, self.cells)
        return Ragged(self.pool(patches).flatten(2).transpose(1, 2))


def resnet50(size: int, weights: str, tokens: int) -> PooledMap:
    """ResNet-50 (He et al., 2016): cells of width 2048, one for 32 x 32 pixels before pooling.

    Without pretrained weights, every residual branch begins at zero: batch norms keep their statistics here (see
    ``Encoder.prepare``), and would not hold back a sum of random branches.
    """
    from torchvision import models

    side = -(-size // STRIDE)
    pool, network = nn.AdaptiveAvgPool2d(even_grid(tokens, (side, side))), models.resnet50(zero_init_residual=True)
    made = PooledMap(network, pool, width=network.fc.in_features, tokens=tokens)
    load_torchvision(made.network, weights, "resnet50", "image")
    return made
