"""save_model and load_model: loaded models predict bit-identically; cards describe them."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, SVR, LinearSVC

from featuretl import (
    FineTuneClassifier,
    FineTuneRegressor,
    ImageEmbedder,
    LinearProbeClassifier,
    LinearProbeRegressor,
    MultiTaskHead,
    NearestMeanClassifier,
    SemiSupervisedProbeClassifier,
    SVMProbeClassifier,
    TransferClassifier,
    TransferRegressor,
    load_model,
    read_card,
    save_model,
)
from featuretl.backbones.backbone import load_backbone
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLWarning, ModelError
from featuretl.finetune import Training
from featuretl.models.persistence import model_digest

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")

METHODS = ("predict", "predict_proba", "decision_function", "transform")


def assert_same(model, twin, X):
    for method in METHODS:
        assert hasattr(model, method) == hasattr(twin, method)
        if hasattr(model, method):
            expected, found = getattr(model, method)(X), getattr(twin, method)(X)
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype


def through_file(model, tmp_path):
    path = tmp_path / "model.featuretl"
    save_model(model, path)
    return load_model(path)


HEADS = {
    "linear": LinearProbeClassifier("cv", calibrate=True, random_state=0),
    "nearest mean": NearestMeanClassifier(),
    "self-training probe": SemiSupervisedProbeClassifier(method="self-training"),
    "semi-supervised": SemiSupervisedProbeClassifier(),
    "svm": SVMProbeClassifier(),
    "rbf svm": SVMProbeClassifier(kernel="rbf"),
    "uncalibrated svm": SVMProbeClassifier(1.0, kernel="rbf", gamma="scale", calibrate=False),
    "logistic": make_pipeline(StandardScaler(), PCA(2), LogisticRegression()),
    "linear svc": make_pipeline(Normalizer(), LinearSVC()),
    "svc": make_pipeline(StandardScaler(), SVC()),
    "pairwise svc": SVC(decision_function_shape="ovo"),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_predict_the_same_bits(name, iris, tmp_path):
    X, y = iris
    model = HEADS[name].fit(X, y)
    assert_same(model, through_file(model, tmp_path), X)


@pytest.mark.filterwarnings("ignore:SVMProbeClassifier approximates")
def test_an_approximated_svm_predicts_the_same_bits(iris, tmp_path, monkeypatch):
    monkeypatch.setattr("featuretl.heads.svm._MOST_EXACT_ROWS", 100)
    model = SVMProbeClassifier(kernel="rbf").fit(*iris)
    assert model.approximated_
    assert_same(model, through_file(model, tmp_path), iris[0])


@pytest.mark.parametrize("labels", ["text", "object", "int", "float", "bool", "labels"])
def test_classes_keep_their_type(labels, iris, tmp_path):
    X, y = iris
    codes = np.unique(y, return_inverse=True)[1]
    kinds = {
        "text": y,
        "object": y.astype(object),
        "int": codes,
        "float": codes + 0.5 - 0.5,
        "bool": codes > 0,
        "labels": np.c_[codes > 0, codes == 2].astype(int),
    }
    model = LinearProbeClassifier().fit(X, kinds[labels])
    twin = through_file(model, tmp_path)
    assert twin.classes_.dtype == model.classes_.dtype
    assert_same(model, twin, X)


@pytest.mark.parametrize(
    "model",
    [
        LinearProbeRegressor(),
        make_pipeline(StandardScaler(), Ridge()),
        TransformedTargetRegressor(make_pipeline(StandardScaler(), SVR()), transformer=StandardScaler()),
    ],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
def test_regressors_predict_the_same_bits(model, iris, tmp_path):
    X = iris[0]
    assert_same(model.fit(X, X[:, 0] * 2), through_file(model, tmp_path), X)


def test_several_outputs_and_names_of_columns(iris, tmp_path):
    frame = pd.DataFrame(iris[0], columns=list("abcd"))
    model = LinearProbeRegressor().fit(frame, iris[0][:, :2])
    twin = through_file(model, tmp_path)
    assert twin.feature_names_in_.tolist() == list("abcd")
    assert_same(model, twin, frame)


def test_the_order_in_memory_is_kept(iris, tmp_path):
    model = LinearProbeClassifier().fit(*iris)
    for order in "CF":
        model.coef_ = np.asarray(model.coef_, order=order)
        flags = through_file(model, tmp_path).coef_.flags
        assert flags.f_contiguous == (order == "F")


@pytest.fixture(scope="module")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


def quick(kind, **parameters):
    small = BackboneSpec("tf_efficientnet_lite0", image_size=(128, 128))
    settings = {
        "backbone": small,
        "n_blocks": 1,
        "learning_rate": 0.003,
        "epochs": 2,
        "augment": "none",
    }
    return kind(**(settings | parameters), random_state=0)


@pytest.mark.parametrize("head", ["probe", ("mlp", 8)])
def test_a_tuned_network_is_kept(head, photos, labels, tmp_path):
    training = Training(layer_decay=0.5)
    model = quick(FineTuneClassifier, head=head, training=training).fit(photos, labels)
    twin = through_file(model, tmp_path)
    assert twin.training == training
    assert_same(model, twin, photos)
    pd.testing.assert_frame_equal(model.history_, twin.history_)
    twin.partial_fit(photos[:4] + photos[-4:], labels[:4] + labels[-4:])


def test_a_tuned_regressor_is_kept(photos, tmp_path):
    model = quick(FineTuneRegressor).fit(photos, np.linspace(-1, 3, len(photos)))
    assert_same(model, through_file(model, tmp_path), photos)


def test_a_chosen_model_is_kept_with_its_decision(photos, labels, tmp_path):
    model = TransferClassifier("svm", cv=3, random_state=0, test_size=0.5).fit(photos, labels)
    twin = through_file(model, tmp_path)
    assert_same(model, twin, photos)
    assert twin.decision_.explain() == model.decision_.explain()
    pd.testing.assert_frame_equal(twin.decision_.candidates, model.decision_.candidates)
    card = read_card(tmp_path / "model.featuretl")
    assert card["model"] == "TransferClassifier"
    assert card["strategy"] == "svm"
    assert card["metrics"]["images"] == 12
    assert card["metrics"]["score"] == model.decision_.outer.score
    assert card["classes"] == ["flower", "temple"]
    assert card["backbone"] == "tf_efficientnet_lite0"
    assert set(card["versions"]) >= {"featuretl", "torch", "scikit-learn"}


def test_a_chosen_regressor_is_kept(photos, tmp_path):
    model = TransferRegressor("svm", cv=3, test_size=None, random_state=0)
    model.fit(photos, np.linspace(0, 1, len(photos)))
    assert_same(model, through_file(model, tmp_path), photos)


def test_the_same_bits_in_a_fresh_process(photos, labels, tmp_path):
    pipeline = make_pipeline(ImageEmbedder(), StandardScaler(), LogisticRegression())
    models = {
        "pipeline": pipeline.fit(photos, labels),
        "tuned": quick(FineTuneClassifier).fit(photos, labels),
    }
    for name, model in models.items():
        save_model(model, tmp_path / f"{name}.featuretl")
        np.save(tmp_path / f"{name}.npy", model.predict_proba(photos))
    code = """if True:
        import json, sys
        import numpy as np
        from featuretl import load_model
        from featuretl.prediction.predict import use_machine
        folder, photos = sys.argv[1], json.loads(sys.argv[2])
        for name in ("pipeline", "tuned"):
            model, expected = load_model(f"{folder}/{name}.featuretl"), np.load(f"{folder}/{name}.npy")
            np.testing.assert_array_equal(model.predict_proba(photos), expected)
            use_machine(model, cache=None, n_jobs=1)  # embed again, in other batches
            without_torch = model.predict_proba(photos[3:])
            np.testing.assert_allclose(without_torch, expected[3:], rtol=0, atol=1e-3)
            use_machine(model, runtime="torch")
            again = model.predict_proba(photos[3:])
            np.testing.assert_allclose(again, expected[3:], rtol=0, atol=1e-5)
            print(name, np.abs(again - expected[3:]).max(), file=sys.stderr)
        print("same")
    """
    arguments = [sys.executable, "-c", code, str(tmp_path), json.dumps(photos)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.stdout == "same\n", done.stderr
    print(done.stderr)


def test_weights_of_a_local_file_are_passed_again(photos, labels, tmp_path):
    import safetensors.torch

    network = load_backbone("test_resnet", weights="random").model
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    weights, other = tmp_path / "own.safetensors", tmp_path / "other.safetensors"
    safetensors.torch.save_file(state, weights)
    safetensors.torch.save_file(
        {k: v * 1.01 if v.ndim == 4 else v for k, v in state.items()}, other
    )
    embedder = ImageEmbedder("test_resnet", weights=weights)
    model = make_pipeline(embedder, LinearProbeClassifier()).fit(photos, labels)
    path = tmp_path / "model.featuretl"
    save_model(model, path)
    assert str(tmp_path).encode() not in path.read_bytes()
    assert_same(model, load_model(path, weights=weights), photos)
    with pytest.raises(ModelError, match="weights of load_model"):
        load_model(path)
    with pytest.raises(ModelError, match=r"'test_resnet' .* are not those"):
        load_model(path, weights=other)


def test_what_belongs_to_the_machine_is_left_out(photos, labels, tmp_path):
    embedder = ImageEmbedder(cache=tmp_path / "secret", n_jobs=1, device="cpu")
    pipeline = make_pipeline(embedder, LinearProbeClassifier(), memory=str(tmp_path / "memory"))
    twin = through_file(pipeline.fit(photos, labels), tmp_path)
    assert (twin[0].cache, twin[0].n_jobs, twin[0].device) == ("auto", None, "auto")
    assert twin.memory is None
    assert b"secret" not in (tmp_path / "model.featuretl").read_bytes()


def test_what_only_mattered_in_training_is_left_out_with_a_warning(iris, tmp_path):
    model = LinearProbeClassifier("cv", cv=KFold(3, shuffle=True)).fit(*iris)
    with pytest.warns(FeatureTLWarning, match="The 'cv' of LinearProbeClassifier, a KFold, is not"):
        twin = through_file(model, tmp_path)
    assert twin.cv == 5
    assert_same(model, twin, iris[0])


@pytest.mark.filterwarnings("ignore:y contains no unlabeled samples")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LinearProbeClassifier(), "is not fitted; call fit before save_model"),
        (RandomForestClassifier(2), "cannot save a RandomForestClassifier; use a head of feat"),
        (make_pipeline(RandomForestClassifier(2)), r"as steps of Pipeline; .*skops\.io\.dump"),
        (KNeighborsClassifier(), r"a KNeighborsClassifier; .*skops\.io\.dump"),
        (KNeighborsRegressor(), r"a KNeighborsRegressor; .*skops\.io\.dump"),
        (MLPClassifier((2,), solver="lbfgs"), r"a MLPClassifier; .*skops\.io\.dump"),
        (
            MLPRegressor(hidden_layer_sizes=(2,), solver="lbfgs"),
            r"a MLPRegressor; .*skops\.io\.dump",
        ),
        (SelfTrainingClassifier(LogisticRegression()), r"SelfTraining.*skops\.io\.dump"),
        (make_pipeline(FunctionTransformer(np.sqrt), Ridge()), "a FunctionTransformer as steps"),
        (
            TransformedTargetRegressor(
                Ridge(), func=np.log, inverse_func=np.exp, check_inverse=False
            ),
            "cannot save",
        ),
        (GridSearchCV(LinearProbeClassifier(), {"C": [1.0]}, cv=2), "save its best_estimator_"),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_what_cannot_be_kept_is_refused(model, message, iris, tmp_path):
    X, y = iris
    if "not fitted" not in message:
        model.fit(X, y.astype(object) if "Classifier" in repr(model) else X[:, 0])
    with pytest.raises(ModelError, match=message):
        save_model(model, tmp_path / "model.featuretl")
    assert not list(tmp_path.glob("model*"))


def test_the_digest_is_of_the_model(iris, tmp_path):
    X, y = iris
    model = LinearProbeClassifier().fit(X, y)
    assert model_digest(model) == model_digest(through_file(model, tmp_path))
    assert model_digest(model) != model_digest(LinearProbeClassifier(1.0).fit(X, y))


def test_several_tasks_predict_the_same_bits(iris, tmp_path):
    X, y = iris
    table = pd.DataFrame({"species": y, "petal": X[:, 3], "long": X[:, 2] > 3}).astype(object)
    table.loc[:20, "species"] = None
    machine = make_pipeline(StandardScaler(), SVR())
    model = MultiTaskHead({"petal": machine}).fit(X[:, :3], table)
    twin = through_file(model, tmp_path)
    for name in model.tasks_:
        assert_same(model.named_estimators_[name], twin.named_estimators_[name], X[:, :3])
    assert twin.predict(X[:, :3]).tolist() == model.predict(X[:, :3]).tolist()
    assert (twin.tasks_, twin.ranges_, twin.decision_) == (
        model.tasks_,
        model.ranges_,
        model.decision_,
    )
    card = read_card(tmp_path / "model.featuretl")
    assert card["tasks"]["species"] == {
        "task": "classification",
        "classes": ["setosa", "versicolor", "virginica"],
    }
    assert card["tasks"]["petal"]["range"] == list(model.ranges_["petal"])
    assert "petal: Pipeline on 150 of 150 rows (as given)." in card["decision"]


def test_images_that_are_prepared_otherwise_are_warned_of(pipeline, forge, model_file):
    save_model(pipeline, model_file)

    def older(model, _):
        state = model["state"]["steps"][0]["tuple"][1]["state"]
        recipe = json.loads(state["recipe"])
        recipe["decode"]["version"] = 0
        state["recipe"] = json.dumps(recipe)

    with pytest.warns(FeatureTLWarning, match="embeddings whose decode differ from"):
        load_model(forge(older))


def test_labels_of_the_other_byte_order_are_kept(iris, tmp_path):
    """HDF5 and FITS files have such arrays; their checksum was that of other bytes."""
    X, y = iris
    codes = np.unique(y, return_inverse=True)[1]
    swapped = codes.astype(codes.dtype.newbyteorder())
    model = LinearProbeClassifier().fit(X, swapped)
    twin = through_file(model, tmp_path)
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    assert model_digest(twin) == model_digest(model)
