"""Runs: records on disk, the frozen list of experiments, sweeps over many runs, and the opening of the test set."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "records": ["COMMITTED", "Run", "all_runs", "find_run", "start_run"],
        "experiments": ["experiment_configs", "read_experiments", "read_groups"],
        "executor": ["open_executor"],
        "sweep": ["run_sweep"],
        "export": ["export_records"],
        "verify": ["Verification", "choose_records", "read_outcomes", "records_badge"],
        "evaluate": ["evaluate_profile", "run_and_evaluate", "score_elsewhere"],
    },
)
