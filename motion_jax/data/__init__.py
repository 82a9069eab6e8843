"""Videos and images: data sets, decoding, sampling, batches.

>>> open_source("~/videos", split="all").classes
('dive', 'run')
"""

from motion_jax.data.sources import Record, Source, open_source

__all__ = ["Record", "Source", "open_source"]
