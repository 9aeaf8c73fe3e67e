"""The report (``report.json``): specified in ``docs/file-formats.md``, made by ``workflows.evaluate``."""

from __future__ import annotations

SCHEMA = "hiersae.report"
SCHEMA_VERSION = 2
