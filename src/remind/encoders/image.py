"""Images: torchvision's ViT-B/16 with all its tokens, as in the paper's EMBED runs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

NUM_TOKENS = 197  # the class token and 14 x 14 patches of a 224 x 224 image


class ImageEncoder(nn.Module):
    """``[n, 3, 224, 224]`` in ImageNet's normalisation in, ``[n, 197, 768]`` out; projected where ``dim`` differs."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        from torchvision.models import vit_b_16

        self.num_tokens = NUM_TOKENS
        self.vit = vit_b_16()
        self.vit.heads = nn.Identity()
        width = self.vit.hidden_dim
        self.project = nn.Identity() if dim == width else nn.Linear(width, dim)

    def forward(self, image: Float[Tensor, "n 3 224 224"]) -> Float[Tensor, "n l d"]:
        """Every token of the last layer, after its norm."""
        patches = self.vit._process_input(image)
        first = self.vit.class_token.expand(len(image), -1, -1)
        return self.project(self.vit.encoder(torch.cat([first, patches], dim=1)))
