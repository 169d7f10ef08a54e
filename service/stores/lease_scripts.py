"""The steps of a lease as Lua, each one atomic. Commands of Redis 6.2 only; all keys of a call are in one slot.

A lease is a hash (`token`, `progress`, `failure`, `revoked`) that expires. The fence is the highest token ever given
out; who writes must hold exactly that. A token is the server's time in microseconds, or one more than the last: it
rises even when the fence was lost, be it by eviction or a restart without persistence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

_NEXT_TOKEN = """
local function next_token(fence)
  local now = redis.call('TIME')
  local token = tonumber(now[1]) * 1000000 + tonumber(now[2])
  local last = tonumber(redis.call('GET', fence) or '0')
  if token <= last then token = last + 1 end
  return string.format('%.0f', token)
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())

    async def run(self, client: Redis, keys: Sequence[str], *arguments: Any) -> Any:
        try:
            return await client.evalsha(self.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.eval(self.text, len(keys), *keys, *arguments)


LOOK = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return {'stored'} end
return {'lease', unpack(redis.call('HMGET', KEYS[2], 'token', 'progress', 'failure', 'revoked'))}
""")
"""KEYS value, lease."""

TAKE = Script(
    _NEXT_TOKEN
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return {'stored'} end
local lease = redis.call('HMGET', KEYS[2], 'token', 'progress', 'failure', 'revoked')
local open = lease[4] and ARGV[3] == '0'
if lease[1] and not open then return {'lease', unpack(lease)} end
local token = next_token(KEYS[3])
redis.call('SET', KEYS[3], token, 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'token', token, 'progress', '0')
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return {'ours', token}
"""
)
"""KEYS value, lease, fence; ARGV lease ms, fence ms, 1 if the caller waited for somebody else's turn."""

RENEW = Script("""
local fence = redis.call('GET', KEYS[3])
if not fence and redis.call('HGET', KEYS[2], 'token') == ARGV[1] then fence = ARGV[1] end
if fence ~= ARGV[1] then
  if redis.call('HGET', KEYS[2], 'revoked') then return 'revoked' end
  return 'taken'
end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3])
redis.call('HSET', KEYS[2], 'token', ARGV[1], 'progress', ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PUBLISH', ARGV[5], ARGV[4])
return 'ours'
""")
"""KEYS value, lease, fence; ARGV token, lease ms, fence ms, progress, channel. A lease that ran out and that nobody
took is taken up again under the same token."""

KEEP = Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[4], 'stored')
return 1
""")
"""KEYS value, lease, fence; ARGV token, value, value ms, channel."""

END = Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[2], 'token', ARGV[1], 'failure', ARGV[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
redis.call('PUBLISH', ARGV[4], 'ended')
return 1
""")
"""KEYS value, lease, fence; ARGV token, failure or nothing, failure ms, channel."""

REVOKE = Script(
    _NEXT_TOKEN
    + """
if redis.call('EXISTS', KEYS[2]) + redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
local token = next_token(KEYS[3])
redis.call('SET', KEYS[3], token, 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'token', token, 'revoked', '1')
redis.call('PEXPIRE', KEYS[2], ARGV[1])
redis.call('PUBLISH', ARGV[3], 'ended')
return 1
"""
)
"""KEYS value, lease, fence; ARGV lease ms, fence ms, channel."""
