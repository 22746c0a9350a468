"""`run.collect`: streams a bundle, in any state of the run; the client's reading sets the pace."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from soakd.handlers.context import BundleStream, Context
from soakd.wire.frames import MAX_DATA_BYTES
from soakd.wire.results import CollectResult


async def handle(ctx: Context, params: dict[str, Any]) -> CollectResult:
    """Send the bundle in `run.chunk` pieces, then its name, length and digest."""
    digest = hashlib.sha256()
    seq = sent_bytes = 0
    full = params.get("full") is True
    keep_destinations = params.get("keep_destinations") is True
    async with (
        ctx.scheduler.collect(ctx.run, full=full, keep_destinations=keep_destinations) as bundle,
        _closed(bundle) as chunks,
    ):
        async for chunk in chunks:
            for start in range(0, len(chunk), MAX_DATA_BYTES):
                piece = bytes(chunk[start : start + MAX_DATA_BYTES])
                digest.update(piece)
                seq += 1
                sent_bytes += len(piece)
                await ctx.notify("run.chunk", {"seq": seq, "data": piece})
        name = bundle.name
    return {"name": name, "bytes": sent_bytes, "sha256": digest.hexdigest()}


@asynccontextmanager
async def _closed(bundle: BundleStream) -> AsyncIterator[AsyncIterator[bytes]]:
    """Iterate so that a generator ends here, not in the garbage collector after its helpers."""
    chunks = aiter(bundle)
    if isinstance(chunks, AsyncGenerator):
        async with aclosing(chunks):
            yield chunks
    else:
        yield chunks
