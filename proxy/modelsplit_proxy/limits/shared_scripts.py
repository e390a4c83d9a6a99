"""What Redis does for budgets that several proxies count together, each in one atomic step.

A budget is a sorted set of its charges (score: when, in milliseconds by the server's clock), a
hash of what each costs, in billionths of a US dollar, with their sum under an empty name, and a
hash of the leases of proxies, each ``<calls> <cost> <until> <revision>``. A charge is named
``<proxy>:<id>``. Sums stay below 2**53, up to which Lua's numbers are exact.

``state``: a hash with the epoch under an empty name, a text that begins with the server's
``run_id`` and is changed when it may have lost charges; every step names the one that its proxy has
seen, and does nothing under another. Beside it the names of all budgets, each with the longest
window by which anybody counts it, in milliseconds: one of them without its mark (``*`` among its
costs), or with charges but not their costs, has been evicted or deleted, and then the epoch is
over. ``expected``: the proxies whose charges may be lost, and when each was last heard of;
``seeded``: the ones that have written theirs anew. A budget in whose window one is expected that
has not is not counted.

``owners``: by the name of each proxy, the token of the process that has it; every step names the
token of its own, and does nothing under another's. Beside it, by the name and ``:last``, the
greatest number of a charge that was counted for it.
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
    return redis.call('HGET', KEYS[1], '') == epoch and string.sub(epoch, 1, #run) == run
end
"""
# Two processes of one name would take each other's charges for their own. ``owners`` is the second
# key, the epoch, the name and the token are the first arguments of every step that asks this.
_REFUSAL: Final = """
local function refusal()
    if not holds(ARGV[1]) then return 'lost' end
    local owner = redis.call('HGET', KEYS[2], ARGV[2])
    if not owner then return 'lost' end
    if owner ~= ARGV[3] then return 'copied' end
end
"""
_LAST: Final = """
local function counts_up_to(member)
    local number, last = tonumber(string.match(member, ':(%d+)$')), ARGV[2] .. ':last'
    if number and number > tonumber(redis.call('HGET', KEYS[2], last) or 0) then
        redis.call('HSET', KEYS[2], last, number)
    end
end
"""
_WHOLE: Final = """
local function whole(times, costs)
    return redis.call('HEXISTS', costs, '*') == 1
        and redis.call('ZCARD', times) == redis.call('HLEN', costs) - 2
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
_LEASES: Final = """
local function read_lease(text)
    local calls, cost, ends, revision = string.match(text or '', '(%d+) (%d+) (%d+) (%d+)')
    return tonumber(calls or 0), tonumber(cost or 0), tonumber(ends or 0), tonumber(revision or 0)
end

local function leased_to_others(leases, me, now)
    local all, calls, cost = redis.call('HGETALL', leases), 0, 0
    for i = 1, #all, 2 do
        local its_calls, its_cost, ends = read_lease(all[i + 1])
        if all[i] == me then
        elseif ends <= now then redis.call('HDEL', leases, all[i])
        else calls, cost = calls + its_calls, cost + its_cost end
    end
    return calls, cost
end

-- As much as there is room for, at most so much. Written anew only where that changes it, or it is
-- no longer young: a write may have to wait for a disk.
local function renew_lease(leases, me, now, window, most_calls, most_cost, calls, cost)
    window = math.min(window, 86400000)
    if most_calls <= 0 and most_cost <= 0 then return 0, 0, 0, 0 end
    calls = string.format('%d', math.max(0, math.min(most_calls, calls)))
    cost = string.format('%d', math.max(0, math.min(most_cost, cost)))
    local old_calls, old_cost, ends, revision = read_lease(redis.call('HGET', leases, me))
    if old_calls ~= tonumber(calls) or old_cost ~= tonumber(cost) or ends - now < window * 0.9 then
        ends, revision = now + window, revision + 1
        local text = string.format('%s %s %d %d', calls, cost, ends, revision)
        redis.call('HSET', leases, me, text)
    end
    return calls, cost, ends - now, revision
end
"""

# Of every step but BEGIN and CLAIM the first KEYS are state and owners, and the first ARGV the
# epoch, this proxy and its token. Each answers "lost", or "copied" where another has the name.

# KEYS: expected, seeded, changes, then times, costs and leases of each budget.
# ARGV: charge (of a look: a name that none has), "count" or "look", then of each budget: its name,
# window in ms, most calls, most cost (-1: none), cost of this charge, most calls and most cost of
# a lease, the uid of the approval that it is (of a budget: empty), and how many ms ago a charge can
# have been that still counts.
# Answers "expecting" and for whom; or "free" or "full", then of each budget: calls, cost,
# ms until the oldest leaves (-1: none is there), ms until there is room for calls, and for cost
# (0: there is, -1: never), calls and cost of our lease, ms for which it holds, its revision, and
# 1 for an approval that is revoked.
COUNT: Final = (
    _CLOCK
    + _HOLDS
    + _REFUSAL
    + _LAST
    + _WHOLE
    + _REMOVE
    + _PUT
    + _LEASES
    + """
local refused = refusal()
if refused then return {refused} end
local now, me, charge = clock(), ARGV[2], ARGV[4]
local budgets = (#KEYS - 5) / 3
local function of_budget(i, what) return ARGV[6 + 9 * i + what] end

local expected = redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
for i = 0, budgets - 1 do
    if not whole(KEYS[6 + 3 * i], KEYS[7 + 3 * i]) then
        -- Nobody has written it yet, or it was there and is gone.
        if redis.call('HEXISTS', KEYS[1], of_budget(i, 0)) == 1 then redis.call('DEL', KEYS[1]) end
        return {'lost'}
    end
    for j = 1, #expected, 2 do
        if expected[j + 1] + of_budget(i, 8) > now
            and redis.call('SISMEMBER', KEYS[4], expected[j]) == 0 then
            return {'expecting', expected[j]}
        end
    end
end

-- ``over``: so many of the charges are too old for this window.
local function calls_wait(times, window, over, count, most)
    if most < 0 or count < most then return 0 end
    if most == 0 then return -1 end
    local last = over + count - most
    local at = redis.call('ZRANGE', times, last, last, 'WITHSCORES')[2]
    -- All that is in the way is leased: for how long nobody knows.
    if not at then return window end
    return math.max(1, at + window - now)
end

local function cost_wait(times, costs, window, over, total, most, cost)
    local too_much = total + cost - most
    if most < 0 or cost == 0 or too_much <= 0 then return 0 end
    if cost > most then return -1 end
    local entries = redis.call('ZRANGE', times, over, -1, 'WITHSCORES')
    for i = 1, #entries, 2 do
        too_much = too_much - redis.call('HGET', costs, entries[i])
        if too_much <= 0 then return math.max(1, entries[i + 1] + window - now) end
    end
    return window
end

local answer, verdict, room = {}, 'free', {}
for i = 0, budgets - 1 do
    local times, costs, leases = KEYS[6 + 3 * i], KEYS[7 + 3 * i], KEYS[8 + 3 * i]
    local window, most_calls = tonumber(of_budget(i, 1)), tonumber(of_budget(i, 2))
    local most_cost, cost = tonumber(of_budget(i, 3)), tonumber(of_budget(i, 4))
    local longest = math.max(window, redis.call('HGET', KEYS[1], of_budget(i, 0)) or 0)
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', times, '-inf', now - longest)) do
        remove(times, costs, old)
    end
    -- Written already where a proxy has just written all of its own anew.
    remove(times, costs, charge)
    local count, over = redis.call('ZCARD', times), 0
    local total = tonumber(redis.call('HGET', costs, ''))
    if longest > window then
        -- Whose policy has another window still counts them.
        for _, old in ipairs(redis.call('ZRANGEBYSCORE', times, '-inf', now - window)) do
            over, count = over + 1, count - 1
            total = total - redis.call('HGET', costs, old)
        end
    end
    local oldest = redis.call('ZRANGE', times, over, over, 'WITHSCORES')[2]
    local calls_leased, cost_leased = leased_to_others(leases, me, now)
    local calls = calls_wait(times, window, over, count + calls_leased, most_calls)
    local cost_now = total + cost_leased
    local money = cost_wait(times, costs, window, over, cost_now, most_cost, cost)
    local uid, revoked = of_budget(i, 7), 0
    if uid ~= '' then revoked = redis.call('HEXISTS', KEYS[5], 'revoke:' .. uid) end
    if calls ~= 0 or money ~= 0 or revoked == 1 then verdict = 'full' end
    room[i] = {most_calls - count - calls_leased, most_cost - total - cost_leased}
    answer[i + 1] = {
        count, string.format('%d', total), oldest and oldest + window - now or -1, calls, money,
        0, 0, 0, 0, revoked
    }
end
local counted = verdict == 'free' and ARGV[5] == 'count'
if counted then counts_up_to(charge) end
for i = 0, budgets - 1 do
    local window, cost = tonumber(of_budget(i, 1)), of_budget(i, 4)
    if counted then
        put(KEYS[6 + 3 * i], KEYS[7 + 3 * i], charge, now, cost)
        room[i] = {room[i][1] - 1, room[i][2] - cost}
    end
    local most_calls, most_cost = tonumber(of_budget(i, 5)), tonumber(of_budget(i, 6))
    local row = answer[i + 1]
    row[6], row[7], row[8], row[9] = renew_lease(
        KEYS[8 + 3 * i], me, now, window, most_calls, most_cost, room[i][1], room[i][2]
    )
end
return {verdict, unpack(answer)}
"""
)

# KEYS: times and costs of each budget. ARGV: charge, cost; without a cost it is none.
SETTLE: Final = (
    _HOLDS
    + _REFUSAL
    + _REMOVE
    + """
local refused = refusal()
if refused then return refused end
for i = 3, #KEYS, 2 do
    local times, costs = KEYS[i], KEYS[i + 1]
    local old = redis.call('HGET', costs, ARGV[4])
    if old and ARGV[5] then
        redis.call('HSET', costs, ARGV[4], ARGV[5])
        redis.call('HINCRBY', costs, '', ARGV[5])
        redis.call('HINCRBY', costs, '', 0 - old)
    elseif old then
        remove(times, costs, ARGV[4])
    end
end
return 'done'
"""
)

# KEYS: owners. ARGV: a name, the token that is to own it, the greatest number of a charge that the
# claimant has written down, then the tokens of earlier starts. Answers "ours"; "copied" where the
# name was claimed meanwhile by a process that the claimant's file knows nothing of, or charges were
# counted for it that the file does not know.
CLAIM: Final = """
local me, token, is_ours = ARGV[1], ARGV[2], false
local owner = redis.call('HGET', KEYS[1], me)
if owner == token then return 'ours' end
for i = 4, #ARGV do is_ours = is_ours or ARGV[i] == owner end
if owner and not is_ours then return 'copied' end
if tonumber(redis.call('HGET', KEYS[1], me .. ':last') or 0) > tonumber(ARGV[3]) then
    return 'copied'
end
redis.call('HSET', KEYS[1], me, token)
return 'ours'
"""

# KEYS: state, expected, proxies, seeded of the epoch as it was read, and of the new one.
# ARGV: epoch as it was read ("": none), the new one, this proxy, for how many ms a proxy is
# remembered, 1 where the server has all charges of the old epoch, then the other proxies and how
# many ms ago each was heard of. Answers the epoch that now holds.
BEGIN: Final = (
    _CLOCK
    + """
local now, epoch = clock(), redis.call('HGET', KEYS[1], '') or ''
if epoch == ARGV[1] and epoch ~= ARGV[2] then
    if ARGV[5] == '1' then redis.call('SUNIONSTORE', KEYS[5], KEYS[4])
    else redis.call('DEL', KEYS[1]) end
    redis.call('HSET', KEYS[1], '', ARGV[2])
    epoch = ARGV[2]
end
if epoch == ARGV[2] then
    for i = 6, #ARGV, 2 do
        if redis.call('SISMEMBER', KEYS[5], ARGV[i]) == 0 then
            redis.call('ZADD', KEYS[2], 'GT', now - ARGV[i + 1], ARGV[i])
        end
    end
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[4])
redis.call('ZADD', KEYS[3], now, ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[4])
return epoch
"""
)

# KEYS: times, costs. ARGV: budget, its window in ms, a text with which names of charges begin that
# are all named here (empty: they are not all), then of each charge: its name, how long ago in ms,
# cost.
SEED: Final = (
    _CLOCK
    + _HOLDS
    + _REFUSAL
    + _LAST
    + _WHOLE
    + _REMOVE
    + _PUT
    + """
local refused = refusal()
if refused then return refused end
local longest = redis.call('HGET', KEYS[1], ARGV[4])
if not longest then
    redis.call('HSET', KEYS[4], '*', 1)
    redis.call('HINCRBY', KEYS[4], '', 0)
end
if tonumber(longest or -1) < tonumber(ARGV[5]) then
    redis.call('HSET', KEYS[1], ARGV[4], ARGV[5])
end
if not whole(KEYS[3], KEYS[4]) then
    -- Charges without their costs, or costs without their charges, are of no use to anybody.
    redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
    return 'lost'
end
local now, mine = clock(), ARGV[6]
if mine ~= '' then
    for _, member in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
        if string.sub(member, 1, #mine) == mine then remove(KEYS[3], KEYS[4], member) end
    end
end
for i = 7, #ARGV, 3 do
    put(KEYS[3], KEYS[4], ARGV[i], now - ARGV[i + 1], ARGV[i + 2])
    counts_up_to(ARGV[i])
end
return 'done'
"""
)

# KEYS: seeded, proxies, ollamas. ARGV: what it says of itself and of the Ollamas that it asks.
# Answers every proxy, how many ms ago it was heard of, and what it says.
HERE: Final = (
    _CLOCK
    + _HOLDS
    + _REFUSAL
    + """
local refused = refusal()
if refused then return {refused} end
local now = clock()
redis.call('SADD', KEYS[3], ARGV[2])
redis.call('EXPIRE', KEYS[3], 604800)
redis.call('ZADD', KEYS[4], now, ARGV[2])
if redis.call('HGET', KEYS[5], ARGV[2]) ~= ARGV[4] then
    redis.call('HSET', KEYS[5], ARGV[2], ARGV[4])
end
local proxies = {'here'}
local entries = redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
for i = 1, #entries, 2 do
    proxies[#proxies + 1] = entries[i]
    proxies[#proxies + 1] = now - entries[i + 1]
    proxies[#proxies + 1] = redis.call('HGET', KEYS[5], entries[i]) or ''
end
return proxies
"""
)

# KEYS: changes. ARGV: names and texts of changes that this proxy knows. Answers all that are known.
TELL: Final = (
    _HOLDS
    + _REFUSAL
    + """
local refused = refusal()
if refused then return {refused} end
for i = 4, #ARGV, 2 do redis.call('HSETNX', KEYS[3], ARGV[i], ARGV[i + 1]) end
return {'told', unpack(redis.call('HGETALL', KEYS[3]))}
"""
)
