"""Texts and sequences: what they hold, where they come from, and what can be known of them."""

import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError


def test_characters_are_english_of_the_language_reference():
    data = ntk.data.characters(context=40, train=500, test=200)
    assert data.train.shape == (500, 41)
    assert data.test.shape == (200, 41)
    assert data.train.dtype == data.test.dtype == np.int32
    assert len(set(data.alphabet)) == len(data.alphabet) == 50
    share = np.bincount(data.train.ravel(), minlength=50) / data.train.size
    # Blanks and "e" are the most frequent, as in English; few characters are none of ours.
    assert data.text(np.argsort(-share)[:2]) == " e"
    assert share[-1] < 0.03
    text = data.text(data.train)
    assert "  " not in data.text(data.train[0])
    assert text.count(" the ") > 50


def test_windows_are_pieces_of_one_text_and_test_windows_of_another_part():
    data = ntk.data.characters(context=60, train=4000, test=1000)
    train, test = ({data.text(row) for row in part} for part in (data.train, data.test))
    assert not train & test
    again = ntk.data.characters(context=60, train=4000, test=1000)
    np.testing.assert_array_equal(data.train, again.train)
    assert (ntk.data.characters(context=60, train=4000, seed=1).train != data.train).any()


def test_repeats_repeat_and_say_where():
    vocabulary, (low, high) = 9, (3, 7)
    tokens, known = ntk.data.repeats(300, 20, vocabulary, periods=(low, high), seed=2)
    assert tokens.shape == (300, 21)
    assert known.shape == (300, 20)
    assert tokens.dtype == np.int32
    found = set()
    for row, mask in zip(tokens, known, strict=True):
        period = int(np.argmax(mask))
        found.add(period)
        assert len(set(row[:period])) == period
        np.testing.assert_array_equal(row[period:], row[:-period])
        np.testing.assert_array_equal(mask, np.arange(20) >= period)
    assert found == set(range(low, high + 1))


def test_looking_a_token_up_in_its_context_is_always_right_where_known():
    tokens, known = ntk.data.repeats(200, 24, 8, periods=(2, 8))
    for row, mask in zip(tokens, known, strict=True):
        for t in range(24):
            before = np.flatnonzero(row[:t] == row[t])
            assert mask[t] == (len(before) > 0)
            if len(before):
                assert row[before[-1] + 1] == row[t + 1]


def test_tokens_are_equally_frequent_everywhere():
    tokens, _ = ntk.data.repeats(8000, 12, 6, periods=(4, 6))
    counts = np.stack([np.bincount(column, minlength=6) for column in tokens.T])
    expected = 8000 / 6
    z = (counts - expected) / np.sqrt(expected * (1 - 1 / 6))
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("name", ["context", "train", "test"])
def test_numbers_of_windows_are_checked(name):
    with pytest.raises(InputError, match=f"{name}=0"):
        ntk.data.characters(**{name: 0})
    with pytest.raises(InputError, match="the text to test on"):
        ntk.data.characters(context=10**7)


@pytest.mark.parametrize("periods", [(1, 3), (4, 3), (3, 17), (3, 12)])
def test_periods_that_cannot_be_are_told(periods):
    with pytest.raises(InputError, match="period"):
        ntk.data.repeats(5, 12, 16, periods=periods)
