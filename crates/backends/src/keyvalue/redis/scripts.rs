//! The scripts of locks, sessions and numbers.
//!
//! Knows: what Redis does as one command. Must not know: how it is sent.

use super::script::Lua;
use std::sync::LazyLock;

/// `KEYS[1]` is a number, `ARGV[1]` how long it lives from now on in milliseconds.
pub(super) static INCREMENT: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new("local n = redis.call('INCR', KEYS[1]) redis.call('PEXPIRE', KEYS[1], ARGV[1]) return n")
});

/// Keys: the lock, what it protects. Arguments: the owner, for how many milliseconds, the time when it is too
/// late. Replies with the answer, the value if the lock is the owner's, and the time. The same owner may ask
/// again, and then has it for as long from then on.
///
/// It is one command, so that a server that is paused either has done it or will know that it is too late,
/// whichever of the two keys were there, and so that the value is that of the moment when the lock was taken.
pub(super) static LOCK: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local time = redis.call('TIME') \
         local now = time[1] * 1000 + math.floor(time[2] / 1000) \
         if ARGV[3] ~= '0' and now > tonumber(ARGV[3]) then return {-1, false, now} end \
         local holder = redis.call('GET', KEYS[1]) \
         if holder and holder ~= ARGV[1] then return {0, false, now} end \
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
         return {1, redis.call('GET', KEYS[2]), now}",
    )
});

/// `KEYS[1]` is a lock, `ARGV[1]` who owns it, `ARGV[2]` how long it shall hold from now on in milliseconds.
pub(super) static RENEW: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// `KEYS[1]` is a lock, `ARGV[1]` who owns it.
pub(super) static UNLOCK: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
});

/// Keys: the lock, what it protects. Arguments: the owner, the value, its lifetime in milliseconds, the value
/// before if there was one. The same owner may ask again: what is there already has been saved. A server that
/// was paused finds the lock expired when it wakes, which matters only if somebody else came first.
pub(super) static SET_AND_UNLOCK: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local holder = redis.call('GET', KEYS[1]) \
         if holder ~= ARGV[1] then \
           local there = redis.call('GET', KEYS[2]) \
           if there == ARGV[2] then return 1 end \
           if holder or there ~= (ARGV[4] or false) then return 0 end \
         end \
         redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) redis.call('DEL', KEYS[1]) return 1",
    )
});
