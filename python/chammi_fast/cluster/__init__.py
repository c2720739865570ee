"""The same work on more than one machine: who embeds, or searches, on a Ray cluster."""

from __future__ import annotations

from chammi_fast.cluster.ray_executor import RayExecutor

__all__ = ["RayExecutor"]
