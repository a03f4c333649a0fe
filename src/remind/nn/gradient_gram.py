"""Inner products of the gradients of single samples, from one forward and one backward pass of all of them together.

With ``J [n, p]`` the samples' gradients, ``J J^T`` (Eq. 11) is a sum over layers, and a layer's part follows
from what went into it and the gradient of what came out. ``J`` itself, ``n`` times the model's size, is never made.

Letters: ``n`` samples, ``t`` places of a sample, ``k`` maps of a batched one, ``i`` inputs, ``o`` outputs.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from remind.nn.group_router import GroupRouter
from remind.nn.imputation import GroupEmbeddings, ModalityEmbeddings
from remind.nn.soft_moe import BatchedLinear, Router, unit
from remind.types import Routing

_CELLS = 2**22  # numbers held at once

Gram = Float[Tensor, "n n"]


class Call(NamedTuple):
    """One call of a layer: what went in, what came out, and the gradients of the tensors that came out."""

    given: tuple[Any, ...]
    made: Any
    gradients: tuple[Tensor, ...]


def gradient_gram(root: nn.Module, losses: Callable[[], Float[Tensor, " n"]]) -> Gram:
    """``J J^T`` of the losses of ``n`` samples, by the parameters of ``root``.

    Args:
        root: what is derived by. Its layers are among ``RULES``, called once, and their inputs come sample by sample.
        losses: computes the losses, with ``root`` within.

    Raises:
        ValueError: for a parameter in a layer without a rule.
    """
    calls: list[tuple[nn.Module, tuple[Any, ...], Any]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, given, made: calls.append((layer, given, made)))
        for layer in _layers(root)
    ]
    try:
        with torch.enable_grad():
            each = losses()
            total = each.sum()
    finally:
        for hook in hooks:
            hook.remove()
    outputs = [_tensors(made) for _, _, made in calls]
    wanted = [tensor for tensors in outputs for tensor in tensors]
    found = iter(torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True))
    gram = each.new_zeros(len(each), len(each))
    with torch.no_grad():
        for (layer, given, made), tensors in zip(calls, outputs, strict=True):
            call = Call(given, made, tuple(next(found) for _ in tensors))
            for part in RULES[type(layer)](layer, call, len(each)):
                gram += part
    return gram


def has_rules(root: nn.Module) -> bool:
    """Whether ``gradient_gram`` knows every layer."""
    try:
        return bool(list(_layers(root)))
    except ValueError:
        return False


def plain_gram(root: nn.Module, losses: Callable[[], Float[Tensor, " n"]]) -> Gram:
    """The same by ``n`` backward passes side by side, one parameter after another: for layers that have no rule."""
    with torch.enable_grad():
        each = losses()
    gram, eye = each.new_zeros(len(each), len(each)), torch.eye(len(each), device=each.device, dtype=each.dtype)
    for parameter in root.parameters():
        rows = torch.autograd.grad(each, parameter, eye, is_grads_batched=True, retain_graph=True, allow_unused=True)[0]
        if rows is not None:
            gram += _own(rows)
    return gram


def weighted_direction(
    parameters: Iterable[nn.Parameter], losses: Float[Tensor, " n"], weights: Float[Tensor, " n"]
) -> Float[Tensor, " p"]:
    """``u^T J``, one more backward pass (Eq. 13): the gradient of the weighted losses."""
    found = torch.autograd.grad(
        (weights * losses).sum(), list(parameters), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([part.flatten() for part in found])


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) in RULES:
        yield module
        return
    if own := [name for name, _ in module.named_parameters(recurse=False)]:
        raise ValueError(f"{type(module).__name__} has parameters ({', '.join(own)}) and no rule")
    for child in module.children():
        yield from _layers(child)


def _tensors(made: Any) -> list[Tensor]:
    parts = [made] if isinstance(made, Tensor) else made
    return [part for part in parts if isinstance(part, Tensor) and part.requires_grad]


def _linear(layer: nn.Linear, call: Call, n: int) -> Iterator[Gram]:
    given, gradient = call.given[0].view(n, -1, layer.in_features), call.gradients[0].view(n, -1, layer.out_features)
    yield _outer(given[None], gradient[None])
    if layer.bias is not None:
        yield _own(gradient.sum(1))


def _batched(layer: BatchedLinear, call: Call, n: int) -> Iterator[Gram]:
    given, gradient = (rows.unflatten(1, (n, -1)) for rows in (call.given[0], call.gradients[0]))
    yield _outer(given, gradient)
    yield _own(gradient.sum(2).transpose(0, 1))


def _norm(layer: nn.LayerNorm, call: Call, n: int) -> Iterator[Gram]:
    normal, gradient = F.layer_norm(call.given[0], layer.normalized_shape, eps=layer.eps), call.gradients[0]
    yield _own((normal * gradient).view(n, -1, *layer.normalized_shape).sum(1))
    yield _own(gradient.view(n, -1, *layer.normalized_shape).sum(1))


def _router(layer: Router, call: Call, n: int) -> Iterator[Gram]:
    by_phi, by_scale = _of_router(layer, call.given[0], call.gradients[0], layer.phi[None])
    yield _own(by_phi)
    yield _own(by_scale)


def _group_router(layer: GroupRouter, call: Call, n: int) -> Iterator[Gram]:
    """A residual is added to the shared vectors, so that its gradient is theirs, where it is in play."""
    z, _, group = call.given
    routing = cast(Routing, call.made)
    phi = layer.shared.phi + routing.opened[:, None, None, None] * layer.residual[group.clamp_min(0)]
    by_phi, by_scale = _of_router(layer.shared, z, _by_logits(routing, call.gradients), phi)
    shared = _own(by_phi)
    yield shared
    yield shared * ((group[:, None] == group) & routing.opened & routing.opened[:, None])
    yield _own(by_scale)


def _by_logits(routing: Routing, gradients: tuple[Tensor, ...]) -> Float[Tensor, "n t e s"]:
    """Back through both softmaxes."""
    assert routing.dispatch is not None
    dispatch, combine = (p * g for p, g in zip((routing.dispatch, routing.combine), gradients, strict=True))
    return (
        dispatch
        - routing.dispatch * dispatch.sum(1, keepdim=True)
        + combine
        - routing.combine * combine.sum((2, 3), keepdim=True)
    )


def _of_router(
    router: Router, z: Float[Tensor, "n t d"], gradient: Float[Tensor, "n t e s"], phi: Float[Tensor, "#n d e s"]
) -> tuple[Float[Tensor, "n d e s"], Float[Tensor, "n 1"]]:
    """Gradients by the slot vectors that a sample is routed by, and by the scale, from those by the cosine logits."""
    norms = torch.linalg.vector_norm(phi, dim=1, keepdim=True).clamp_min(1e-12)
    direction = phi / norms
    by_direction = torch.einsum("ntd,ntes->ndes", unit(z), gradient)
    along = (direction * by_direction).sum(1, keepdim=True)
    return router.scale * (by_direction - direction * along) / norms, along.flatten(1).sum(1, keepdim=True)


def _group_embeddings(layer: GroupEmbeddings, call: Call, n: int) -> Iterator[Gram]:
    """A combination without a vector has parts of its nearest groups'."""
    group, available = call.given
    parts = F.pad(layer.nearest(available), (0, len(layer.vectors) - len(layer.nearest.masks)))
    parts[group >= 0] = F.one_hot(group[group >= 0], parts.shape[1]).to(parts)
    yield _own(call.gradients[0]) * (parts @ parts.T)


def _modality_embeddings(layer: ModalityEmbeddings, call: Call, n: int) -> Iterator[Gram]:
    yield _own(call.gradients[0])


RULES: dict[type[nn.Module], Callable[[Any, Call, int], Iterator[Gram]]] = {
    nn.Linear: _linear,
    nn.LayerNorm: _norm,
    BatchedLinear: _batched,
    Router: _router,
    GroupRouter: _group_router,
    GroupEmbeddings: _group_embeddings,
    ModalityEmbeddings: _modality_embeddings,
}


def _own(rows: Float[Tensor, "n *p"]) -> Gram:
    """Of gradients that are small enough to have."""
    flat = rows.reshape(len(rows), -1)
    return flat @ flat.T


def _outer(given: Float[Tensor, "k n t i"], gradient: Float[Tensor, "k n t o"]) -> Gram:
    """Of gradients ``sum_t given x gradient``: by them, or by pairs of places, whichever is less work."""
    _, n, places, inputs = given.shape
    outputs = gradient.shape[-1]
    if n * places * places * (inputs + outputs) < (places + n) * inputs * outputs:
        gram = given.new_zeros(n, n)
        size = max(1, _CELLS // (n * places) ** 2)
        for a, e in zip(given.flatten(1, 2).split(size), gradient.flatten(1, 2).split(size), strict=True):
            pairs = (a @ a.mT) * (e @ e.mT)
            gram += pairs.view(-1, n, places, n, places).sum((0, 2, 4))
        return gram
    gram = given.new_zeros(n, n)
    size = max(1, _CELLS // (n * inputs))
    for a, e in zip(given, gradient, strict=True):
        for columns in e.split(size, dim=-1):
            gram += _own(a.mT @ columns)
    return gram
