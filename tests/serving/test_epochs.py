"""What a change has put aside is let go of when nobody is left who began before it."""

from __future__ import annotations

from contextlib import ExitStack

from castore.serving.epochs import Epochs


def test_what_is_used_is_closed_by_the_last_who_uses_it() -> None:
    """And two changes one after the other in their order."""
    closed: list[str] = []
    epochs = Epochs(closed.append)  # type: ignore[arg-type]
    with ExitStack() as early:
        early.enter_context(epochs.use())
        epochs.change(lambda: closed.append("first"))
        with epochs.use():
            epochs.change(lambda: closed.append("second"))
        # Nobody uses the second one any more; but who began earlier may have got it.
        assert closed == []
        assert epochs.waiting == 2
    assert closed == ["first", "second"]
    epochs.change(lambda: closed.append("unused"))
    assert closed[-1] == "unused"
    assert epochs.waiting == 0


def test_an_error_is_told_and_the_others_are_closed() -> None:
    told: list[Exception] = []
    closed: list[str] = []
    epochs = Epochs(told.append)
    with epochs.use():
        epochs.change(lambda: 1 / 0)
        epochs.change(lambda: closed.append("the other"))
    assert [type(error) for error in told] == [ZeroDivisionError]
    assert closed == ["the other"]
