"""Text for character-level language models: the help texts that ship with Python."""

from typing import NamedTuple

import numpy as np

from ntk_lab.errors import InputError

# Every other character, of which each is rare, is written as the last of these.
ALPHABET = "abcdefghijklmnopqrstuvwxyz .,\n()'\"-_=:*0123456789~"
# Share of the text, from its end, that test windows are taken from.
_TEST_SHARE = 0.2


class Characters(NamedTuple):
    """Windows of a text.

    Attributes
    ----------
    train, test
        Characters ``(n, context + 1)`` as int32 numbers: inputs are ``[:, :-1]`` and what follows
        each position ``[:, 1:]``. From parts of the text that do not overlap.
    alphabet
        What the numbers stand for; the last also for all others.
    """

    train: np.ndarray
    test: np.ndarray
    alphabet: str

    def text(self, numbers: np.ndarray) -> str:
        """Characters of an array of numbers."""
        return "".join(self.alphabet[i] for i in np.ravel(numbers))


def characters(
    context: int = 32, train: int = 2000, test: int = 500, *, seed: int = 0
) -> Characters:
    """Windows of the help texts of Python itself, in lower case and runs of blanks as one.

    The language reference as ``pydoc_data.topics`` has it, about 400,000 characters of English and
    of code. Nothing is downloaded; the text is that of the Python it runs in, and differs a
    little from one release to the next.

    Parameters
    ----------
    context
        Characters that a model sees of each window; one more is the last to be predicted.
    train, test
        Windows in each part, at random places, which may overlap within a part. Test windows are
        of the last fifth of the text, training windows of the rest.
    seed
        Of the random draw.

    Returns
    -------
    Characters

    Raises
    ------
    InputError
        Numbers that are not positive, or a context longer than the text.
    ImportError
        A Python without its help texts, as some minimal distributions are.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> data = ntk.data.characters(context=16, train=100, test=50)
    >>> data.train.shape, data.test.shape, len(data.alphabet)
    ((100, 17), (50, 17), 50)
    """
    for name, value in (("context", context), ("train", train), ("test", test)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r}; give an integer of at least 1.")
    codes = _codes()
    start = int(len(codes) * (1 - _TEST_SHARE))
    if context >= len(codes) - start:
        raise InputError(
            f"context={context}; the text to test on has {len(codes) - start} characters, and a "
            "window one more than its context."
        )
    rng = np.random.default_rng(seed)
    seen = _windows(codes[:start], context, train, rng)
    return Characters(seen, _windows(codes[start:], context, test, rng), ALPHABET)


def _codes() -> np.ndarray:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ImportError(
            "this Python was installed without its help texts (pydoc_data.topics)."
        ) from error
    # Keys in order: how a dictionary is written is no part of the text.
    lines = (line.strip() for name in sorted(topics) for line in topics[name].lower().splitlines())
    text = "\n".join(" ".join(line.split()) for line in lines if line)
    number = {c: i for i, c in enumerate(ALPHABET)}
    return np.array([number.get(c, len(ALPHABET) - 1) for c in text], np.int32)


def _windows(codes: np.ndarray, context: int, count: int, rng: np.random.Generator) -> np.ndarray:
    starts = rng.integers(0, len(codes) - context, count)
    return codes[starts[:, None] + np.arange(context + 1)]
