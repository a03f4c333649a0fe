"""Images: torchvision's ViT-B/16 with all its tokens, as in the paper's EMBED runs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remind.encoders import Encoder

NUM_TOKENS = 197  # the class token and 14 x 14 patches of a 224 x 224 image


class ImageEncoder(Encoder):
    """``[n, 3, 224, 224]`` in ImageNet's normalisation in, ``[n, 197, 768]`` out; projected where ``dim`` differs."""

    def __init__(self, shape: tuple[int, ...], dim: int) -> None:
        super().__init__()
        if shape != (3, 224, 224):
            raise ValueError(f"images of shape {shape} must be resized to (3, 224, 224)")
        from torchvision.models import vit_b_16

        self.num_tokens = NUM_TOKENS
        self.vit = vit_b_16()
        del self.vit.heads
        width = self.vit.hidden_dim
        self.project = nn.Identity() if dim == width else nn.Linear(width, dim)

    def forward(self, inputs: Float[Tensor, "n 3 224 224"]) -> Float[Tensor, "n l d"]:
        """Every token of the last layer, after its norm."""
        patches = self.vit._process_input(inputs)
        first = self.vit.class_token.expand(len(inputs), -1, -1)
        return self.project(self.vit.encoder(torch.cat([first, patches], dim=1)))
