"""Who we are to etcd: a user with a password, for which its gateway gives a token.

Source: etcd, "Authentication guide"; the gateway refuses the identity of a certificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from reconciler.fleet import etcd_wire as wire
from reconciler.fleet.etcd_http import Member, NotAnsweredError, NotSentError
from reconciler.kernel.secret import read_secret
from reconciler.model.etcd import EtcdAddress

_WHO = "authorization"
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

        Raises: NotSentError, and so is what was to follow; EtcdRefusalError, if the user is refused; VectlError, if the
        password cannot be read.
        """
        async with self._turn:
            if self._headers is None:
                self._headers = await self._log_in(member, self._address.username or "")
            return self._headers

    def can_help(self, err: wire.EtcdRefusalError, headers: Mapping[str, str]) -> bool:
        """Tell whether logging in anew may mend a refusal; the next request will, unless another task did meanwhile.

        Access control may have been switched on since it was off.
        """
        if not self._address.username or not (err.wants_login or (err.is_final and _WHO not in headers)):
            return False
        if self._headers is headers:
            self._headers = None
        return True

    async def _log_in(self, member: Member, username: str) -> Mapping[str, str]:
        password = read_secret(self._address.password_file) if self._address.password_file else ""
        body = wire.encode(wire.login_request(username, password))
        try:
            answer = wire.parse_answer(*await member.ask("/v3/auth/authenticate", body, _LEADER_NEEDED))
        except NotAnsweredError as err:
            raise NotSentError(str(err)) from err
        except wire.EtcdRefusalError as err:
            if err.says_auth_is_off:
                return {**_LEADER_NEEDED}
            if err.is_final:
                raise
            raise NotSentError(str(err)) from err
        return {**_LEADER_NEEDED, _WHO: str(answer.get("token", ""))}
