"""The progress bar counts on stderr."""

from featuretl._core.progress import progress_bar


def test_a_bar_shows_how_much_is_done_and_nothing_where_it_is_hidden(capsys):
    with progress_bar("Embedding", 3, "images") as update:
        update(1)
        update()
        update(4, 4)
    shown = capsys.readouterr().err
    assert "Embedding" in shown
    assert "4/4" in shown
    assert "images/s" in shown
    with progress_bar("Embedding", 3, shown=False) as update:
        update(1)
        update()
    assert capsys.readouterr() == ("", "")


def test_in_a_notebook_the_bar_needs_no_widgets(capsys, monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with progress_bar("Embedding", 3, "images") as update:
        update(1)
        update()
        update(4, 5)
    shown = capsys.readouterr().err
    assert "Embedding" in shown
    assert "4/5" in shown
    assert "images/s" in shown
