-- The load of `ledger bench`, for wrk; ledger/bench/traffic.py says what the requests are.
-- Arguments: kind, events a request, the first digits of ids, seed, campaigns, jobs, amount and cost of a hold.

local threads = {}
local kind, events, stem, campaigns, jobs, amount, cost
local made = 0
local ready = {}
local models = { "gpt-4o", "gpt-4o-mini", "claude-3-5-sonnet", "gemini-1.5-pro" }
local format, random, concat = string.format, math.random, table.concat
local turn = false

settled, refused, failed = 0, 0, 0
failure = nil
counts_answers = false

function setup(thread)
   threads[#threads + 1] = thread
end

local function id()
   made = made + 1
   return format("%s000-8000-%012x", stem, made)
end

local function campaign_id(number)
   return format("00000000-0000-7000-8000-c000%08d", number)
end

local function cost_event(job)
   return format(
      '{"type":"cost.recorded","id":"%s","data":{"resource_type":"llm_api","cost":"0.%04d5","tokens_used":%d,'
         .. '"model_used":"%s","provider":"openai","agent_job_id":"%s"}}',
      id(), random(1, 9999), random(1, 9999), models[random(4)], job)
end

local when = '"occurred_at":"2023-11-16T18:15:46.680590Z"'

local function call_events()
   local job = id()
   return format(
      '{"type":"job.queued","id":"%s","stream_id":"%s",%s,"data":{"agent_type":"analyst",'
         .. '"input_data":{"context_tokens":%d},"campaign_id":"%s"}},'
         .. '{"type":"job.started","id":"%s","stream_id":"%s",%s},'
         .. '{"type":"job.completed","id":"%s","stream_id":"%s",%s,"data":{"output_data":{"generated_tokens":%d}}},%s',
      id(), job, when, random(1, 9999), campaign_id(random(0, campaigns - 1)),
      id(), job, when, id(), job, when, random(1, 999), cost_event(job))
end

local function post(body)
   return wrk.format("POST", "/v1/events", nil, body)
end

local requests = {}

function requests.costs()
   local made_events = {}
   for i = 1, events do
      made_events[i] = cost_event(format("00000000-0000-7000-8000-a000%08d", random(0, jobs - 1)))
   end
   return post(events == 1 and made_events[1] or "[" .. concat(made_events, ",") .. "]")
end

function requests.trace()
   local calls = {}
   for i = 1, events / 4 do
      calls[i] = call_events()
   end
   return post("[" .. concat(calls, ",") .. "]")
end

-- Whoever is free settles a hold that was granted, or else asks for one.
function requests.holds()
   local stream = table.remove(ready)
   if stream then
      return post(format('{"type":"cost.settled","id":"%s","stream_id":"%s","data":{"cost":"%s"}}', id(), stream, cost))
   end
   return post(format('{"type":"cost.reserved","id":"%s","data":{"resource_type":"llm_api","amount":"%s",'
      .. '"campaign_id":"%s"}}', id(), amount, campaign_id(0)))
end

function requests.reads()
   turn = not turn
   if turn then
      return wrk.format("GET", "/v1/campaigns/" .. campaign_id(random(0, campaigns - 1)))
   end
   return wrk.format("GET", "/v1/budget-entries?limit=50")
end

local function hold_answered(status, headers, body)
   if status == 201 then
      local stream, version = body:match('"stream_id":"([^"]+)","version":(%d)')
      if version == "1" then
         ready[#ready + 1] = stream
      else
         settled = settled + 1
      end
   elseif status == 402 then
      refused = refused + 1
   else
      failed = failed + 1
      failure = status .. " " .. body
   end
end

function init(args)
   kind, events, stem = args[1], tonumber(args[2]), args[3]
   math.randomseed(tonumber(args[4]))
   campaigns, jobs, amount, cost = tonumber(args[5]), tonumber(args[6]), args[7], args[8]
   wrk.headers["Content-Type"] = "application/json"
   request = requests[kind]
   if kind == "holds" then
      response = hold_answered
      counts_answers = true
   end
end

-- This runs in a state of its own, which knows nothing of the threads' locals.
function done(summary, latency)
   local settles, refusals, failures = 0, 0, 0
   local counted = false
   for _, thread in ipairs(threads) do
      settles = settles + thread:get("settled")
      refusals = refusals + thread:get("refused")
      failures = failures + thread:get("failed")
      counted = thread:get("counts_answers")
      if thread:get("failure") then
         io.write("an answer: ", thread:get("failure"), "\n")
      end
   end
   local errors = summary.errors
   local unanswered = errors.connect + errors.read + errors.write + errors.timeout
   if not counted then
      failures = errors.status
   end
   io.write(format(
      'RESULT {"requests":%d,"seconds":%f,"settled":%d,"refused":%d,"failed":%d,"p50_ms":%f,"p99_ms":%f}\n',
      summary.requests, summary.duration / 1e6, settles, refusals, failures + unanswered,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
