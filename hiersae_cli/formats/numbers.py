"""Numbers as our JSON files hold them: finite, and no more digits than float32 has."""

from __future__ import annotations

import math


def finite_or_none(value: float) -> float | None:
    """The value; None if it is infinite or not a number, which JSON cannot hold."""
    return float(value) if math.isfinite(value) else None


def rounded(value: float) -> float:
    """Six significant digits: what float32 holds, without the noise of its conversion."""
    return float(f"{value:.6g}")


def rounded_or_none(value: float) -> float | None:
    """Six significant digits; None if the value is infinite or not a number."""
    return rounded(value) if math.isfinite(value) else None
