"""Several processes, called ranks, that do one job together, as ``torchrun`` starts them.

One process uses only ``ranks.ALONE``, which does nothing. ``group`` is imported only if there are several.
"""
