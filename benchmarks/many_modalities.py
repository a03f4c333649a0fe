"""A fusion step with 4 modalities available of 64 that there are, against 4 of 16: forward and backward."""

import torch
from cases import BATCH, GROUPS, encoded_of, forward_and_backward, remind_fusion
from timing import compare

FEW, MANY, AVAILABLE, BATCHES = 16, 64, 4, 4


def main() -> None:
    torch.manual_seed(0)
    steps = {}
    for modalities in (FEW, MANY):
        fusion, batches = remind_fusion(modalities), []
        for _ in range(BATCHES):
            chosen = torch.rand(BATCH, modalities).argsort(1)[:, :AVAILABLE]
            masks = torch.zeros(BATCH, modalities, dtype=torch.bool).scatter_(1, chosen, True)
            batches.append(encoded_of(masks, torch.randint(GROUPS, (BATCH,))))
        steps[modalities] = fusion, batches
    compare(
        f"a fusion step with {MANY} modalities, {AVAILABLE} of them available",
        lambda: forward_and_backward(*steps[MANY], collapsed=True),
        lambda: forward_and_backward(*steps[FEW], collapsed=True),
        named=f"{FEW} modalities, {AVAILABLE} of them available",
        target=1 / 1.3,
    )


if __name__ == "__main__":
    main()
