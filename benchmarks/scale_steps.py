"""A stage-two step of REMIND's training against the number of modalities, and of groups, with the fitted exponent.

Simulated cohorts; every sample has 4 modalities, however many there are, and every group 12 training samples or more.
Each point is a process of its own; seconds a step are the reciprocal of the median rate that ``analyze cost`` measures.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from timing import exponent, report

from remind.analysis.cost import Cost, apart
from remind.cohort.table import write_cohort
from remind.config import load_recipe

AVAILABLE, FEATURES, STEPS, WARMUP = 4, 8, 60, 10
SWEEPS = {
    "modalities": [(m, 60) for m in (4, 8, 16, 32, 64)],  # modalities, and groups (of 4 modalities there is one)
    "groups": [(24, g) for g in (10, 100, 1000, 5000)],
}
TARGET = {"modalities": 0.5, "groups": 0.1}  # exponents: half of what a cost in proportion would be, and hardly any
RECIPE = (
    *("method=remind", "model.dim=64", "model.experts=16", "encoders.tabular.tokens=4", "train.device=cpu"),
    *("train.batch_size=64", "train.threads=2", "data.features=none"),
)


def write(folder: Path, modalities: int, groups: int) -> Path:
    """Noise in groups of equal size: a step's cost does not depend on what the numbers say."""
    rng = np.random.default_rng(0)
    drawn = {
        tuple(sorted(rng.choice(modalities, min(AVAILABLE, modalities), replace=False))) for _ in range(20 * groups)
    }
    masks = np.zeros((min(groups, len(drawn)), modalities), dtype=bool)
    for row, members in enumerate(sorted(drawn)[: len(masks)]):
        masks[row, list(members)] = True
    samples = max(4000, 20 * len(masks))
    mask = masks[np.arange(samples) % len(masks)]
    cells = np.where(mask[:, :, None], rng.standard_normal((samples, modalities, FEATURES)), np.nan)
    names = [f"m{place}_{feature}" for place in range(modalities) for feature in range(FEATURES)]
    table = pl.DataFrame(cells.reshape(samples, -1).astype(np.float32), names, orient="row").fill_nan(None)
    first = [
        pl.Series("id", [f"{n:06d}" for n in range(samples)]),
        pl.Series("outcome", rng.integers(2, size=samples)).replace_strict([0, 1], ["no", "yes"]),
    ]
    kinds = {
        f"m{place}": {"kind": "tabular", "columns": [f"m{place}_{feature}" for feature in range(FEATURES)]}
        for place in range(modalities)
    }
    label = {"column": "outcome", "classes": ["no", "yes"]}
    spec = {"name": f"{modalities} modalities", "id": "id", "label": label, "modalities": kinds}
    return write_cohort(folder, spec, table.select(*first, *names))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("against", choices=SWEEPS)
    asked = parser.parse_args()
    recipe, points = load_recipe(None, RECIPE), []
    for modalities, groups in SWEEPS[asked.against]:
        with tempfile.TemporaryDirectory() as place:
            folder = write(Path(place) / "cohort", modalities, groups)
            found: Cost = apart(folder, recipe, 1, steps=STEPS, warmup=WARMUP, scratch=Path(place))
        seconds, mib = 1 / found.steps_per_second, found.peak_memory_bytes / 2**20
        points.append({"modalities": modalities, "groups": groups, "step_seconds": seconds, "mib": mib})
    slope = exponent(points, asked.against, "step_seconds")
    report(
        f"a stage-two step with {AVAILABLE} modalities available, {points[0][asked.against]:,} to "
        f"{points[-1][asked.against]:,} {asked.against}: time grows as {asked.against}^{slope:.2f}",
        f"{asked.against}^{TARGET[asked.against]}",
        2 ** (TARGET[asked.against] - slope),
        1.0,
        points=points,
        exponent=slope,
    )


if __name__ == "__main__":
    main()
