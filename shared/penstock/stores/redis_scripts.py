"""What a Redis does by itself, atomically, for the store: the copy fence and the indexes, in Lua.

Keys (``KEYS`` of every script: the five indexes, the schema, then what the script works on):

=================  ===========================================================================================
penstock:job:ID    hash; ``at:CONSUMER`` is a record, ``copy state token until claimed``; ``hash:CONSUMER`` and
                   ``result:CONSUMER`` belong to it. Redis forgets it a retention after the end of its last lease
penstock:running   a sorted set for each state: ``LENGTH:CONSUMERID`` by the instant it was last claimed
penstock:lane:...  hash; see ``redis_overlap``
penstock:schema    the version of all this
=================  ===========================================================================================

Only a result may be over 64 bytes long: without one, Redis keeps the hash in a quarter less (hash-max-listpack-value).
A script answers nil when the schema is missing: a Redis that came back empty must not look like a new one. Tokens have
63 bits and stay text, since Lua's numbers hold 53.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1

from penstock.claims import State

#: 2 knows jobs that were skipped, and lanes.
SCHEMA = 2
SCHEMA_KEY = "penstock:schema"
PING_KEY = "penstock:ping"
JOB_PREFIX = "penstock:job:"

#: By state, in the order in which the scripts know them.
INDEXES = {state: f"penstock:{state}" for state in State}

COMMON = (
    f"local JOBS = '{JOB_PREFIX}'"
    + """
local INDEX = {running = KEYS[1], moved = KEYS[2], done = KEYS[3], dead = KEYS[4], skipped = KEYS[5]}
local FIRST = 7
if redis.call('EXISTS', KEYS[6]) == 0 then return false end

-- Nothing, or what follows the equals sign.
local function tagged(text)
  if text ~= '' then return string.sub(text, 2) end
end

local function integer(number) return string.format('%.0f', number) end

-- Milliseconds since 1970; a test hands in its own.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function member(key, consumer) return #consumer .. ':' .. consumer .. string.sub(key, #JOBS + 1) end

local function read(key, consumer)
  local line = redis.call('HGET', key, 'at:' .. consumer)
  if not line then return nil end
  local copy, state, token, lease_end, claimed = string.match(line, '^(%d+) (%a+) (%d+) (%d+) (%d+)$')
  return {copy = tonumber(copy), state = state, token = token, lease_end = tonumber(lease_end),
          claimed = tonumber(claimed)}
end

local function write(key, consumer, record)
  redis.call('HSET', key, 'at:' .. consumer, table.concat({integer(record.copy), record.state, record.token,
    integer(record.lease_end), integer(record.claimed)}, ' '))
end

local function move(key, consumer, from, to, claimed)
  if from ~= to then redis.call('ZREM', INDEX[from], member(key, consumer)) end
  redis.call('ZADD', INDEX[to], integer(claimed), member(key, consumer))
end

-- Never sooner than it was: another consumer's record may lie beside this one.
local function keep(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then redis.call('PEXPIRE', key, integer(milliseconds)) end
end

-- The record that a run holds: its token's, while the run has not ended.
local function held(key, consumer, token)
  local record = read(key, consumer)
  if record and record.token == token and record.state == 'running' then return record end
end

-- Forget what was last claimed before an instant and is in the index of a state, from the offset-th on: returns how
-- many records that were, how many members whose record had gone, how many are held by a live lease.
local function sweep(state, now, before, limit, offset)
  local found = redis.call('ZRANGEBYSCORE', INDEX[state], '-inf', '(' .. integer(before), 'LIMIT', offset, limit)
  local forgotten, gone, live = 0, 0, 0
  for _, name in ipairs(found) do
    local colon = string.find(name, ':', 1, true)
    local middle = colon + tonumber(string.sub(name, 1, colon - 1))
    local consumer, key = string.sub(name, colon + 1, middle), JOBS .. string.sub(name, middle + 1)
    local record = read(key, consumer)
    if record and record.state == 'running' and state == 'running' and record.lease_end > now then
      live = live + 1
    else
      redis.call('ZREM', INDEX[state], name)
      if record and record.state == state then
        redis.call('HDEL', key, 'at:' .. consumer, 'hash:' .. consumer, 'result:' .. consumer)
        forgotten = forgotten + 1
      else
        gone = gone + 1
      end
    end
  end
  return {forgotten, gone, live}
end
"""
)

_CLAIM = """
-- penstock.claims.decide, line by line.
local function decide(record, claim, kept, now)
  if not record then return 'fresh' end
  if claim.copy == 0 and claim.hash and kept and claim.hash ~= kept then return 'conflict' end
  if record.state == 'done' or record.state == 'skipped' then return record.state end
  if claim.copy ~= record.copy then return claim.copy > record.copy and 'fresh' or 'superseded' end
  if record.state ~= 'running' then return record.state end
  if record.token == claim.token or record.lease_end <= now then return 'fresh' end
  return 'running'
end

local function take(key, consumer, record, claim, now)
  local taken = {copy = claim.copy, state = 'running', token = claim.token, lease_end = now + claim.lease,
                 claimed = now}
  if record then redis.call('HDEL', key, 'result:' .. consumer) end
  if claim.hash then redis.call('HSET', key, 'hash:' .. consumer, claim.hash) end
  write(key, consumer, taken)
  move(key, consumer, record and record.state or 'running', 'running', now)
  return taken
end

local now, retention, answers = clock(ARGV[1]), tonumber(ARGV[2]), {}
for i = FIRST, #KEYS do
  local at = 3 + (i - FIRST) * 5
  local key, consumer = KEYS[i], ARGV[at]
  local claim = {copy = tonumber(ARGV[at + 1]), token = ARGV[at + 2], lease = tonumber(ARGV[at + 3]),
                 hash = tagged(ARGV[at + 4])}
  local record = read(key, consumer)
  local verdict = decide(record, claim, redis.call('HGET', key, 'hash:' .. consumer), now)
  if verdict == 'fresh' then
    record = take(key, consumer, record, claim, now)
    keep(key, claim.lease + retention)
  end
  answers[#answers + 1] = {verdict, record.lease_end, redis.call('HGET', key, 'result:' .. consumer)}
end
-- Redis forgets a job by itself, but not its members of the indexes: twice as many may go as came.
for state in pairs(INDEX) do sweep(state, now, now - retention, 2 * #answers, 0) end
return answers
"""

_MARK = """
local answers = {}
for i = FIRST, #KEYS do
  local at = 1 + (i - FIRST) * 4
  local key, consumer, token, state, result = KEYS[i], ARGV[at], ARGV[at + 1], ARGV[at + 2], tagged(ARGV[at + 3])
  local record = read(key, consumer)
  local holds = record and record.token == token and (record.state == 'running' or record.state == state)
  if holds then
    move(key, consumer, record.state, state, record.claimed)
    record.state = state
    write(key, consumer, record)
    if result then
      redis.call('HSET', key, 'result:' .. consumer, result)
    else
      redis.call('HDEL', key, 'result:' .. consumer)
    end
  end
  answers[#answers + 1] = holds and 1 or 0
end
return answers
"""

_RENEW = """
local now, retention, answers = clock(ARGV[1]), tonumber(ARGV[2]), {}
for i = FIRST, #KEYS do
  local at = 3 + (i - FIRST) * 3
  local key, consumer, lease = KEYS[i], ARGV[at], tonumber(ARGV[at + 2])
  local record = held(key, consumer, ARGV[at + 1])
  if record then
    record.lease_end = now + lease
    write(key, consumer, record)
    keep(key, lease + retention)
  end
  answers[#answers + 1] = record and 1 or 0
end
return answers
"""

_RELEASE = """
local now = clock(ARGV[1])
for i = FIRST, #KEYS do
  local at = 2 + (i - FIRST) * 2
  local record = held(KEYS[i], ARGV[at], ARGV[at + 1])
  if record then
    record.lease_end = now
    write(KEYS[i], ARGV[at], record)
  end
end
return 1
"""

_EXPIRE = """
return sweep(ARGV[5], clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
"""

_FORGET = """
local forgotten = 0
for _, field in ipairs(redis.call('HKEYS', KEYS[FIRST])) do
  if string.sub(field, 1, 3) == 'at:' then
    local consumer = string.sub(field, 4)
    redis.call('ZREM', INDEX[read(KEYS[FIRST], consumer).state], member(KEYS[FIRST], consumer))
    forgotten = forgotten + 1
  end
end
redis.call('DEL', KEYS[FIRST])
return forgotten
"""


class Script:
    """A text in Lua and the name by which Redis knows it once it has run it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


_MIGRATE = f"""
local version = redis.call('GET', KEYS[1])
if not version or tonumber(version) < {SCHEMA} then redis.call('SET', KEYS[1], {SCHEMA}) end
return version
"""

MIGRATE = Script(_MIGRATE)
CLAIM = Script(COMMON + _CLAIM)
MARK = Script(COMMON + _MARK)
RENEW = Script(COMMON + _RENEW)
RELEASE = Script(COMMON + _RELEASE)
EXPIRE = Script(COMMON + _EXPIRE)
FORGET = Script(COMMON + _FORGET)


def keys(job_ids: Sequence[str]) -> list[str]:
    """The ``KEYS`` of a script that works on these jobs."""
    return [*INDEXES.values(), SCHEMA_KEY, *(JOB_PREFIX + job_id for job_id in job_ids)]
