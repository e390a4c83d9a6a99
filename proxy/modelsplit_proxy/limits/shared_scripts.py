"""What Redis does for budgets that several proxies count together, each in one atomic step.

A budget is a sorted set of its charges (score: when, in milliseconds by the server's clock) and
a hash of what each costs, in billionths of a US dollar, with their sum under an empty name. A
charge is named ``<proxy>:<id>``. Sums stay below 2**53, up to which Lua's numbers are exact.

``epoch``: a text that begins with the server's ``run_id`` and is changed when it may have lost
charges; every step names the one that its proxy has seen, and does nothing under another.
``expected``: the proxies whose charges may be lost, with the moment from which they count for
nothing; ``seeded``: the ones that have written theirs anew. Nothing is counted while one is
expected that has not.
"""

from __future__ import annotations

from typing import Final

_CLOCK: Final = """
local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
# A server that was started anew may have the epoch of before without the last charges.
_HOLDS: Final = """
local function holds(epoch)
    local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
    return redis.call('GET', KEYS[1]) == epoch and string.sub(epoch, 1, #run) == run
end
"""
_REMOVE: Final = """
local function remove(times, costs, member)
    local cost = redis.call('HGET', costs, member)
    redis.call('ZREM', times, member)
    redis.call('HDEL', costs, member)
    if cost then redis.call('HINCRBY', costs, '', 0 - cost) end
end
"""
_PUT: Final = """
local function put(times, costs, member, at, cost)
    local old = redis.call('HGET', costs, member)
    redis.call('ZADD', times, at, member)
    redis.call('HSET', costs, member, cost)
    redis.call('HINCRBY', costs, '', cost)
    if old then redis.call('HINCRBY', costs, '', 0 - old) end
end
"""

# KEYS: epoch, expected, seeded, then times and costs of each budget.
# ARGV: epoch, charge (of a look: a name that none has), "count" or "look", then of each budget:
# window in ms, most calls, most cost (-1: none), cost of this charge.
# Answers "lost"; "expecting" and for whom; or "free" or "full", then of each budget: calls, cost,
# ms until the oldest leaves (-1: none is there), ms until there is room for calls, and for cost
# (0: there is, -1: never).
COUNT: Final = (
    _CLOCK
    + _HOLDS
    + _REMOVE
    + _PUT
    + """
if not holds(ARGV[1]) then return {'lost'} end
local now = clock()
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
for _, proxy in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    if redis.call('SISMEMBER', KEYS[3], proxy) == 0 then return {'expecting', proxy} end
end

local function calls_wait(times, window, count, most)
    if most < 0 or count < most then return 0 end
    if most == 0 then return -1 end
    local at = redis.call('ZRANGE', times, count - most, count - most, 'WITHSCORES')[2]
    return math.max(1, at + window - now)
end

local function cost_wait(times, costs, window, total, most, cost)
    local too_much = total + cost - most
    if most < 0 or cost == 0 or too_much <= 0 then return 0 end
    if cost > most then return -1 end
    local entries = redis.call('ZRANGE', times, 0, -1, 'WITHSCORES')
    for i = 1, #entries, 2 do
        too_much = too_much - redis.call('HGET', costs, entries[i])
        if too_much <= 0 then return math.max(1, entries[i + 1] + window - now) end
    end
    return -1
end

local answer, verdict = {}, 'free'
for i = 0, (#KEYS - 3) / 2 - 1 do
    local times, costs = KEYS[4 + 2 * i], KEYS[5 + 2 * i]
    local window, most_calls = tonumber(ARGV[4 + 4 * i]), tonumber(ARGV[5 + 4 * i])
    local most_cost, cost = tonumber(ARGV[6 + 4 * i]), tonumber(ARGV[7 + 4 * i])
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', times, '-inf', now - window)) do
        remove(times, costs, old)
    end
    -- Written already where a proxy has just written all of its own anew.
    remove(times, costs, ARGV[2])
    local count = redis.call('ZCARD', times)
    local total = tonumber(redis.call('HGET', costs, '') or 0)
    local oldest = redis.call('ZRANGE', times, 0, 0, 'WITHSCORES')[2]
    local calls = calls_wait(times, window, count, most_calls)
    local money = cost_wait(times, costs, window, total, most_cost, cost)
    if calls ~= 0 or money ~= 0 then verdict = 'full' end
    answer[#answer + 1] = {count, total, oldest and oldest + window - now or -1, calls, money}
end
if verdict == 'free' and ARGV[3] == 'count' then
    for i = 0, (#KEYS - 3) / 2 - 1 do
        put(KEYS[4 + 2 * i], KEYS[5 + 2 * i], ARGV[2], now, ARGV[7 + 4 * i])
    end
end
return {verdict, unpack(answer)}
"""
)

# KEYS: epoch, times and costs of each budget. ARGV: epoch, charge, cost; without a cost it is none.
SETTLE: Final = (
    _HOLDS
    + _REMOVE
    + """
if not holds(ARGV[1]) then return 'lost' end
for i = 2, #KEYS, 2 do
    local times, costs = KEYS[i], KEYS[i + 1]
    local old = redis.call('HGET', costs, ARGV[2])
    if old and ARGV[3] then
        redis.call('HSET', costs, ARGV[2], ARGV[3])
        redis.call('HINCRBY', costs, '', ARGV[3])
        redis.call('HINCRBY', costs, '', 0 - old)
    elseif old then
        remove(times, costs, ARGV[2])
    end
end
return 'done'
"""
)

# KEYS: epoch, expected, proxies. ARGV: epoch as it was read ("": none), the new one, this proxy,
# longest window in ms, then the other proxies that charges may be lost of and for how many ms.
# Answers the epoch that now holds.
BEGIN: Final = (
    _CLOCK
    + """
local now, epoch = clock(), redis.call('GET', KEYS[1]) or ''
if epoch == ARGV[1] and epoch ~= ARGV[2] then
    redis.call('SET', KEYS[1], ARGV[2])
    for i = 5, #ARGV, 2 do redis.call('ZADD', KEYS[2], now + ARGV[i + 1], ARGV[i]) end
    epoch = ARGV[2]
end
redis.call('ZADD', KEYS[3], now, ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[4])
return epoch
"""
)

# KEYS: epoch, times, costs. ARGV: epoch, then of each charge: its name, how long ago in ms, cost.
SEED: Final = (
    _CLOCK
    + _HOLDS
    + _PUT
    + """
if not holds(ARGV[1]) then return 'lost' end
local now = clock()
for i = 2, #ARGV, 3 do put(KEYS[2], KEYS[3], ARGV[i], now - ARGV[i + 1], ARGV[i + 2]) end
return 'done'
"""
)

# KEYS: epoch, seeded, proxies. ARGV: epoch, this proxy. Answers "lost", or every proxy and how
# many ms ago each was heard of.
HERE: Final = (
    _CLOCK
    + _HOLDS
    + """
if not holds(ARGV[1]) then return {'lost'} end
local now = clock()
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('EXPIRE', KEYS[2], 604800)
redis.call('ZADD', KEYS[3], now, ARGV[2])
local proxies = {'here'}
local entries = redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
for i = 1, #entries, 2 do
    proxies[#proxies + 1] = entries[i]
    proxies[#proxies + 1] = now - entries[i + 1]
end
return proxies
"""
)
