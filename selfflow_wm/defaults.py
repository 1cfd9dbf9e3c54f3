"""Defaults that several commands share, each with its reason.

Fewer solver steps cost less and give smoother samples; more follow the flow more closely.
"""

DEVICE = "auto"
"""The first CUDA GPU where there is one, else the CPU. Results differ by rounding alone."""

SAMPLE_STEPS = 50
"""What the paper samples in (arXiv 2603.06507, appendix D); for samples that are kept."""

EVALUATE_STEPS = 25
"""Half of that: sampling is most of what an evaluation of checkpoints costs."""

PREVIEW_STEPS = 16
"""Previews during training, which waits for them."""

IMAGINE_STEPS = 8
"""A frame or two of future video from the present one: near the data, and often asked for."""

POLICY_STEPS = 2
"""Acting in closed loop did better with two steps than with one and than with eight (lab book).
configs/eval.yaml has the same value."""

SHIFT = 1.0
"""Of the time grid of samples that are kept: even steps. The paper shifts by 1.78 on SD-VAE, 6.93
on FLUX.2's and Songbloom's and 15 on Wan 2.2's latents; --help of `sample` repeats that."""

TOY_SHIFT = 3.0
"""Of the time grid for models of the toy world, whose latents are small."""
