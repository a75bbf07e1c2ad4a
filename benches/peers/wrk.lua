-- Asks for one object after the other, whichever connection asks: those that are served at the same time are different ones.
local requests, at = {}, 0

function init(args)
    for n = 0, tonumber(args[1]) - 1 do
        requests[n] = wrk.format("GET", wrk.path .. n)
    end
end

function request()
    at = (at + 1) % (#requests + 1)
    return requests[at]
end

function done(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format("done %d %d %d %d\n", summary.requests, summary.bytes, summary.duration, failed))
end
