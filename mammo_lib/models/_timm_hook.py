"""Register MambaVision in timm once both are imported, in either order; importing timm here would take seconds."""

from __future__ import annotations

import importlib.abc
import sys

REGISTRY = "mammo_lib.models.timm_registry"


class _AfterTimm(importlib.abc.MetaPathFinder):
    """Leaves finding timm to the other finders, and imports the registry right after timm has been imported."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "timm":
            return None
        found = [finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = self._registering(spec.loader.exec_module)
        return spec

    def _registering(self, load):
        def exec_module(module):
            load(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            importlib.import_module(REGISTRY)

        return exec_module


def register_with_timm() -> None:
    """Import the registry now if timm is imported, else when it is."""
    if "timm" in sys.modules:
        importlib.import_module(REGISTRY)
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())
