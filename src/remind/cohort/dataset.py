"""Batches of a cohort, as the model wants them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from remind.cohort.batch import Batch, Packed, TabularInput
from remind.cohort.cohort import Cohort
from remind.cohort.combination import GroupTable
from remind.cohort.tabular import TabularTransform
from remind.errors import RemindError


class CohortDataset(Dataset):
    """Some rows of a cohort, transformed once and held in memory; fetched a batch at a time."""

    def __init__(
        self, cohort: Cohort, chosen: np.ndarray, transforms: Mapping[str, TabularTransform], groups: GroupTable
    ) -> None:
        if cohort.modalities != groups.modalities:
            raise RemindError(
                f"{cohort.spec.name}: its modalities ({', '.join(cohort.modalities)}) are not those the model was "
                f"trained on ({', '.join(groups.modalities)}); name them alike, in the same order, in cohort.yaml."
            )
        for name, transform in transforms.items():
            wanted = [*transform.numbers, *transform.categories]
            if set(wanted) != set(cohort.spec.modalities[name].columns):
                raise RemindError(
                    f"{cohort.spec.name}: modality {name!r} has other columns than the model was "
                    f"trained on ({', '.join(wanted)}); name those in cohort.yaml."
                )
        samples = cohort.samples[chosen]
        self.rows = torch.from_numpy(chosen)
        self.available = torch.from_numpy(cohort.available[chosen])
        self.group = torch.from_numpy(groups.index(cohort.available[chosen]))
        self.target = torch.from_numpy(cohort.target[chosen])
        self.tables = {name: transform.apply(samples) for name, transform in transforms.items()}
        for name, table in self.tables.items():
            if broken := (~table.numbers.isfinite()).any(dim=1).nonzero().ravel().tolist():
                named = ", ".join(cohort.ids[chosen[place]] for place in broken[:5])
                raise RemindError(
                    f"{cohort.spec.name}: modality {name!r} of {len(broken)} samples (ids {named}) is too far from the "
                    "training rows for a number; mend the cells."
                )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """One batch; each modality's inputs are those of the samples that have it."""
        chosen = torch.as_tensor(indices)
        available = self.available[chosen]
        packed = {}
        for place, (name, table) in enumerate(self.tables.items()):
            here = available[:, place].nonzero().ravel()
            packed[name] = Packed(TabularInput(*(part[chosen[here]] for part in table)), here)
        return Batch(packed, available, self.group[chosen], self.target[chosen], self.rows[chosen])
