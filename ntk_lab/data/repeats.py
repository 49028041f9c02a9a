"""Random sequences that repeat themselves: what is new in context, and what can be copied."""

from typing import NamedTuple

import numpy as np

from ntk_lab.errors import InputError


class Repeats(NamedTuple):
    """Sequences that repeat with periods of their own.

    Attributes
    ----------
    tokens
        Int32 numbers ``(n, context + 1)``: inputs are ``[:, :-1]`` and what follows each position
        ``[:, 1:]``.
    known
        ``(n, context)``: whether what follows that position can be told from the positions so far,
        because it and its predecessor have been seen one period before.
    """

    tokens: np.ndarray
    known: np.ndarray


def repeats(
    count: int,
    context: int = 32,
    vocabulary: int = 16,
    *,
    periods: tuple[int, int] = (5, 12),
    seed: int = 0,
) -> Repeats:
    """Sequences of random tokens that repeat with a random period: a task for induction heads.

    Each sequence is ``p`` different tokens in random order, again and again, ``p`` drawn from
    ``periods``. Nothing but the sequence itself says what follows a token, so that

    - without looking back the loss is at least ``ln(vocabulary - 1)``, whatever the parameters: a
      token never follows itself, and every other one is as likely;
    - where the token was seen before (``known``) looking it up and copying what followed makes the
      loss zero. The period being random, positions alone do not say where to look: it takes two
      layers of attention (arXiv:2209.11895), or one so large that it grows with the context
      (arXiv:2408.14332);
    - what follows is also the token that was seen longest ago, which a single layer might
      make use of.

    Parameters
    ----------
    count, context
        Number of sequences, and tokens that a model sees of each.
    vocabulary
        Number of different tokens.
    periods
        Smallest and largest period, the latter at most ``vocabulary`` and below ``context``.
    seed
        Of the random draw.

    Returns
    -------
    Repeats

    Raises
    ------
    InputError
        Numbers out of range.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> data = ntk.data.repeats(100, context=8, vocabulary=6, periods=(3, 4))
    >>> data.tokens.shape, data.known.shape
    ((100, 9), (100, 8))
    """
    low, high = periods
    if count < 1 or not 2 <= low <= high <= vocabulary or high >= context:
        raise InputError(
            f"count={count}, context={context}, vocabulary={vocabulary}, periods={periods}; give "
            "a sequence at least, and 2 <= smallest <= largest period <= vocabulary, and a largest "
            "period below the context."
        )
    rng = np.random.default_rng(seed)
    period = rng.integers(low, high + 1, count)[:, None]
    orders = rng.permuted(np.tile(np.arange(vocabulary, dtype=np.int32), (count, 1)), axis=1)
    places = np.arange(context + 1)[None]
    tokens = np.take_along_axis(orders, places % period, axis=1)
    return Repeats(tokens, places[:, :-1] >= period)
