"""Does the analysis of a study recover a known effect? The intervals of many simulated studies against the truth.

    python -m benchmarks.study.calibration --studies 200
    python -m benchmarks.study.calibration --studies 2000 --json calibration.json

Every study has new raters and items; the truth is the difference in the population of both. Without ``--effect`` the
effects are 0 (how often is an effect reported if there is none?), 0.5 and 1 in logits. Vectorised, on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from hiersae_cli.metrics.agreement import crossed_mean
from hiersae_cli.study.protocol import CHILD, EXAMPLE, FLAT, HIERARCHY
from hiersae_cli.study.simulation import Raters, planned_power, probabilities, truth

PAIR = (HIERARCHY, FLAT)
CHANCE = {EXAMPLE: 1 / 5, CHILD: 1 / 4}
SIZES = ((10, 20), (20, 40), (40, 40))  # raters, matched sets
CONFIDENCE = 0.95


def calibrate(
    cell: int, effect: float, task: str, size: tuple[int, int], answered: float, studies: int, resamples: int
) -> dict:
    """The shares of the intervals of the difference that cover the truth, and that exclude 0."""
    raters = Raters(effect={HIERARCHY: effect})
    chance = CHANCE[task]
    true = truth(raters, HIERARCHY, chance) - truth(raters, FLAT, chance)
    covers, detections, widths, errors = 0, 0, [], []
    for study in range(studies):
        p_RSC = probabilities(raters, PAIR, chance, size, (cell, study, 0))
        draw = np.random.default_rng((cell, study, 1))
        y_RSC = (draw.random(p_RSC.shape) < p_RSC).astype(float)
        y_RSC[draw.random(p_RSC.shape[:2]) >= answered] = np.nan
        estimate = crossed_mean(y_RSC[..., 0] - y_RSC[..., 1], CONFIDENCE, resamples, study)
        covers += estimate.low <= true <= estimate.high
        detections += not estimate.low <= 0 <= estimate.high
        widths.append(estimate.high - estimate.low)
        errors.append(estimate.value - true)
    planned = planned_power(raters, PAIR, chance, size, true, CONFIDENCE) if effect and answered == 1 else None
    return {
        "task": task,
        "raters": size[0],
        "sets": size[1],
        "answered": answered,
        "effect_logit": effect,
        "true_difference": true,
        "studies": studies,
        "coverage": covers / studies,
        "found": detections / studies,
        "power_planned": planned,
        "mean_error": float(np.mean(errors)),
        "mean_width": float(np.mean(widths)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--effect", type=float, action="append")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    started, rows = time.monotonic(), []
    print(
        f"{'task':8} {'raters':>6} {'sets':>5} {'answ.':>5} {'effect':>6} {'truth':>7} {'cover':>6} {'found':>6} "
        f"{'plan':>6}"
    )
    for effect in args.effect or (0.0, 0.5, 1.0):
        for task in (EXAMPLE, CHILD):
            for size in SIZES:
                for answered in (1.0, 0.5):
                    row = calibrate(len(rows), effect, task, size, answered, args.studies, args.resamples)
                    rows.append(row)
                    planned = "" if row["power_planned"] is None else f"{row['power_planned']:.3f}"
                    print(
                        f"{task:8} {size[0]:6} {size[1]:5} {answered:5.1f} {effect:6.2f} {row['true_difference']:7.3f} "
                        f"{row['coverage']:6.3f} {row['found']:6.3f} {planned:>6}",
                        flush=True,
                    )
    coverage = float(np.mean([row["coverage"] for row in rows]))
    false_positives = float(np.mean([row["found"] for row in rows if not row["effect_logit"]] or [np.nan]))
    print(f"all: coverage {coverage:.4f}, false positives {false_positives:.4f}; {time.monotonic() - started:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
