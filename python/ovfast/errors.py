"""What ovfast raises, besides ValueError and TypeError for wrong arguments and options."""

from __future__ import annotations

from ovfast import _core

__all__ = ["CapacityError", "DecryptionError", "Error", "ModelError"]

Error = _core.Error
ModelError = _core.ModelError
DecryptionError = _core.DecryptionError
CapacityError = _core.CapacityError
