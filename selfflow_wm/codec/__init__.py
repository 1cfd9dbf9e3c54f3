"""Codecs: raw samples to latents and back, each a fitted, hashable, pickle-free object."""

from selfflow_wm.codec.base import Codec, codec_from_state
from selfflow_wm.codec.patch_pca import PatchPCA
from selfflow_wm.codec.residual import ResidualCodec
from selfflow_wm.codec.text import decode_text, encode_text

__all__ = ["Codec", "PatchPCA", "ResidualCodec", "codec_from_state", "decode_text", "encode_text"]
