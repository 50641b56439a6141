"""Claims about what is found of VEs on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import KernelError
from reconciler.host.site import Site
from reconciler.model.identity import HostName, Uid
from reconciler.model.instance import Instance

HERE, GONE = Uid("11111111-1111-4111-8111-111111111111"), Uid("22222222-2222-4222-8222-222222222222")


@pytest.mark.kernel
def test_a_ve_that_is_not_there_is_told_from_a_pool_that_is_not_there(tmp_path: Path) -> None:
    state = str(tmp_path)
    site = Site(Instance(name="x", host=HostName("h"), state_dir=state, run_dir=state, cgroup="/x", pool_size=0))
    try:
        with pytest.raises(KernelError, match="look into"):
            site.those_here({HERE, GONE})
        Path(site.instance.ve_dir(HERE)).mkdir(parents=True)
        assert site.those_here({HERE, GONE}) == [HERE]
        assert site.those_here({GONE}) == []
    finally:
        site.close()
