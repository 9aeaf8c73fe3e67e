"""The experiment: ``python experiment.py --out_dir=run_1`` carries out the run of that name in experiment.toml.

The same as ``hiersae experiment run``, with the plan in the current folder, or else the one next to this script.
"""

import argparse
import sys
from pathlib import Path

from hiersae_cli.cli import main
from hiersae_cli.config.experiment import PLAN_FILE, ExperimentConfig

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--out_dir", required=True, help="folder of the run, named as in experiment.toml: run_1 … run_5"
    )
    out_dir = parser.parse_args().out_dir
    plan = Path(PLAN_FILE) if Path(PLAN_FILE).exists() else Path(__file__).with_name(PLAN_FILE)
    sys.argv[1:] = ["experiment", "run", "--out_dir", out_dir, "--plan", str(plan)]
    try:
        from hiersae_cli.workflows.experiment.run import check_data

        # A missing data set is reported before the other commands are loaded.
        main(before=lambda: check_data(ExperimentConfig(out_dir=out_dir, plan=str(plan))))
    except ModuleNotFoundError as error:
        install = f"pip install -e {Path(__file__).parent}"
        sys.exit(f"error: {error.name} is not installed\nInstall HierSAE into this Python: {install}")
