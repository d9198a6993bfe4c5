-- Lets a request pass if there is room on every limit of a key, as one step. The same as `State::take`
-- (state.rs says what the entries are); a test compares the two.
--
-- KEYS[1]    the key of the state
-- KEYS[2]    where it is noted that this attempt has been counted, if it is: then it passes and counts no more
-- ARGV[1]    the time in milliseconds since the epoch, or 0 for that of the server
-- ARGV[2]    how much the request counts
-- ARGV[3]    1 if it passes, and so counts, where there is no room too
-- ARGV[4...] of each limit: name, life, leak, scale, capacity, grain
-- Returns whether it passes (1 or 0), the time, the state, and of each thing that is to be said in the log
-- the limit, counted from 0, and the slot which remembers it, as `0:-80`.

local NEARLY, FULL = -80, -100
local LARGEST = 9007199254740992
local MAX_OTHERS = 8
-- For how long an attempt may be repeated, in milliseconds: the retry of Postfix comes within seconds.
local REPEATED = 60000

local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local amount = tonumber(ARGV[2])

local rules, rule_of = {}, {}
for i = 4, #ARGV, 6 do
  local rule = {
    name = ARGV[i],
    life = tonumber(ARGV[i + 1]),
    leak = tonumber(ARGV[i + 2]),
    cost = amount * tonumber(ARGV[i + 3]),
    capacity = tonumber(ARGV[i + 4]),
    grain = tonumber(ARGV[i + 5]),
  }
  rules[#rules + 1] = rule
  rule_of[rule.name] = rule
end

local function life_of(name)
  return tonumber(string.match(name, '^.(%d+)')) or 0
end

-- Forgets what no longer counts.
local function still_counts(entry, life, leak)
  entry.seen = math.min(entry.seen, now)
  if leak > 0 and entry.slot >= 0 then
    entry.units = entry.units - (now - entry.seen) * leak
    entry.seen = now
    return entry.units > 0
  end
  return now - entry.seen < life
end

local state, others = {}, 0
for name, list in string.gmatch(redis.call('GET', KEYS[1]) or '', '([^ =]+)=([^ ]+)') do
  local rule, entries = rule_of[name], {}
  local life, leak = life_of(name), 0
  if rule then
    life, leak = rule.life, rule.leak
  else
    others = others + 1
  end
  for slot, seen, units in string.gmatch(list, '(-?%d+):(-?%d+):(%d+)') do
    local entry = { slot = tonumber(slot), seen = tonumber(seen), units = tonumber(units) }
    if (rule or others <= MAX_OTHERS) and still_counts(entry, life, leak) then
      entries[#entries + 1] = entry
    end
  end
  state[name] = entries
end

local function entries_of(rule)
  state[rule.name] = state[rule.name] or {}
  return state[rule.name]
end

local function used(rule)
  local sum = 0
  for _, entry in ipairs(entries_of(rule)) do
    sum = sum + entry.units
  end
  return sum
end

local function entry_at(rule, slot)
  for _, entry in ipairs(entries_of(rule)) do
    if entry.slot == slot then
      return entry
    end
  end
end

local function count(rule, slot, units)
  local entry = entry_at(rule, slot)
  if entry then
    entry.seen, entry.units = now, math.min(entry.units + units, LARGEST)
  else
    table.insert(entries_of(rule), { slot = slot, seen = now, units = math.min(units, LARGEST) })
  end
end

local passed = true
for _, rule in ipairs(rules) do
  passed = passed and used(rule) + rule.cost <= rule.capacity
end
local counts, counted = (passed or ARGV[3] == '1') and amount > 0, false
if KEYS[2] and counts then
  counted = not redis.call('SET', KEYS[2], '1', 'NX', 'PX', REPEATED)
elseif KEYS[2] and amount > 0 then
  counted = redis.call('EXISTS', KEYS[2]) == 1
end
if counted then
  passed, counts = true, false
  for _, rule in ipairs(rules) do
    passed = passed and (ARGV[3] ~= '1' or used(rule) <= rule.capacity)
  end
end
if counts then
  for _, rule in ipairs(rules) do
    count(rule, rule.grain == 0 and 0 or now - now % rule.grain, rule.cost)
  end
end

local said = {}
for n, rule in ipairs(rules) do
  local sum = used(rule)
  local too_much = not passed and sum + rule.cost > rule.capacity
  local slot
  if sum >= rule.capacity or too_much then
    slot = FULL
  elseif sum * 5 >= rule.capacity * 4 and not entry_at(rule, NEARLY) then
    slot = NEARLY
  end
  if slot and not entry_at(rule, FULL) then
    count(rule, slot, 0)
    said[#said + 1] = (n - 1) .. ':' .. slot
  end
end

-- Not tostring, which rounds to 14 digits.
local function whole(number)
  return string.format('%.0f', number)
end

local lists, longest = {}, 0
for name, entries in pairs(state) do
  if #entries > 0 then
    local texts = {}
    for i, entry in ipairs(entries) do
      texts[i] = whole(entry.slot) .. ':' .. whole(entry.seen) .. ':' .. whole(entry.units)
    end
    lists[#lists + 1] = name .. '=' .. table.concat(texts, ',')
    longest = math.max(longest, life_of(name))
  end
end
local text = table.concat(lists, ' ')
if longest > 0 then
  redis.call('SET', KEYS[1], text, 'PX', whole(longest))
else
  redis.call('DEL', KEYS[1])
end

local reply = { passed and '1' or '0', whole(now), text }
for _, notice in ipairs(said) do
  reply[#reply + 1] = notice
end
return reply
