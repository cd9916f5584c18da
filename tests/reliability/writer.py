"""Write known rows until killed: ``python writer.py STORE SEED N``.

Every line on standard output lists the images of a completed commit.
"""

from __future__ import annotations

import sys
import warnings
from random import Random

from known_rows import append, chunks, open_space, take

from featuretl import EmbeddingStore
from featuretl.exceptions import FeatureTLWarning


def main(path: str, seed: int, n: int) -> None:
    """Write the images 0 .. n - 1 in random order, a few per commit."""
    warnings.simplefilter("ignore", FeatureTLWarning)  # rows of damaged segments are embedded again
    random = Random(seed)
    order = random.sample(range(n), n)
    print(flush=True)  # signals the start
    with open_space(EmbeddingStore(path)) as space:
        for numbers in chunks(order, random.randint(1, 8)):
            taken = take(space, numbers)
            append(space, taken)
            space.commit()
            print(*taken, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
