"""What may be said in a config, and what a person reads who mistypes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbert.compose import compose
from mtbert.errors import InputError


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epohcs=3", "no key 'epohcs'; did you mean 'epochs'?"),
        ("+epohcs=3", "no key 'epohcs'; did you mean 'epochs'?"),
        ("+heads.dropuot=0.1", "no key 'heads.dropuot'; did you mean 'dropout'?"),
        ("heads.share_layer=true", "did you mean 'share_layers'?"),
        ("tasks.stss.loss=mse", "no key 'tasks.stss'; did you mean 'sts'?"),
        ("tasks.sts.los=mse", "did you mean 'loss'?"),
        ("recipe.integer_label=true", "did you mean 'integer_labels'?"),
        ("experiment=03_share_layer", "no experiment '03_share_layer'; did you mean '03_share_layers'?"),
        ("scale=quik", "no scale 'quik'; did you mean 'quick'?"),
        ("experiment=smoke/tinny", "no experiment 'smoke/tinny'; did you mean 'smoke/tiny'?"),
        ("hydra/launcher=job_lib", "no hydra/launcher 'job_lib'; did you mean 'joblib'?"),
        ("hydra/launcher=ray", "which a package brings: pip install hydra-ray-launcher"),
        ("experiment=lora", "no experiment 'lora'; did you mean 'method/lora'?"),
        ("experiment=final.yaml", "experiment=final.yaml; did you mean 'final'?"),
        ("+scale.train_rows.x=0.1", "expected one of: default, sst, quora, sts, cfimdb, sick"),
        ("encoder=minilm", "no encoder 'minilm'; did you mean 'minilm-l6'?"),
        ("recipe=asrun", "did you mean 'as_run'?"),
        ("epochs=ten", "override 'epochs=ten'"),
        ("epochs=-1", "epochs=-1; expected a number above 0"),
        ("experimen=final", "no key 'experimen'; did you mean 'experiment'?"),
        ("experiment=12", "the option of a group is a name, e.g. experiment=12_frozen_encoder"),
        ("experiment=null", "the option of a group is a name, e.g. experiment=12_frozen_encoder"),
        ("seed=1,2", "override 'seed=1,2': several values make a study (mtbert train -m); expected one"),
        ("loggers=tensorboard,csv", "is a list; expected loggers=[tensorboard,csv]"),
        ("loggers=tensorboard", "override 'loggers=tensorboard': is a list; expected loggers=[tensorboard]"),
        ("optimizer.betas=0.9", "is a list; expected optimizer.betas=[0.9]"),
        ("methods.soup=best-s0-0123456789", "is a list; expected methods.soup=[best-s0-0123456789]"),
        ("datasets.sts.separator=,", """expected key=value; signs such as , : [ are quoted, 'key=","'"""),
        ("+dataset=sick", "config: dataset 'sick' needs a place; expected +dataset@datasets.sick=sick"),
        ("+phase=inherit", "config: phase 'inherit' needs a place; expected +phase@phases.extra=inherit"),
        ("tasks.sentiment.head=cosine", "no key 'tasks.sentiment'; expected one of: sst, para, sts"),
        ("serch=recipe", "no key 'serch'; expected one of"),
        ("epochs", "override 'epochs' cannot be read; expected key=value"),
        ("heads.dropout=2", "heads.dropout=2.0 is not a dropout rate; expected 0 <= rate < 1"),
        ("scale.train_rows.quora=0.1", "no key 'scale.train_rows.quora'; to add it, write +scale.train_rows.quora=..."),
        ("+scale.train_rows.qora=0.1", "scale.train_rows=qora is not known; did you mean 'quora'?"),
        ("trainer.max_steps=0", "trainer.max_steps=0; expected a number above 0"),
        ("optimizer.betas=[0.9]", "expected two numbers from 0 to below 1"),
        ("keep=al", "keep=al is not known; did you mean 'all'?"),
        ("trainer.precision=bf16-mix", "trainer.precision=bf16-mix is not known; did you mean 'bf16-mixed'?"),
        ("loggers=[tensorbord]", "did you mean 'tensorboard'?"),
        ("encoder=folder", "encoder.source"),
        ("phases.extra.epochs=2", "put one there first: +phase@phases.extra=inherit"),
        ("methods.lora=8", "has keys of its own; expected one of: methods.lora.rank, methods.lora.alpha"),
        ("datasets.sst.label.map={neg:0,pos:4}", "a label's map can be given in its dataset's file alone"),
        ("phases.main=null", "phases has none that is not null"),
        ("datasets.sst.task=sstt", "datasets.sst.task=sstt is not known; did you mean 'sst'?"),
        ("~datasets.sts", "task 'sts' has no dataset"),
    ],
)
def test_a_mistake_is_one_line_with_the_place_and_the_nearest_name(override: str, expected: str) -> None:
    with pytest.raises(InputError) as error:
        compose([override])
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("schedule=round_robin", "schedule.normalise=true"), "no key 'schedule.normalise'; did you mean 'normalize'?"),
        (("experiment=10_round_robin", "schedule.early_restrt=true"), "did you mean 'early_restart'?"),
        (("experiment=07_sts_sick", "datasets.sik.text=pair"), "no key 'datasets.sik'; did you mean 'sick'?"),
        (("experiment=07_sts_sick", "schedule=nonesuch"), "no schedule 'nonesuch'"),
    ],
)
def test_the_nearest_key_is_sought_among_those_that_the_options_bring(overrides: list[str], expected: str) -> None:
    with pytest.raises(InputError) as error:
        compose(overrides)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            "{yes: 0, no: 1}",
            "label.map has the keys True, False; expected whole numbers, or words (yes and no in quotes)",
        ),
        ("{0.5: 0}", "label.map has the keys 0.5; expected whole numbers"),
        ("{0: 0, good: 1}", "label.map has the keys 0, 'good'; expected whole numbers"),
        ("{}", "label.map is empty; expected labels and what they become, or null"),
    ],
)
def test_the_keys_of_a_label_map_are_numbers_or_words(tmp_path: Path, keys: str, expected: str) -> None:
    (tmp_path / "dataset").mkdir()
    dataset = f"task: sst\nfiles: {{train: [a.csv]}}\nsentences: [text]\nlabel: {{column: label, map: {keys}}}\n"
    (tmp_path / "dataset" / "own.yaml").write_text(dataset)
    with pytest.raises(InputError) as error:
        compose(["+dataset@datasets.own=own"], config_dir=tmp_path)
    assert expected in str(error.value)


def test_lora_needs_an_encoder_that_is_trained() -> None:
    compose(["methods.lora.rank=4", "experiment=12_frozen_encoder"])
    with pytest.raises(InputError, match=r"methods.lora.rank is above 0, but every phase fixes the encoder"):
        compose(["methods.lora.rank=4", "phases.main.freeze=[encoder]"])


def test_r_drop_needs_dropout() -> None:
    compose(["methods.r_drop=1", "encoder.hidden_dropout=0"])
    with pytest.raises(InputError, match=r"methods.r_drop is above 0, but without any dropout"):
        compose(["methods.r_drop=1", "encoder.hidden_dropout=0", "heads.dropout=0"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochss: 3", "config file experiment/own.yaml: no key 'epochss'; did you mean 'epochs'?"),
        ("heads: {share_layer: true}", "experiment/own.yaml: no key 'heads.share_layer'; did you mean 'share_layers'?"),
        ("phases: {extr: {epochs: 2}}", "no key 'phases.extr'; did you mean 'extra'?"),
        (
            "epochs: many",
            "config file experiment/own.yaml: Value 'many' of type 'str' could not be converted to Integer",
        ),
        ("heads: {share_layers: [", "not YAML"),
        (
            "defaults: [{dataset@datasets.sick: sick}]",
            "no experiment 'dataset/sick'; under defaults: a group begins with a slash, /dataset",
        ),
    ],
)
def test_a_mistake_in_an_experiment_of_ones_own_names_the_file(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(InputError) as error:
        compose(["experiment=own"], config_dir=tmp_path)
    assert expected in str(error.value)


def test_an_experiment_without_its_first_line_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text("batch_size: 16\n")
    with pytest.raises(InputError, match=r"experiment/own\.yaml: its first line has to be '# @package _global_'"):
        compose(["experiment=own"], config_dir=tmp_path)


def test_an_experiment_of_ones_own_is_found_beside_the_shipped_ones(tmp_path: Path) -> None:
    folder = tmp_path / "it's my, [own] conf"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "own.yaml").write_text(
        "# @package _global_\ndefaults: [12_frozen_encoder]\nlr: 3.0e-5\nphases: {extra: {epochs: 4}}\n"
    )
    config = compose(["experiment=own"], config_dir=folder)
    assert (config.name, config.lr) == ("own", 3e-5)
    assert config.phases.extra is not None
    assert (config.phases.extra.epochs, config.phases.extra.freeze) == (4, ["encoder"])


def test_the_command_line_wins_over_what_a_scale_picks() -> None:
    config = compose(["scale=quick", "encoder=tiny", "data=sample"])
    assert (config.scale.name, config.encoder.name, config.data.name) == ("quick", "tiny", "sample")
