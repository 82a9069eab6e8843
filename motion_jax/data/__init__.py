"""Videos and images: data sets, decoding, sampling, batches."""

from motion_jax.data.sources import Record, Source, open_source

__all__ = ["Record", "Source", "open_source"]
