"""Lanes of schedules in a Redis: ``overlaps.decide`` in Lua, in one step with the records it looks at.

A lane is a hash, ``penstock:lane:LENGTH:CONSUMERSCHEDULE``, with the fields of ``overlaps.Lane`` that are not empty.
Redis forgets it a retention after the last of its ticks is expected back.
"""

from __future__ import annotations

from penstock.overlaps import Entry
from penstock.stores.redis_scripts import COMMON, Script, keys

LANE_PREFIX = "penstock:lane:"

_ENTER = """
local now, retention, consumer, token = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local buffers, patience, wait = ARGV[5] == 'buffer-one', tonumber(ARGV[6]), tonumber(ARGV[7])
local key, lane_key = KEYS[FIRST], KEYS[FIRST + 1]
local job = string.sub(key, #JOBS + 1)
local own = held(key, consumer, token)
if not own then return 'lost' end

-- A job that has not ended; what is forgotten has.
local function open(id)
  local record = id and read(JOBS .. id, consumer)
  if record and (record.state == 'running' or record.state == 'moved') then return record end
end

local function expected_until(lane, record)
  if record.state ~= 'running' then return lane.until_ end
  return math.max(lane.until_, record.lease_end + patience)
end

local fields = redis.call('HMGET', lane_key, 'holder', 'until', 'waiting', 'waits_until')
local lane = {holder = fields[1], until_ = tonumber(fields[2] or 0),
              waiting = fields[3], waits_until = tonumber(fields[4] or 0)}
if not open(lane.waiting) or lane.waits_until <= now then lane.waiting, lane.waits_until = false, 0 end
local before = open(lane.holder)
local here = lane.holder == job
if not before or not (here or now < expected_until(lane, before)) then
  -- A run that may still be on its way must not end any more.
  if before and before.state == 'running' then
    before.token, before.lease_end = token, 0
    write(JOBS .. lane.holder, consumer, before)
  end
  lane = {holder = lane.waiting, until_ = lane.waits_until, waiting = false, waits_until = 0}
end

local answer = 'skip'
if not lane.holder or lane.holder == job then
  answer, lane.holder, lane.until_ = 'run', job, now + patience
elseif buffers and (not lane.waiting or lane.waiting == job) then
  answer, lane.waiting, lane.waits_until = 'wait', job, now + wait
  own.lease_end = 0
  write(key, consumer, own)
else
  move(key, consumer, own.state, 'skipped', own.claimed)
  own.state = 'skipped'
  write(key, consumer, own)
end

redis.call('HSET', lane_key, 'holder', lane.holder, 'until', integer(lane.until_))
if lane.waiting then
  redis.call('HSET', lane_key, 'waiting', lane.waiting, 'waits_until', integer(lane.waits_until))
else
  redis.call('HDEL', lane_key, 'waiting', 'waits_until')
end
redis.call('PEXPIRE', lane_key, integer(math.max(lane.until_ - now, lane.waits_until - now, 0) + retention))
return answer
"""

ENTER = Script(COMMON + _ENTER)


def enter_keys(entry: Entry) -> list[str]:
    """The ``KEYS`` of ``ENTER``."""
    consumer = entry.claim.consumer
    return [*keys([entry.claim.job_id]), f"{LANE_PREFIX}{len(consumer.encode())}:{consumer}{entry.schedule}"]


def enter_values(entry: Entry, now: int | str, retention: int) -> list[str | int]:
    """The ``ARGV`` of ``ENTER``; *now* is empty for the server's clock."""
    claim = entry.claim
    return [now, retention, claim.consumer, claim.token, entry.overlap, entry.patience, entry.wait]
