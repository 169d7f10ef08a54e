"""Taking shared directions out of class rows. What all classes of a set have in common, or all images, tells no class
from another, but it favours classes that lie closer to it: general names, for the most part.

Tensor suffixes: C classes, D joint width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def without_common(rows_CD: Tensor, *, share: float) -> Tensor:
    """Unit rows after `share` of their mean was subtracted. A single class is left as it is."""
    if share == 0 or len(rows_CD) == 1:
        return rows_CD
    return F.normalize(rows_CD - share * rows_CD.mean(dim=0), dim=-1)


def without_direction(rows_CD: Tensor, direction_D: Tensor, *, share: float) -> Tensor:
    """Unit rows after `share` of their part along a direction was subtracted."""
    if share == 0:
        return rows_CD
    unit_D = F.normalize(direction_D.to(rows_CD.device), dim=0)
    return F.normalize(rows_CD - share * (rows_CD @ unit_D)[:, None] * unit_D, dim=-1)
