"""The diagonal of a loss's Hessian over calibration samples, by Hutchinson's probes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunekit.errors import ScorerError
from prunekit.inputs import Sample, reals
from prunekit.scorers.calibrate import checked, checksum, finite, to_model
from prunekit.scorers.needs import Objective
from prunekit.scorers.undisturbed import restore_caches, tensor_caches, untouched

Progress = Callable[[int, int], None]


def hessian_diagonal(
    model: nn.Module,
    samples: Sequence[Sample],
    objective: Objective,
    weights: Mapping[str, nn.Parameter],
    probes: int,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Mean over samples of the diagonal of the Hessian, for each parameter in its shape, of complex ones in ``reals``'.

    E[v * (H v)] over vectors v of independent signs (Bekas et al. 2007). The model is left as it was. Raises
    ScorerError where the loss cannot be differentiated twice, or something is not finite.
    """
    names = list(weights)
    totals = {
        name: torch.zeros_like(reals(w.detach()), memory_format=torch.contiguous_format) for name, w in weights.items()
    }
    # the fused kernels of attention have no second derivative
    with untouched(model, names), sdpa_kernel(SDPBackend.MATH):
        caches = tensor_caches(model)
        for number, sample in enumerate(samples):
            moved = to_model(sample, model)
            key = checksum(moved.inputs)
            loss = checked(objective.loss(model, moved, key), number)
            found = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
            live = [(name, reals(g)) for name, g in zip(names, found, strict=True) if g is not None and g.requires_grad]
            generator = torch.Generator("cpu").manual_seed((key + 0x632BE59BD9B4E019 * seed) % 2**63)
            for _ in range(probes if live else 0):
                signs = [torch.randint(0, 2, g.shape, generator=generator, device="cpu").to(g) * 2 - 1 for _, g in live]
                product = torch.stack([(g * v).sum() for (_, g), v in zip(live, signs, strict=True)]).sum()
                if not product.requires_grad:
                    break
                try:
                    second = torch.autograd.grad(
                        product, [weights[n] for n, _ in live], retain_graph=True, allow_unused=True
                    )
                except RuntimeError as error:
                    raise ScorerError(
                        f"the loss cannot be differentiated twice: {error}", hint="use Fisher, which needs it once"
                    ) from error
                for (name, _), v, s in zip(live, signs, second, strict=True):
                    if s is not None:
                        totals[name] += (v * reals(s)).detach()
            del loss, found, live
            restore_caches(caches)
            if progress is not None:
                progress(number + 1, len(samples))
    for name, total in totals.items():
        total /= len(samples) * probes
        finite(total, f"the curvature of {name} is not finite", name)
    return totals
