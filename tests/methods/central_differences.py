"""Gradients by central differences, for tests of exact gradients."""

import math

import torch


def differences(loss, values, step=1e-6):
    """Central differences of ``loss()`` by each finite element of ``values``, changed in place."""
    found, flat = torch.zeros_like(values), values.detach().view(-1)
    with torch.no_grad():
        for i in range(flat.numel()):
            kept = flat[i].item()
            if math.isfinite(kept):
                flat[i] = kept + step
                above = loss().item()
                flat[i] = kept - step
                found.view(-1)[i] = (above - loss().item()) / (2 * step)
                flat[i] = kept
    return found


def relative(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()
