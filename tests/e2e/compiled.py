"""``compiled.py COHORT METHOD OVERRIDES...``: a fusion's logits and gradients, compiled and not; for test_compiled.

In a process of its own, since the tests' checks of shapes are not for torch's compiler. Prints two numbers: the largest
difference of a logit, and of a gradient relative to the largest of its tensor.
"""

import sys

import torch

from remind.cohort.cohort import load
from remind.config import load_recipe
from remind.engine.compiled import compile_fusion
from remind.engine.fitted import FittedModel


def main() -> None:
    _, folder, method, *overrides = sys.argv
    cohort = load(folder)
    torch.manual_seed(0)
    fitted = FittedModel.create(cohort, load_recipe(None, [*overrides, f"method={method}", "model.dropout=0"]))
    fitted.model.fusion.specialise()
    for parameter in fitted.model.fusion.of_groups():
        torch.nn.init.normal_(parameter, std=0.3)
    names = [name for name, _ in fitted.model.named_parameters()]
    dataset = fitted.dataset(cohort, cohort.rows("train"))
    batches = [dataset.__getitems__(range(size)) for size in (40, 7, 90)]

    def found(batch):
        torch.manual_seed(1)
        fitted.model.zero_grad()
        logits = fitted.model(batch).logits
        logits.square().sum().backward()
        return logits.detach(), [one.grad for one in fitted.model.parameters() if one.grad is not None]

    expected = [found(batch) for batch in batches]
    compile_fusion(fitted.model.fusion)
    assert [name for name, _ in fitted.model.named_parameters()] == names
    apart, askew = 0.0, 0.0
    for (logits, gradients), batch in zip(expected, batches, strict=True):
        made, of_them = found(batch)
        apart = max(apart, float((made - logits).abs().max()))
        for one, other in zip(of_them, gradients, strict=True):
            askew = max(askew, float((one - other).abs().max() / other.abs().max().clamp_min(1e-3)))
    print(apart, askew)


if __name__ == "__main__":
    main()
