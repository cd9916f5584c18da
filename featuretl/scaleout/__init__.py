"""Extraction in many processes, on one or many machines, with loky or Dask through joblib."""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {"output": ["ShardedMatrix", "load_shards", "save_shards"], "extraction": ["extract_shards"]},
)
