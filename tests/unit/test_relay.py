"""Claims about standing between a terminal and a VE that need no VE."""

from __future__ import annotations

import asyncio
import os

from reconciler.host import relay


def test_what_is_written_without_end_holds_nobody_up() -> None:
    async def main() -> None:
        source, target = os.open("/dev/zero", os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)
        try:
            await relay._finish(asyncio.create_task(asyncio.sleep(0)), source, target)
        finally:
            os.close(source)
            os.close(target)

    asyncio.run(main())
