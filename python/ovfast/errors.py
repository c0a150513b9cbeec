"""What ovfast raises, besides ValueError and TypeError for wrong arguments and options."""

from __future__ import annotations

from ovfast import _core

__all__ = ["CapacityError", "Error", "ModelError"]

Error = _core.Error
ModelError = _core.ModelError
CapacityError = _core.CapacityError
