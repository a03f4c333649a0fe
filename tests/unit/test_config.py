import pytest
import yaml

from remind.api import fit
from remind.config import Recipe, load_recipe, shipped_recipes
from remind.engine.run_folder import RunFolder
from remind.errors import RemindError
from remind.fusions import FUSIONS
from remind.methods import METHODS


def test_without_anything_every_setting_has_its_default():
    assert load_recipe() == Recipe()
    assert load_recipe().check() == METHODS["remind"]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.lr=0.5", 0.5),
        ("train.lr=1e-3", 0.001),
        ("train.epochs=7", 7),
        ("train.select=macro_auroc", "macro_auroc"),
        ("model.hidden=null", None),
        ("fusions.remind.imputation=none", "none"),
        ("fusions.remind.threshold=quantile:0.5", "quantile:0.5"),
        ("encoders={tabular: {tokens: 3}}", {"tabular": {"tokens": 3}}),
        ("seed=3", 3),
        ("method=soft-moe", "soft-moe"),
    ],
)
def test_an_override_sets_what_it_names(override, value):
    found = load_recipe(None, [override]).model_dump()
    for part in override.partition("=")[0].split("."):
        found = found[part]
    assert found == value


def test_the_last_word_wins_override_over_recipe_and_argument_over_override(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("method: group-dro\nseed: 1\ntrain: {lr: 0.1, epochs: 3}\n")
    recipe = load_recipe(path, ["train.lr=0.2", "train.lr=0.3", "seed=2"], method="soft-moe", seed=None)
    assert (recipe.method, recipe.seed, recipe.train.lr, recipe.train.epochs) == ("soft-moe", 2, 0.3, 3)
    assert load_recipe(path).method == "group-dro"
    assert load_recipe(path, seed=0).seed == 0


def test_an_override_leaves_its_neighbours_alone(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("encoders: {tabular: {tokens: 3, dropout: 0.5}}\nfusions: {remind: {experts: 2}}\n")
    recipe = load_recipe(path, ["encoders.tabular.tokens=4", "fusions.soft_moe.experts=5"])
    assert recipe.encoders == {"tabular": {"tokens": 4, "dropout": 0.5}}
    assert recipe.fusions == {"remind": {"experts": 2}, "soft_moe": {"experts": 5}}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train", ("'train'", "key=value", "train.lr=0.001")),
        ("=3", ("'=3'", "key=value")),
        ("", ("''", "key=value")),
        ("train.lr=[", ("'train.lr=['", "not valid YAML")),
        ("train.lr=2020-13-45", ("'train.lr=2020-13-45'",)),
        ("train=3", ("train",)),
        ("train.lr=fast", ("train.lr", "number")),
        ("train.lr=", ("train.lr", "number")),
        ("train.lr=0", ("train.lr", "greater than 0")),
        ("train.lr=.nan", ("train.lr",)),
        ("train.epochs=1.5", ("train.epochs", "integer")),
        ("train.select=tail", ("train.select", "'macro_auroc'")),
        ("train.stepz=3", ("train.stepz", "no such key")),
        ("train.epoch=3", ("train.epoch", "Did you mean 'epochs'?")),
        ("tran.epochs=3", ("tran", "Did you mean 'train'?")),
        ("model.dropout=1", ("model.dropout", "less than 1")),
        ("seed=-1", ("seed", "greater than or equal to 0")),
        ("method=remnd", ("unknown method 'remnd'", "Did you mean 'remind'?", "soft-moe")),
        ("fusions.remnd.experts=2", ("unknown fusion 'remnd'", "Did you mean 'remind'?")),
        ("fusions.remind.expert=2", ("'expert'", "fusion 'remind'", "Did you mean 'experts'?")),
        ("fusions.remind.experts=two", ("'experts'", "fusion 'remind'", "integer")),
        ("fusions.remind.gate=open", ("'gate'", "fusion 'remind'", "'joint'")),
        ("fusions.remind=3", ("fusions.remind", "dictionary")),
        ("encoders.tabular.token=3", ("'token'", "encoder 'tabular'", "Did you mean 'tokens'?")),
        ("encoders.tables.tokens=3", ("unknown encoder 'tables'", "tabular")),
        ("objectives.group_dro.start=tail", ("'start'", "objective 'group_dro'", "'uniform'")),
        ("objectives.grup_dro.cap=3", ("unknown objective 'grup_dro'", "Did you mean 'group_dro'?")),
    ],
)
def test_a_wrong_override_is_named_with_its_mend(override, said):
    with pytest.raises(RemindError) as caught:
        load_recipe(None, [override])
    sentence = str(caught.value)
    assert all(word in sentence for word in said), sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.heads=3", ("heads", "dim")),
        ("fusions.remind.heads=0", ("heads",)),
        ("fusions.remind.experts=0", ("experts",)),
        ("fusions.remind.slots=0", ("slots",)),
        ("fusions.remind.hidden=-1", ("hidden",)),
        ("fusions.remind.dropout=2", ("dropout",)),
        ("fusions.remind.threshold=quantile:2", ("threshold", "quantile:q")),
        ("fusions.remind.threshold=high", ("threshold", "quantile:q")),
        ("encoders.tabular.tokens=0", ("tokens",)),
        ("encoders.tabular.tokens=-1", ("tokens",)),
        ("encoders.tabular.category_dim=-1", ("category_dim",)),
        ("encoders.tabular.dropout=2", ("dropout",)),
        ("objectives.group_dro.step_size=.nan", ("step_size",)),
        ("objectives.group_dro.step_size=-1", ("step_size",)),
        ("objectives.group_dro.cap=-1", ("cap",)),
        ("objectives.group_dro.refresh_every=0", ("refresh_every",)),
    ],
)
def test_a_setting_out_of_its_range_is_refused_before_a_run_folder_is_made(cohort, tiny, tmp_path, override, said):
    """A negative cap would climb the loss, a learning rate of nan learn nothing: neither may look like a result."""
    with pytest.raises(RemindError) as caught:  # noqa: PT012 (at whichever of the two)
        recipe = load_recipe(None, [*tiny, override], method="remind")
        fit(cohort, recipe=recipe, out=tmp_path / "run")
    assert all(word in str(caught.value) for word in said), caught.value
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [{"seed": -1}, {"seed": 2**31}, {"method": "remnd"}])
def test_fit_checks_its_arguments_whatever_the_recipe_is(cohort, tiny, tmp_path, given):
    for recipe in (load_recipe(None, tiny), None):
        with pytest.raises(RemindError, match=f"{next(iter(given))}"):
            fit(cohort, recipe=recipe, out=tmp_path / "run", **given)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", shipped_recipes())
@pytest.mark.parametrize("method", METHODS)
def test_every_shipped_recipe_loads_for_every_method(name, method):
    recipe = load_recipe(name, method=method)
    assert recipe.check() == METHODS[method]
    assert load_recipe(shipped_recipes()[name], method=method) == recipe


def test_the_demo_recipe_is_shipped():
    assert "demo" in shipped_recipes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"train: [", "is not valid YAML"),
        (b"", "mapping"),
        (b"- train", "mapping"),
        (b"\xff\xfe", "no such recipe"),
        (b"method: 2020-13-45\n", "r.yaml"),
        (b"trian: {}\n", "trian"),
    ],
)
def test_a_broken_recipe_is_named(tmp_path, content, said):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(RemindError) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_an_unknown_recipe_is_told_the_shipped_ones(tmp_path):
    for name in ("dem", tmp_path, tmp_path / "none.yaml"):
        known = r"demo, embed, fprm, mimic-iv, simulator\."
        with pytest.raises(RemindError, match=f"no such recipe; name a YAML file or one of: {known}"):
            load_recipe(name)


@pytest.mark.parametrize("name", FUSIONS.names())
def test_a_fusion_gets_the_sizes_it_has_and_no_other(name):
    recipe = load_recipe(None, ["model.experts=3", "model.dropout=0.2", "model.router_scale=2"])
    settings = recipe.fusion_settings(name)
    assert settings.keys() <= FUSIONS.settings(name).keys()
    expected = {"experts": 3, "dropout": 0.2, "router_scale": 2.0}
    assert (
        expected.keys() & FUSIONS.settings(name).keys() == expected.keys() & settings.keys() >= {"experts", "dropout"}
    )
    assert all(settings[key] == value for key, value in expected.items() if key in settings)
    assert "dim" not in settings


def test_a_fusions_own_settings_win_over_the_models():
    recipe = load_recipe(None, ["model.experts=3", "fusions.remind.experts=5", "fusions.remind.threshold=0.5"])
    assert recipe.fusion_settings("remind")["experts"] == 5
    assert recipe.fusion_settings("remind")["threshold"] == 0.5
    assert recipe.fusion_settings("soft_moe")["experts"] == 3
    assert "threshold" not in recipe.fusion_settings("soft_moe")


def test_a_recipe_cannot_be_changed_and_survives_a_run_folder(tmp_path):
    recipe = load_recipe("demo", ["fusions.remind.threshold=quantile:0.5"])
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert Recipe.model_validate(RunFolder(tmp_path).config()) == recipe
    assert load_recipe(tmp_path / "config.yaml") == recipe
