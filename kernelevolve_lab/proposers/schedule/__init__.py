"""The schedule proposer: kernels from templates in files, their choices searched with Optuna. It needs no key and no network."""
