"""TODO"""

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_cached_trunks_are_spaces_of_the_store(quick, photos, labels, cache):
    model = quick(cache=cache, augment="light", epochs=3).fit(photos, labels)
    result = CliRunner().invoke(cli, ["cache", "info", "--cache", str(cache)])
    assert result.exit_code == 0, result.output
    assert "blocks.6.0" in result.output
    assert "48 embeddings" in result.output
    before = model.predict_proba(photos)
    result = CliRunner().invoke(cli, ["cache", "gc", "--max-size", "0kB", "--cache", str(cache)])
    assert "2 recipes" in result.output
    np.testing.assert_allclose(model.predict_proba(photos), before, atol=1e-5)
    again = quick(cache=cache, augment="light", epochs=3).fit(photos, labels)
    np.testing.assert_allclose(again.predict_proba(photos), before, atol=1e-5)
