"""Compare the store with a set under random operations of two users and random damage."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from random import Random

import pytest
from damage import committed_files, damage
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from known_rows import RECIPE, append, found_in, open_space, present, put, take

from featuretl import EmbeddingStore
from featuretl.exceptions import FeatureTLWarning, StoreError
from featuretl.store.collect import collect
from featuretl.store.verify import verify

N = 12
NUMBERS = st.lists(st.integers(0, N - 1), unique=True, max_size=6)
USERS = st.integers(0, 1)


class Store(RuleBasedStateMachine):
    """Rows in `kept` must be present and rows in `possible` may be; bits are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.users = [EmbeddingStore(self.folder), EmbeddingStore(self.folder)]
        self.kept: set[int] = set()
        self.possible: set[int] = set()
        self._quiet = warnings.catch_warnings()
        self._quiet.__enter__()
        warnings.simplefilter("ignore", FeatureTLWarning)  # damage is expected here

    def teardown(self) -> None:
        self._quiet.__exit__(None, None, None)
        shutil.rmtree(self.folder)

    @rule(user=USERS, numbers=NUMBERS)
    def put(self, user, numbers):
        taken = put(self.users[user], numbers)
        assert self.kept.isdisjoint(taken)
        self._commits(numbers)

    @rule(numbers=NUMBERS, others=NUMBERS, rebuild=st.booleans())
    def put_beside_each_other(self, numbers, others, rebuild):
        with open_space(self.users[0]) as one, open_space(self.users[1]) as two:
            first, second = take(one, numbers), take(two, others)
            assert set(first).isdisjoint(second)
            append(one, first)
            append(two, second)
            one.commit()
            if rebuild:
                EmbeddingStore(self.folder).index.rebuild()
            two.commit()
            if second:  # an empty commit does not read the index
                assert {*first, *second} == found_in(two, [*first, *second])
            with pytest.raises(StoreError, match="in use"):
                collect(self.users[0], max_size=0)
        self._commits([*numbers, *others])

    @rule(user=USERS, numbers=NUMBERS)
    def kill(self, user, numbers):
        """Stop without a commit; the claims and locks are released, as when a process ends."""
        space = open_space(self.users[user]).__enter__()
        append(space, take(space, numbers))
        space._claims.release_all()
        space._locked.close()
        self.users[user] = EmbeddingStore(self.folder)

    @rule(user=USERS)
    def reopen(self, user):
        self.users[user] = EmbeddingStore(self.folder)

    @rule(user=USERS)
    def collect_garbage(self, user):
        if self.folder.joinpath("index.sqlite").exists():
            collect(self.users[user], max_size=0)
            self.kept, self.possible = set(), set()

    @rule(user=USERS)
    def compact(self, user):
        reader = self.users[1 - user].find_space(RECIPE)
        collect(self.users[user])
        assert reader is None or self.kept <= found_in(reader, list(range(N)))

    @rule(user=USERS)
    def rebuild_the_index(self, user):
        self.users[user].index.rebuild()

    @rule(user=USERS, repair=st.booleans())
    def verify(self, user, repair):
        verify(self.users[user], repair)
        assert not repair or verify(self.users[user]) == []

    @rule(user=USERS)
    def lose_the_index(self, user):
        self.folder.joinpath("index.sqlite").unlink(missing_ok=True)

    @precondition(lambda self: self.kept)
    @rule(random=st.randoms(use_true_random=False))
    def corrupt(self, random: Random):
        damage(random.choice(committed_files(self.folder)), random)
        self.users = [EmbeddingStore(self.folder), EmbeddingStore(self.folder)]
        self.possible |= self.kept
        self.kept = present(self.users[0], range(N))
        assert self.kept <= self.possible

    @invariant()
    def every_user_gets_what_is_kept(self):
        for user in self.users:
            there = present(user, range(N))
            assert self.kept <= there <= self.kept | self.possible

    def _commits(self, numbers: list[int]) -> None:
        self.kept |= set(numbers)


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
