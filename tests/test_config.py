"""Config arguments, durations and differences; every config file's overrides."""

import importlib.util
import json
import pathlib
import re

import pytest

from motion_jax.config import UserError, difference, parse_arg, steps_of
from motion_jax.recipe import recipe

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_first_word_is_the_recipe_and_pairs_follow():
  arg = parse_arg("hmdb51,images=5,scale=2", words=("a", "hmdb51"), images=1, scale=0.5)
  assert (arg.word, arg.images, arg.scale) == ("hmdb51", 5, 2.0)
  assert parse_arg(None, words=("a", "b")).word == "a"
  assert parse_arg("images=3", words=("a", "b"), images=1).images == 3


@pytest.mark.parametrize(
  ("text", "named"),
  [
    ("hmbd51", "Did you mean 'hmdb51'"),
    ("hmdb51,imges=5", "Did you mean 'images'"),
    ("hmdb51,images=many", "must be a int"),
    ("hmdb51,images=1.5", "must be a int"),
  ],
)
def test_a_wrong_config_argument_names_the_right_ones(text, named):
  with pytest.raises(UserError, match=named):
    parse_arg(text, words=("ucf101", "hmdb51"), images=1)


@pytest.mark.parametrize(
  ("text", "steps"),
  [
    ("400 steps", 400),
    ("1 step", 1),
    ("100 epochs", 2231),  # HMDB51: 3570 / 160 = 22.3 steps per epoch
    ("16000 examples", 100),
    ("5%", 50),
    ("0 steps", 0),
    ("0.001 epochs", 1),
  ],
)
def test_durations_become_steps(text, steps):
  assert steps_of(text, examples=3570, batch_size=160, total_steps=1000) == steps


@pytest.mark.parametrize("text", ["ten epochs", "10", "5 weeks", "-1 steps"])
def test_a_wrong_duration_says_how_to_write_one(text):
  with pytest.raises(UserError, match="100 epochs"):
    steps_of(text, examples=1, batch_size=1, total_steps=1)


def test_a_share_needs_the_whole_length():
  with pytest.raises(UserError):
    steps_of("5%", examples=1, batch_size=1)


def test_difference_names_changed_added_and_missing_keys():
  old = {"a": {"x": 1, "y": (1, 2)}, "b": 2}
  new = {"a": {"x": 3, "y": [1, 2]}, "c": 2}
  assert difference(old, new) == ["a.x: 1 -> 3", "b: 2 -> (absent)", "c: (absent) -> 2"]


def of(text, tables):
  arg = parse_arg(text, words=("a", "b", "c"), network="small", linear=False)
  return recipe("run", arg, tables)


def test_of_the_tables_that_an_argument_asks_for_the_last_one_wins():
  tables = {
    "": {"method": {"size": 1, "rate": 0.5}},
    "a|b": {"method": {"size": 2}},
    "linear,network=large": {"method": {"size": 3}},
    "b,linear": {"method": {"rate": 1.5}, "train": {"keep": 1}},
  }
  found = {text: of(text, tables) for text in ("a", "b,linear", "c,network=large")}
  sizes = {text: config.method.size for text, config in found.items()}
  assert sizes == {"a": 2, "b,linear": 2, "c,network=large": 1}
  assert of("c,linear,network=large", tables).method.size == 3
  assert (found["a"].method.rate, found["b,linear"].method.rate) == (0.5, 1.5)
  assert (found["a"].train.keep, found["b,linear"].train.keep) == (2, 1)
  assert found["c,network=large"].model.name == "large"


@pytest.mark.parametrize(
  ("key", "table"), [("x", {"x": 1}), ("sise", {"method": {"sise": 1}})]
)
def test_only_the_first_table_has_new_settings(key, table):
  with pytest.raises(KeyError, match=f'"{key}"') as raised:
    of("a", {"": {"method": {"size": 1}}, "a": table})
  assert "Table 'a' sets it" in raised.value.__notes__[0]
  with pytest.raises(TypeError):
    of("a", {"": {"method": {"size": 1}}, "a": {"method": {"size": "1"}}})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.stem)
def test_tables_are_named_after_words_that_there_are(path):
  module = load(path)
  for name in getattr(module, "TABLES", ()):
    for part in filter(None, re.split(r"[,|]", name)):
      module.get_config(part if part in module.WORDS else f"{module.WORDS[0]},{part}")


def test_the_sections_of_joint_are_the_methods_of_its_parts():
  joint, shared = load(CONFIGS / "joint.py"), {"name", "frames", "size", "mean", "std"}
  for word in joint.WORDS:
    config = joint.get_config(word)
    for name in ("mosi", "modist", "mas"):
      part = load(CONFIGS / f"{name}.py")
      whole = part.get_config(word if word in part.WORDS else "kinetics400")
      alone = whole.method
      if (name, word) == ("modist", "ucf101"):
        alone.queue_size = config.modist.queue_size
      if alone.get("curriculum_steps"):  # the same share of the training
        steps, all_steps = (int(c.train.duration.split()[0]) for c in (config, whole))
        alone.curriculum_steps = alone.curriculum_steps * steps // all_steps
      own = {key: value for key, value in alone.items() if key not in shared}
      assert config[name].to_dict() == own, (name, word)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.stem)
def test_every_recipe_is_plain_json_of_at_most_two_levels(path):
  module = load(path)
  for word in module.WORDS:
    values = module.get_config(word).to_dict()
    json.dumps(values)
    for section in values.values():
      if isinstance(section, dict):
        assert not any(isinstance(value, dict) for value in section.values())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.stem)
def test_every_trial_of_a_sweep_overrides_existing_keys(path):
  module = load(path)
  if path.stem in ("evaluate", "visualize"):
    pytest.skip("is for what other configs have trained")
  trials = list(module.sweep())
  assert trials
  for arg, overrides in trials:
    config = module.get_config(arg).lock()
    config.update_from_flattened_dict(overrides)


@pytest.mark.parametrize(
  ("arg", "clips_per_step"),
  [("ucf101", 1440), ("hmdb51", 1440), ("ucf101,network=r2plus1d_10", 720)],
)
def test_paper_recipes_of_mosi_have_the_papers_batches(arg, clips_per_step):
  config = load(CONFIGS / "mosi.py").get_config(arg)
  assert config.train.batch_size * 9 == clips_per_step
  assert config.method.curriculum_steps == 0
  assert not config.method.compat_flip
