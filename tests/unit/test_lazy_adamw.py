"""Tables with sparse gradients, stepped lazily, against torch's AdamW with the same gradients written out."""

import pytest
import torch
from torch import nn

from remind.engine.lazy_adamw import LazyAdamW
from remind.nn.rows import rows_of


def loss_of(table: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, sparse: bool) -> torch.Tensor:
    return (rows_of(table, rows, sparse=sparse) * weight).square().sum() + (rows_of(table, rows, sparse=sparse)).sum()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("seen", [1, 30, 3000])
def test_a_table_goes_where_adamw_takes_it(decay: float, seen: int) -> None:
    """Rows that are seen every step, every ``seen`` steps, rarely, once and never; a rate that changes at settlings."""
    torch.manual_seed(0)
    start, dense_start = torch.randn(8, 3, 2, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    lazy, plain = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    whole, other = nn.Parameter(dense_start.clone()), nn.Parameter(dense_start.clone())
    one = LazyAdamW([{"params": [whole]}, {"params": [lazy], "lr": 0.02}], lr=0.01, weight_decay=decay)
    two = torch.optim.AdamW([{"params": [other]}, {"params": [plain], "lr": 0.02}], lr=0.01, weight_decay=decay)
    generator = torch.Generator().manual_seed(1)
    for step in range(400 if seen < 3000 else 3200):
        drawn = torch.randint(0, 5, (6,), generator=generator)
        chance = torch.rand(5, generator=generator) < torch.tensor([1.0, 1 / seen, 1 / 100, 1 / 700, 0.0])
        rows = drawn[chance[drawn]] if step else torch.tensor([0, 1, 2, 5, 5])  # 5: once; 6, 7: never
        weight = torch.randn(len(rows), 1, 1, generator=generator, dtype=torch.float64)
        one.fetch(lazy, rows.unique())
        torch.testing.assert_close(lazy[rows], plain[rows], rtol=1e-6, atol=1e-7)
        for table, tensor, optimizer in ((lazy, whole, one), (plain, other, two)):
            optimizer.zero_grad()
            (loss_of(table, rows, weight, table is lazy) + tensor.square().sum()).backward()
            optimizer.step()
        if step % 150 == 149:
            one.settle()
            torch.testing.assert_close(lazy, plain, rtol=1e-6, atol=1e-7)
            for optimizer in (one, two):
                for group in optimizer.param_groups:
                    group["lr"] *= 0.5
    one.settle()
    torch.testing.assert_close(lazy, plain, rtol=1e-6, atol=1e-7)
    assert torch.equal(whole, other)


def test_settling_twice_changes_nothing() -> None:
    table = nn.Parameter(torch.randn(6, 4))
    optimizer = LazyAdamW([table], lr=0.1)
    for rows in (torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([2])):
        optimizer.zero_grad()
        rows_of(table, rows, sparse=True).square().sum().backward()
        optimizer.step()
    optimizer.settle()
    before = table.detach().clone()
    optimizer.settle()
    assert torch.equal(table, before)


def test_a_row_waits_for_its_look_up_and_nothing_else_is_touched() -> None:
    table = nn.Parameter(torch.ones(1000, 4))
    optimizer = LazyAdamW([table], lr=0.1, weight_decay=0.5)
    rows_of(table, torch.tensor([7, 7, 9]), sparse=True).sum().backward()
    assert table.grad is not None
    assert table.grad.is_sparse
    gradient = table.grad.coalesce()
    assert gradient.indices().tolist() == [[7, 9]]
    assert gradient.values().tolist() == [[2.0] * 4, [1.0] * 4]
    optimizer.step()
    assert (table != 1).any(1).nonzero().ravel().tolist() == [7, 9]
    optimizer.fetch(table, torch.tensor([3]))
    assert (table != 1).any(1).nonzero().ravel().tolist() == [3, 7, 9]
