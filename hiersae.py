"""The public Python API of HierSAE: ``import hiersae``. It is that of ``hiersae_cli``, where the code lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hiersae_cli import __all__ as __all__
from hiersae_cli import __dir__ as __dir__
from hiersae_cli import __getattr__ as __getattr__
from hiersae_cli import __version__ as __version__

if TYPE_CHECKING:
    from hiersae_cli import *  # noqa: F403
