//! The Lua scripts. Redis runs each of them as one step.
//!
//! They answer -1 for a key that exists but is no record. None of them makes a
//! key without a time to live in the same run. A key of another type makes
//! Redis answer `WRONGTYPE`.

use redis::Script;

pub(super) struct Scripts {
    /// Value, seen, time to live.
    pub(super) create: Script,
    /// Seen, time to live.
    pub(super) touch: Script,
    /// Old value, new value.
    pub(super) update: Script,
    /// Time to live. Answers the epoch in decimal.
    pub(super) raise: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            create: Script::new(CREATE),
            touch: Script::new(TOUCH),
            update: Script::new(UPDATE),
            raise: Script::new(RAISE),
        }
    }
}

const CREATE: &str = r"
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'seen', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
";

const TOUCH: &str = r"
if redis.call('HEXISTS', KEYS[1], 'v') == 0 then
    return -redis.call('EXISTS', KEYS[1])
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
local time = redis.call('TIME')
local epoch = time[1] * 1000000 + time[2]
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
