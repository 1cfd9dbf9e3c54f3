"""Codecs: raw samples to latents and back, each a hashable, pickle-free object.

Those of principal components (`PatchPCA`, `PatchVideo`, `MDCTCodec`) are fitted and need no
download. The others take published weights from a local folder.
"""

from selfflow_wm.codec.autoencoders import SDVAE, Flux2AE, OobleckAudio, WanVideo
from selfflow_wm.codec.base import (
    AudioCodec,
    Codec,
    ImageCodec,
    codec_from_config,
    codec_from_state,
    codec_kinds,
    own_kinds,
)
from selfflow_wm.codec.mdct import MDCTCodec
from selfflow_wm.codec.pair import PairedCodec
from selfflow_wm.codec.patch_pca import PatchPCA
from selfflow_wm.codec.patch_video import PatchVideo
from selfflow_wm.codec.residual import ResidualCodec
from selfflow_wm.codec.tae import TAEFlux2
from selfflow_wm.codec.text import encode_text, shortened
from selfflow_wm.codec.video import VideoCodec, latent_frames, pad_clip

__all__ = [
    "SDVAE",
    "AudioCodec",
    "Codec",
    "Flux2AE",
    "ImageCodec",
    "MDCTCodec",
    "OobleckAudio",
    "PairedCodec",
    "PatchPCA",
    "PatchVideo",
    "ResidualCodec",
    "TAEFlux2",
    "VideoCodec",
    "WanVideo",
    "codec_from_config",
    "codec_from_state",
    "codec_kinds",
    "encode_text",
    "latent_frames",
    "own_kinds",
    "pad_clip",
    "shortened",
]
