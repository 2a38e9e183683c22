"""Taking a snapshot of the index: a consistent copy on the event loop, encoded and written in a thread."""

from vstack.core.superblock.catalogue import Superblock
from vstack.core.superblock.layout import PAGE_BYTES
from vstack.core.superblock.snapshot import Covered, Snapshot
from vstack.storage.engine.volume import Volume


def take(volume: Volume, *, clean: bool) -> Snapshot:
    """What is durable and indexed now. `clean` only where nothing is in flight and nothing will be written any more."""
    with volume.lock:
        low_waters = {
            slot: volume.allocator.low_water(superblock) for slot, superblock in volume.catalogue.superblocks.items()
        }
        last_sequence = volume.allocator.last_sequence
    return Snapshot(
        disk_uuid=volume.identity.disk_uuid,
        incarnation=volume.identity.incarnation,
        clean=clean,
        last_sequence=last_sequence,
        superblocks=tuple(
            _covered(volume.catalogue.superblocks[slot], low_water) for slot, low_water in low_waters.items()
        ),
        chunks=volume.catalogue.chunks.dump(),
        acceptors=volume.catalogue.acceptors.dump(),
    )


def _covered(superblock: Superblock, low_water: int) -> Covered:
    beyond = (entry.page for entry in superblock.entries if entry.page * PAGE_BYTES >= low_water)
    return Covered(
        slot=superblock.slot,
        uuid=superblock.uuid.bytes,
        sealed=superblock.is_sealed,
        offset=low_water,
        beyond=tuple(beyond),
        live_records=superblock.live_records,
        live_bytes=superblock.live_bytes,
        quarantined_bytes=superblock.quarantined_bytes,
        needed=tuple(uuid.bytes for uuid in superblock.needed),
        entries=superblock.entries.packed(),
    )
