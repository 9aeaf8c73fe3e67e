"""A dashboard of SAEDashboard, as published, for the same latents on the same tokens. A separate Python runs it.

    PYTHON benchmarks/dashboard/peer_saedashboard.py HOST SAE TOKENS.npy LAYER FEATURES PAGE.html

Prints seconds, bytes and versions as JSON. It needs other versions of transformers and typer than hiersae, so give it a
separate environment: python -m venv PEER && PEER/bin/pip install sae-dashboard 'pyarrow<20' (newer ones need NumPy 2,
which sae-dashboard does not support). HOST is a GPT-2 in Hugging Face's format, SAE a folder of SAELens.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sae_dashboard.data_writing_fns import save_feature_centric_vis
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast


def load_host(folder: str) -> HookedTransformer:
    """The host as a model of TransformerLens, with unprocessed weights."""
    gpt2 = GPT2LMHeadModel.from_pretrained(folder)
    sizes = gpt2.config
    config = HookedTransformerConfig(
        n_layers=sizes.n_layer,
        d_model=sizes.n_embd,
        n_ctx=sizes.n_positions,
        d_head=sizes.n_embd // sizes.n_head,
        n_heads=sizes.n_head,
        d_mlp=sizes.n_inner or 4 * sizes.n_embd,
        d_vocab=sizes.vocab_size,
        act_fn=sizes.activation_function,
        eps=sizes.layer_norm_epsilon,
        normalization_type="LN",
        model_name="gpt2",
        device="cpu",
    )
    model = HookedTransformer(config)
    model.load_state_dict(convert_gpt2_weights(gpt2, config), strict=False)
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
    return model


def main() -> None:
    host, sae_folder, tokens_file, layer, features, page = sys.argv[1:]
    model, sae = load_host(host), SAE.load_from_disk(sae_folder, device="cpu")
    tokens_BT = torch.from_numpy(np.load(tokens_file)).long()
    config = SaeVisConfig(hook_point=f"blocks.{layer}.hook_resid_post", features=list(range(int(features))))
    started = time.perf_counter()
    data = SaeVisRunner(config).run(encoder=sae, model=model, tokens=tokens_BT)
    gathered = time.perf_counter() - started
    save_feature_centric_vis(sae_vis_data=data, filename=page)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - started,
                "seconds_gathering": gathered,
                "bytes": Path(page).stat().st_size,
                "features": int(features),
                "tokens": tokens_BT.numel(),
                "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
                "library": f"sae-dashboard {version('sae-dashboard')}",
            }
        )
    )


if __name__ == "__main__":
    main()
