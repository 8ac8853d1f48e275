-- One transfer for each request. Arguments: a file with a source and a destination in each line,
-- what all idempotency keys begin with, and the protocol, if one is to be named. Prints one line of JSON: how
-- many answers had each status, and after how many microseconds the run ended.

local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  pairs_ = {}
  local protocol = args[3] and ',"protocol":"' .. args[3] .. '"' or ""
  for line in io.lines(args[1]) do
    local source, destination = line:match("(%S+) (%S+)")
    pairs_[#pairs_ + 1] = '{"source":"' .. source .. '","destination":"' .. destination
      .. '","amount":1,"currency":"EUR"' .. protocol .. '}'
  end
  prefix = args[2] .. "-" .. number .. "-"
  count = 0
  statuses = {}
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  count = count + 1
  wrk.headers["Idempotency-Key"] = prefix .. count
  return wrk.format(nil, "/v1/transfers", nil, pairs_[(count - 1) % #pairs_ + 1])
end

function response(status)
  statuses[status] = (statuses[status] or 0) + 1
end

function done(summary, latency)
  local total, text = {}, {}
  for _, thread in ipairs(threads) do
    for status, n in pairs(thread:get("statuses")) do
      total[status] = (total[status] or 0) + n
    end
  end
  for status, n in pairs(total) do text[#text + 1] = '"' .. status .. '":' .. n end
  local broken = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout
  io.write('RESULT {"statuses":{' .. table.concat(text, ",") .. '},"broken":' .. broken
    .. ',"duration_us":' .. summary.duration .. '}\n')
end
