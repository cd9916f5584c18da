"""Sections of photographs: evidence, pairs, and what is left out."""

from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, NearestMeanClassifier


def test_evidence_is_shown_beside_the_mistakes(report, page_of, model, photos, labels, path, quick):
    wrong = labels.copy()
    wrong[[0, 20]] = wrong[[20, 0]]
    report(model, photos, wrong, path)
    section = page_of(path).source.split('id="mistakes"')[1].split("</section>")[0]
    assert section.count("<img") == 4
    assert "evidence for the prediction" in section
    report(model, photos, wrong, path, explain=False)
    section = page_of(path).source.split('id="mistakes"')[1].split("</section>")[0]
    assert section.count("<img") == 2


def test_a_model_without_evidence_is_reported_all_the_same(
    report, page_of, photos, labels, path, quick
):
    embedder = ImageEmbedder("test_vit", weights="random", pooling="avg+max")
    model = make_pipeline(embedder, NearestMeanClassifier()).fit(photos, labels[::-1])
    report(model, photos, labels, path)
    section = page_of(path).source.split('id="mistakes"')[1].split("</section>")[0]
    assert "No evidence is shown" in section
