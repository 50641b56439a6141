"""Who we are to etcd: a user with a password, for which its gateway gives a token.

Source: etcd, "Authentication guide"; the gateway refuses the identity of a certificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from reconciler.fleet import etcd_wire as wire
from reconciler.fleet.etcd_http import Member
from reconciler.kernel.secret import read_secret
from reconciler.model.etcd import EtcdAddress

_LEADER_NEEDED = {"grpc-metadata-hasleader": "true"}
"""Has a member without a leader refuse at once, where it would hold a request until there is one."""


class Login:
    """The token, which every member knows until it is restarted or the token has not been used for minutes."""

    def __init__(self, address: EtcdAddress) -> None:
        self._address = address
        self._headers: Mapping[str, str] | None = None if address.username else _LEADER_NEEDED
        self._turn = asyncio.Lock()

    async def headers(self, member: Member) -> Mapping[str, str]:
        """Give what goes with every request; log in for it, if need be.

        Raises: NotSentError, NotAnsweredError, EtcdRefusalError; VectlError, if the password cannot be read.
        """
        async with self._turn:
            if self._headers is None:
                self._headers = await self._log_in(member, self._address.username or "")
            return self._headers

    def forget(self, headers: Mapping[str, str]) -> bool:
        """Log in anew for the next request, unless another task did meanwhile; False, if there is no user."""
        if self._headers is headers and self._address.username:
            self._headers = None
        return self._address.username is not None

    async def _log_in(self, member: Member, username: str) -> Mapping[str, str]:
        password = read_secret(self._address.password_file) if self._address.password_file else ""
        body = wire.encode(wire.login_request(username, password))
        try:
            answer = wire.parse_answer(*await member.post("/v3/auth/authenticate", body, _LEADER_NEEDED))
        except wire.EtcdRefusalError as err:
            if err.says_auth_is_off:
                return {**_LEADER_NEEDED}
            raise
        return {**_LEADER_NEEDED, "authorization": str(answer.get("token", ""))}
