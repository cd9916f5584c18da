"""The numbers of an extraction, and its bar."""

from featuretl.extraction.statistics import Statistics, embedding_bar


def test_done_and_rate_follow_from_the_counts():
    statistics = Statistics(10, cached=2, embedded=3, failed=1, seconds=2.0)
    assert (statistics.done, statistics.images_per_second) == (6, 3.0)
    assert Statistics(10).images_per_second == 0.0


def test_the_bar_shows_what_is_done(capsys):
    with embedding_bar(4) as progress:
        progress(Statistics(4, cached=1, embedded=3))
    assert "4/4" in capsys.readouterr().err
