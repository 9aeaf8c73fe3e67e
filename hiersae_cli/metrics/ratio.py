"""Division of arrays of counts and sums."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def ratio(of: Array, to: Array, undefined: float = float("nan")) -> Array:
    """``of`` over ``to``, element by element; ``undefined`` if ``to`` is not positive."""
    return np.divide(of, to, out=np.full(np.shape(of), undefined), where=to > 0)
