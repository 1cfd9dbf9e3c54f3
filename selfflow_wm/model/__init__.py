"""The backbone: noised tokens and their noise levels to velocities and features."""

from selfflow_wm.model.backbone import Backbone, BackboneOutput

__all__ = ["Backbone", "BackboneOutput"]
