"""Batches of a cohort, as the model wants them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from remind.cohort.batch import Batch, Packed
from remind.cohort.cohort import Cohort
from remind.cohort.combination import GroupTable
from remind.errors import RemindError
from remind.modalities import Reader, Transform


class CohortDataset(Dataset):
    """Some rows of a cohort, fetched a batch at a time.

    ``readers`` give the inputs of each modality; whoever has computed what a frozen backbone makes of them may put a
    reader of that in its place.
    """

    readers: dict[str, Reader]

    def __init__(
        self, cohort: Cohort, chosen: np.ndarray, transforms: Mapping[str, Transform], groups: GroupTable
    ) -> None:
        if cohort.modalities != groups.modalities:
            raise RemindError(
                f"{cohort.spec.name}: its modalities ({', '.join(cohort.modalities)}) are not those the model was "
                f"trained on ({', '.join(groups.modalities)}); name them alike, in the same order, in cohort.yaml."
            )
        self.rows = torch.from_numpy(chosen)
        self.available = torch.from_numpy(cohort.available[chosen])
        self.group = torch.from_numpy(groups.index(cohort.available[chosen]))
        self.target = torch.from_numpy(cohort.target[chosen])
        self.readers = {name: transform.reader(cohort.cells(name, chosen)) for name, transform in transforms.items()}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """One batch; each modality's inputs are those of the samples that have it."""
        chosen = torch.as_tensor(indices)
        available = self.available[chosen]
        packed = {}
        for place, (name, read) in enumerate(self.readers.items()):
            here = available[:, place].nonzero().ravel()
            packed[name] = Packed(read(chosen[here].tolist()), here)
        return Batch(packed, available, self.group[chosen], self.target[chosen], self.rows[chosen])
