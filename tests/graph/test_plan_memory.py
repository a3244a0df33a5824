"""Tensors in one arena: none overwrites another, and little more is used than lives at once."""

from hypothesis import given
from hypothesis import strategies as st

from sparsec.graph.plan_memory import ALIGNMENT, SLACK, Life, plan_memory


def live_bytes(lives):
    """The most bytes that live at one step: no plan needs less.

    In its first step, a tensor that may be written over another one is not counted.
    """

    def place(life):
        return -(-(life.nbytes + SLACK) // ALIGNMENT) * ALIGNMENT

    def live_at(step):
        return sum(place(a) for a in lives if a.first + (a.over is not None) <= step <= a.last)

    return SLACK + max(map(live_at, range(1 + max(life.last for life in lives)))) if lives else 0


@st.composite
def lives(draw):
    drawn = []
    for index in range(draw(st.integers(0, 24))):
        first = draw(st.integers(0, 20))
        over = draw(st.none() | st.integers(0, index - 1)) if index else None
        drawn.append(Life(draw(st.integers(1, 3000)), first, first + draw(st.integers(0, 6)), over))
    return drawn


@given(lives())
def test_tensors_that_live_at_once_keep_their_distance(lives):
    offsets, size = plan_memory(lives)
    for a, first in enumerate(lives):
        assert offsets[a] % ALIGNMENT == 0
        assert offsets[a] >= SLACK
        assert offsets[a] + first.nbytes + SLACK <= size
        for b, second in enumerate(lives[:a]):
            if first.first <= second.last and second.first <= first.last:
                apart = (
                    offsets[a] >= offsets[b] + second.nbytes + SLACK or offsets[b] >= offsets[a] + first.nbytes + SLACK
                )
                shared = offsets[a] == offsets[b] and min(first.last, second.last) <= max(first.first, second.first)
                assert apart or (shared and first.over is not None)


@given(lives())
def test_no_plan_is_smaller_than_what_lives_at_once(lives):
    assert plan_memory(lives)[1] >= live_bytes(lives)


def test_nothing_needs_no_arena():
    assert plan_memory([]) == ([], 0)


def test_a_chain_takes_two_places():
    chain = [Life(1024, step, step + 1) for step in range(10)]
    offsets, size = plan_memory(chain)
    assert len(set(offsets)) == 2
    assert size == live_bytes(chain)


def test_a_transformer_takes_what_lives_at_once():
    """Twelve layers of q, k, v, scores, probabilities, context, and a hidden layer of four times the width."""
    wide, scores = 768 * 128 * 4, 12 * 128 * 128 * 4
    lives = [Life(wide, 0, 7)]
    for start in range(0, 12 * 11, 11):
        lives += [Life(wide, start + i, start + (4 if i < 2 else 6)) for i in (1, 2, 3)]
        lives += [
            Life(scores, start + 4, start + 5),
            Life(scores, start + 5, start + 6),
            Life(wide, start + 6, start + 7),
        ]
        lives += [Life(wide, start + 7, start + 8), Life(wide, start + 8, start + 10)]
        lives += [Life(4 * wide, start + 9, start + 10), Life(wide, start + 10, start + 11)]
        lives += [Life(wide, start + 11, start + 18)]
    assert plan_memory(lives)[1] <= 1.02 * live_bytes(lives)


def test_an_elementwise_step_writes_over_its_operand():
    lives = [Life(4096, 0, 1), Life(4096, 1, 2, over=0), Life(4096, 2, 3, over=1)]
    offsets, size = plan_memory(lives)
    assert offsets == [SLACK] * 3
    assert size == live_bytes(lives) == SLACK + 4096 + SLACK


def test_an_operand_that_is_read_later_is_kept():
    offsets, _ = plan_memory([Life(4096, 0, 2), Life(4096, 1, 2, over=0)])
    assert offsets[0] != offsets[1]


def test_an_operand_of_another_size_is_kept():
    offsets, _ = plan_memory([Life(4096, 0, 1), Life(8192, 1, 2, over=0)])
    assert offsets[0] != offsets[1]
