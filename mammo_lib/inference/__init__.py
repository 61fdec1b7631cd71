"""Inference: apply a trained network to new mammograms, from files or breast by breast in a viewer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "deploy": ["export"],
        "inputs": ["GivenBreast", "find_breasts", "name_breast"],
        "predict": ["Prediction", "predict_breasts", "write_prediction"],
        "viewer": ["explore"],
    },
)
