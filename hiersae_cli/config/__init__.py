"""The configuration of each step: one documented dataclass per verb.

The dataclass is the only place where a default is written: the command line, the Python API, the
saved files and the generated reference all read it from here.
"""
