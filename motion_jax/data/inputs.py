"""What the `data` section of a config asks for: a source and a sampler."""

from ml_collections import ConfigDict

from motion_jax.config import UserError, choose
from motion_jax.data.clips import SourceFrame
from motion_jax.data.sources import Source, open_source


def configured_source(config: ConfigDict, split: str) -> Source:
  """Opens the 'train' or 'heldout' records of a config's `data` section.

  Args:
    config: `name` (a data set, or 'folder' with `path`), `data_dir`,
      `heldout_fraction`, and, of a folder, `frame_folders` and the list files
      `train_list` and `heldout_list` ('' for none).
    split: 'train' or 'heldout'.

  Raises:
    UserError: if there is no such data set or folder; the message says how to get it.
  """
  is_folder = config.name == "folder"
  if is_folder and not config.path:
    raise UserError("data.name is 'folder'; say which by --config.data.path=FOLDER")
  if bool(config.train_list) != bool(config.heldout_list):
    raise UserError(
      "give both data.train_list and data.heldout_list, or neither: held-out files "
      "must not be trained on"
    )
  lists = {"train": config.train_list, "heldout": config.heldout_list}
  return open_source(
    config.path if is_folder else config.name,
    split=split,
    data_dir=config.data_dir or None,
    heldout_fraction=config.heldout_fraction,
    list_file=lists[split] or None,
    frame_folders=config.frame_folders,
  )


def configured_sampler(config: ConfigDict) -> SourceFrame:
  """Builds what turns a record into arrays: `config.sampler` with its settings."""
  choose("data.sampler", config.sampler, ("frame",))
  return SourceFrame(config.short_side, canvas=tuple(config.canvas))
