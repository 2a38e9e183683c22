"""The order of messages in `Acceptors`, over the engine in memory."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tests.storage.service.memory import MemoryEngine
from vstack.core.paxos.acceptor import AcceptorState, governing, step
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import Accept, Instance, Learn, Message, Prepare, Promise, Retire
from vstack.storage.acceptors import Acceptors
from vstack.storage.contract import Identity

CONFIG = Config(1, ("me", "b", "c"))


def instance(chunk: str = "c", epoch: int = 0) -> Instance:
    return Instance(chunk, epoch, CONFIG)


def engine() -> MemoryEngine:
    return MemoryEngine(Identity("me", "disk", 1))


def on(memory: MemoryEngine) -> Acceptors:
    return Acceptors(memory, lambda _kind, _outcome: None)


async def test_messages_to_one_chunk_are_taken_one_after_another() -> None:
    acceptors = on(engine())
    taken = await asyncio.gather(*(acceptors.handle(Prepare(instance(), 1 << 16)) for _ in range(20)))
    assert sum(isinstance(each.reply, Promise) for each in taken) == 1


async def test_a_vote_waits_for_the_proposal_that_is_being_stored() -> None:
    memory = engine()
    acceptors = on(memory)
    async with acceptors.proposed(Accept(instance(), 0, b"first")) as taken:
        other = asyncio.create_task(acceptors.handle(Accept(instance(), 0, b"second")))
        elsewhere = await acceptors.handle(Accept(instance("another"), 0, b"free"))
        assert elsewhere.fast_vote == b"free"
        assert not other.done()
        assert taken.unsaved is not None
        await memory.journal([taken.unsaved])
    assert (await other).fast_vote == b"first"


async def test_a_failed_proposal_leaves_no_vote() -> None:
    acceptors = on(engine())
    try:
        async with acceptors.proposed(Accept(instance(), 0, b"first")):
            raise RuntimeError
    except RuntimeError:
        pass
    assert (await acceptors.handle(Accept(instance(), 0, b"second"))).fast_vote == b"second"


async def test_locks_do_not_pile_up() -> None:
    acceptors = on(engine())
    for number in range(100):
        await acceptors.handle(Prepare(instance(f"c-{number}"), 1 << 16))
    assert len(acceptors._locks._locks) == 0


async def test_batches_in_opposite_order_do_not_block_each_other() -> None:
    acceptors = on(engine())
    forward: list[Message] = [Learn(instance(f"c-{number}"), b"v") for number in range(20)]
    async with asyncio.timeout(10):
        await asyncio.gather(*(acceptors.handle_all(batch) for batch in (forward, forward[::-1]) * 5))


messages = st.builds(
    lambda epoch, kind, ballot, value: {
        "prepare": Prepare(instance(epoch=epoch), ballot << 16),
        "accept": Accept(instance(epoch=epoch), ballot << 16, value),
        "learn": Learn(instance(epoch=epoch), b"chosen %d" % epoch),
        "retire": Retire(instance(epoch=epoch)),
    }[kind],
    st.integers(0, 2),
    st.sampled_from(["prepare", "accept", "learn", "learn", "retire"]),
    st.integers(0, 3),
    st.sampled_from([b"x", b"y"]),
)


@given(st.lists(messages, max_size=12))
def test_a_batch_answers_as_one_by_one(batch: list[Message]) -> None:
    """The oracle keeps every state ever reached: dropping what is closed must not show."""

    async def run() -> None:
        together, single = on(engine()), on(engine())
        kept: dict[int, AcceptorState] = {}
        expected = []
        for message in batch:
            after, reply = step("me", governing(kept.values(), message.instance.epoch), message)
            expected.append(reply)
            if after is not None:
                kept[after.instance.epoch] = after
        assert await together.handle_all(batch) == expected
        assert [(await single.handle(message)).reply for message in batch] == expected

    asyncio.run(run())
