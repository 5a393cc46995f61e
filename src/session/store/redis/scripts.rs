//! The Lua scripts. Redis runs each of them as one step.
//!
//! They answer -1 for a key that exists but is no record. None of them makes a
//! key without a time to live in the same run. A key of another type makes
//! Redis answer `WRONGTYPE`.

use redis::Script;

pub(super) struct Scripts {
    /// Value, seen, time to live, user.
    pub(super) create: Script,
    /// Seen, time to live, 0. Answers the user instead (perhaps empty), and does
    /// nothing, where the index must be written first; then asked again with
    /// seen, time to live, 1, user.
    pub(super) touch: Script,
    /// Old value, new value.
    pub(super) update: Script,
    /// Time to live; the present moment, if it is not to be the server's own.
    /// Answers the epoch in decimal.
    pub(super) raise: Script,
    /// Of an index: key, time to live of the record.
    pub(super) enlist: Script,
    /// Of an index. Answers its keys.
    pub(super) members: Script,
    /// Answers value, seen, user, milliseconds left.
    pub(super) read: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            create: Script::new(CREATE),
            touch: Script::new(TOUCH),
            update: Script::new(UPDATE),
            raise: Script::new(RAISE),
            enlist: Script::new(ENLIST),
            members: Script::new(MEMBERS),
            read: Script::new(READ),
        }
    }
}

const CREATE: &str = r"
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
local time = redis.call('TIME')
local indexed = time[1] * 1000 + math.floor(time[2] / 1000) + 2 * ARGV[3]
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'seen', ARGV[2],
    'user', ARGV[4], 'indexed', string.format('%.0f', indexed))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
";

const TOUCH: &str = r"
local found = redis.call('HMGET', KEYS[1], 'v', 'user', 'indexed')
if not found[1] then
    return -redis.call('EXISTS', KEYS[1])
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] == '1' then
    if ARGV[4] ~= '' then
        redis.call('HSET', KEYS[1], 'user', ARGV[4],
            'indexed', string.format('%.0f', now + 2 * ARGV[2]))
    end
elseif not found[2] or now + ARGV[2] > (tonumber(found[3] or '0') or 0) then
    return found[2] or ''
end
redis.call('HSET', KEYS[1], 'seen', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
";

const UPDATE: &str = r"
local value = redis.call('HGET', KEYS[1], 'v')
if not value then
    return -redis.call('EXISTS', KEYS[1])
end
if value ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'v', ARGV[2])
return 1
";

// Lua counts in doubles, which are exact up to 2^53: microseconds fit until
// the year 2255. More digits than that are no epoch of ours.
const RAISE: &str = r"
local epoch = tonumber(ARGV[2])
if not epoch then
    local time = redis.call('TIME')
    epoch = time[1] * 1000000 + time[2]
end
local before = redis.call('GET', KEYS[1])
if before then
    if #before > 16 or not string.match(before, '^%d+$') then
        return false
    end
    before = tonumber(before)
    if before >= epoch then
        epoch = before + 1
    end
end
epoch = string.format('%.0f', epoch)
redis.call('SET', KEYS[1], epoch, 'PX', ARGV[1])
return epoch
";

// A minute more than the record believes, for the way there and for clocks of
// a cluster that differ. An entry is never shortened: another replica may have
// promised more.
const ENLIST: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = 2 * ARGV[2] + 60000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
local kept = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0')
if now + life > kept then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + life), ARGV[1])
end
if redis.call('PTTL', KEYS[1]) < life then
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life))
end
return 1
";

const MEMBERS: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
return redis.call('ZRANGE', KEYS[1], 0, -1)
";

const READ: &str = r"
local found = redis.call('HMGET', KEYS[1], 'v', 'seen', 'user')
return {found[1], found[2], found[3], redis.call('PTTL', KEYS[1])}
";
