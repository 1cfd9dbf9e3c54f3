"""Published autoencoders through diffusers: SD-VAE, FLUX.2's, Wan 2.2's and Oobleck.

Their weights stay in the user's folder: a checkpoint records the folder and the sha256 of what
lies in it, and loading refuses other weights. diffusers is imported when one of them is made.
"""

from selfflow_wm.codec.autoencoders.audio import OobleckAudio
from selfflow_wm.codec.autoencoders.images import SDVAE, Flux2AE
from selfflow_wm.codec.autoencoders.video import WanVideo

__all__ = ["SDVAE", "Flux2AE", "OobleckAudio", "WanVideo"]
