"""``python -m tests.drill``: what becomes of the chain under kills, damaged files, full disks and rivals."""
