"""Training: turns a run config and a collection into a finished run folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classifier": ["Classifier"],
        "train": ["train_run"],
        "baselines": ["baseline_of", "fit_baseline"],
    },
)
