"""The configuration of each step: one documented dataclass per verb, in pipeline order.

The dataclass is the only place where a default is written: the command line, the Python API, the
saved files and the generated reference all read it from here.
"""

from hiersae_cli.config.base import Config
from hiersae_cli.config.bench import BenchConfig
from hiersae_cli.config.cache import CacheConfig, JoinConfig
from hiersae_cli.config.convert import ConvertConfig
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.data import DataGetConfig
from hiersae_cli.config.encode import EncodeConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.experiment import ExperimentConfig, ExperimentPlotConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.config.info import InfoConfig
from hiersae_cli.config.label import LabelConfig
from hiersae_cli.config.lm import LMConfig
from hiersae_cli.config.study import (
    StudyAnalyzeConfig,
    StudyNewConfig,
    StudyRateConfig,
    StudyServeConfig,
    StudySimulateConfig,
)
from hiersae_cli.config.synth import SynthConfig
from hiersae_cli.config.train import TrainConfig

__all__ = [
    "BenchConfig",
    "CacheConfig",
    "Config",
    "ConvertConfig",
    "DashboardConfig",
    "DataGetConfig",
    "EncodeConfig",
    "EvalConfig",
    "ExperimentConfig",
    "ExperimentPlotConfig",
    "ExportTreeConfig",
    "InfoConfig",
    "JoinConfig",
    "LMConfig",
    "LabelConfig",
    "StudyAnalyzeConfig",
    "StudyNewConfig",
    "StudyRateConfig",
    "StudyServeConfig",
    "StudySimulateConfig",
    "SynthConfig",
    "TrainConfig",
]
