"""The products and the optimizer step that touch only active latents: C, Triton and PyTorch versions."""
