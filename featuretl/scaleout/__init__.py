"""The same extraction in many processes, on one machine or many: loky or Dask, through joblib."""
