"""Training: one run config and one collection in, one finished run folder out. Here data and models first meet."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "train": ["Classifier", "load_best", "train_run"],
        "baselines": ["baseline_of", "fit_baseline"],
    },
)
