"""Proving less than the whole ledger: one entry, or that one checkpoint continues another, in O(log n)
reads.
"""

from consent.copies import Copy
from consent.entry import read_entry
from consent.key_history import KeyHistory
from consent.merkle import (
    ProofError,
    ReadNode,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from consent.note import Checkpoint, TlogProof
from consent.report import Report
from consent.reveal import Reveal
from consent.tiles import WIDTH, node_reader


def verify_entry(
    copy: Copy, history: KeyHistory, index: int, report: Report, reveal: Reveal | None = None
) -> None:
    """Shows that entry *index* of *copy* stands under its newest checkpoint, signed by a key of *history*."""
    newest = newest_checkpoint(copy, history, report)
    if newest is None:
        return
    place = f"entry {index}"
    if not 0 <= index < newest.size:
        report.add(place, f"the newest checkpoint signs {newest.size} entries, and not this one")
        return
    try:
        number, offset = divmod(index, WIDTH)
        held = copy.block(number, min(WIDTH, newest.size - number * WIDTH)).entries
        data = held[offset]
        if data is None:
            raise ProofError("it is missing")  # noqa: TRY301  # one way out
        path = inclusion_proof(index, newest.size, nodes_of(copy, newest.size))
        verify_inclusion(index, newest.size, leaf_hash(data), path, newest.root)
        body, kind, *_ = read_entry(data)
    except ProofError as error:
        report.add(place, str(error))
        return
    report.kinds[kind] += 1
    report.size = report.signed = 1
    report.proved = f"entry {index} stands in the ledger of {newest.size:,} entries that the checkpoint signs"
    if reveal is not None:
        reveal.see(index, body, report.add)


def verify_between(copy: Copy, history: KeyHistory, older: str, newer: str, report: Report) -> None:
    """Shows, with the hashes of *copy*, that the checkpoint *newer* continues *older* (signed notes in any
    order), both signed by a key of *history*.
    """
    newest = newest_checkpoint(copy, history, report)
    if newest is None:
        return
    report.note = ""  # neither of the two is the newest one of this copy
    try:
        first, second = sorted((history.open(note) for note in (older, newer)), key=lambda c: c.size)
        report.checkpoints += 2
        report.root = second.root
        if second.size > newest.size:
            raise ProofError(  # noqa: TRY301  # one way out
                f"this copy has {newest.size} signed entries: too few to compare {second.size}"
            )
        read = nodes_of(copy, newest.size)
        proof = consistency_proof(first.size, second.size, read)
        verify_consistency(first.size, second.size, first.root, second.root, proof)
    except ProofError as error:
        report.add("checkpoints", str(error))
        return
    report.proved = f"the checkpoint of {second.size:,} entries continues the one of {first.size:,}"


def verify_proof(
    text: str, entry: bytes | None, history: KeyHistory, report: Report, reveal: Reveal | None = None
) -> None:
    """Shows that the tlog-proof *text* is of *entry* (else of the entry that it carries). Raises
    `LookupError` when there is no entry.
    """
    try:
        proof = TlogProof.decode(text)
        data = entry if entry is not None else proof.extra
        if data is None:
            raise LookupError
        report.origin, report.root = proof.checkpoint.origin, proof.checkpoint.root
        history.open(proof.checkpoint.note)
        report.checkpoints = 1
        proof.verify(data, history.keys_for(proof.checkpoint.size))
        report.size = report.signed = 1
        body, kind, *_ = read_entry(data)
    except ProofError as error:
        report.add("proof", str(error))
        return
    report.kinds[kind] += 1
    if reveal is not None:
        reveal.see(proof.index, body, report.add)


def newest_checkpoint(copy: Copy, history: KeyHistory, report: Report) -> Checkpoint | None:
    """The newest checkpoint of *copy* when a key of *history* signed it; else the *report* says why
    not.
    """
    report.origin = history.anchor.name
    note = ""
    try:
        for _, note in copy.checkpoints():  # noqa: B007  # the last is wanted
            pass
        newest = history.open(note)
    except ProofError as error:
        report.add("checkpoint", str(error))
        return None
    report.checkpoints = 1
    report.root, report.note = newest.root, newest.note
    return newest


def nodes_of(copy: Copy, size: int) -> ReadNode:
    """A reader of the nodes of the tree of *size* entries, from the tiles of *copy*."""

    def read(level: int, number: int) -> bytes:
        there: int = (size >> 8 * level) - number * WIDTH
        return copy.tile(level, number, min(WIDTH, there)) if there > 0 else b""

    return node_reader(read)
