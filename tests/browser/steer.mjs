// Plays a title in a real browser by hls.js or dash.js as their makers ship them, from what control gives each to be steered by; drains the edge
// that it plays from, kills the one that it moves to, sends it to one that its playlist does not name, and watches where segments come from
// and that the film goes on. Orders of pathways are counted, not timed: a busy machine is slow, and stalls a player too. How long each step
// took, and how long the picture stood, is in the report.
//
//   node tests/browser/steer.mjs '{"player":"hls"|"dash","control":URL,"video":ID,"spki":BASE64,"secret":…,"late":NAME,
//     "edges":[{"name":…,"port":…,"pid":…},…]}'
//
// `late` is an edge that is drained when the playback begins. What it needs, and how it ends, is in chromium.mjs.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { check, inChromium, require } from "./chromium.mjs";

const TOTAL_MS_MAX = 480_000;
const STEP_MS_MAX = 90_000;
/** Played before anything is done to an edge, and after each thing. */
const PLAYED_S_MIN = 6;
const BUFFERED_S_MAX = 12;

/**
 * The players: their code, how one is started in the page to fill `video` and to tell `steered` of each order of pathways, and which of its
 * errors say that an edge did not answer (and not that it was slow), and which that it has given up.
 */
const PLAYERS = {
  hls: {
    code: "hls.js/dist/hls.min.js",
    start: `
      const hls = new Hls({ maxBufferLength: ${BUFFERED_S_MAX}, maxMaxBufferLength: ${BUFFERED_S_MAX} });
      hls.on(Hls.Events.STEERING_MANIFEST_LOADED, (_, { steeringManifest }) => steered(steeringManifest["PATHWAY-PRIORITY"]));
      hls.on(Hls.Events.ERROR, (_, { details, fatal }) => errors.push(details + (fatal ? " (fatal)" : "")));
      hls.loadSource(playback.hls);
      hls.attachMedia(video);
      void video.play().catch(() => {});`,
    isRefused: (error) => /LoadError/.test(error),
    isEnd: (error) => error.endsWith("(fatal)"),
  },
  // Asks for an order when it is told that the video plays, and every TTL from then on: it has to be the one that starts it, or it never asks.
  // Tries a segment four times, a second apart, before it leaves the edge that does not answer, for as long as a TTL; then it may come back,
  // and does while it is told to, so it may be at a killed edge several times until control has noticed. None of its errors says whether it
  // has given up: the film that stands still does.
  dash: {
    code: "dashjs",
    start: `
      const dash = dashjs.MediaPlayer().create();
      const buffer = { bufferTimeDefault: ${BUFFERED_S_MAX}, bufferTimeAtTopQuality: ${BUFFERED_S_MAX} };
      dash.updateSettings({ streaming: { buffer } });
      dash.on("contentSteeringRequestCompleted", ({ currentSteeringResponseData }) => steered(currentSteeringResponseData.pathwayPriority));
      dash.on("error", ({ error: { code, message } }) => errors.push(code + " " + String(message).replace(/https?:\\S+/g, "…")));
      dash.initialize(video, playback.dash, true);`,
    isRefused: (error) => /is not available/.test(error),
    isEnd: () => false,
  },
};

const plan = JSON.parse(process.argv[2]);
const player = PLAYERS[plan.player];
const report = { ok: false, player: plan.player, moves: [] };

await inChromium({ name: "steer", totalMsMax: TOTAL_MS_MAX, spki: plan.spki }, report, async (page) => {
  page.on("console", (message) => message.type() === "error" && console.error(`browser: ${message.text()}`));
  await page.goto(await serve());
  const first = await begins(page);
  const second = await leavesDrained(page, first);
  const third = await leavesKilled(page, second);
  check(new Set([first, second, third, plan.late]).size === 4, `it moved from ${first} to ${second} to ${third}`);
  await movesToLate(page, third);
  const { played, stalledMs, errors, orders, fetches } = await read(page);
  Object.assign(report, { playedSeconds: played, stalledMs, errors: count(errors), orders: orders.length, segments: fetches.length });
  check(!errors.some(player.isEnd), `the player gave up: ${JSON.stringify(report.errors)}`);
});

/** Waits until it plays, and gives the edge that it plays from. */
async function begins(page) {
  const begun = await until(page, ({ played, orders }) => played >= PLAYED_S_MIN && orders.length > 0, `${PLAYED_S_MIN} s are played`);
  return begun.edge;
}

/** Drains the edge that it plays from: the player is told, and moves without a failure. Gives the edge that it moves to. */
async function leavesDrained(page, edge) {
  const drainedAt = Date.now();
  await operate(`/fleet/edges/${edge}/drain`);
  const told = (await read(page)).orders.length;
  const unlisted = await until(page, ({ priority }) => !priority.includes(edge), `${edge}, drained, is not listed`);
  // The first answer may have been under way when the edge was drained. The next one was asked for a TTL later.
  const late = unlisted.orders.slice(told + 1).filter((order) => order.includes(edge));
  check(late.length === 0, `${edge}, drained, is still listed in ${JSON.stringify(late)}`);
  const moved = await until(page, (state) => state.edge !== edge, `segments come from another edge than ${edge}`);
  await until(page, ({ played }) => played >= moved.played + PLAYED_S_MIN, "it plays on");
  const { fetches, errors, stalledMs } = await read(page);
  const back = fetches.slice(moved.fetches.length).filter((fetch) => fetch.edge === edge);
  check(back.length === 0, `${back.length} segments came from ${edge} after the player had moved`);
  check(!errors.some(player.isRefused), `nothing was killed yet, and the player says: ${errors.join("; ")}`);
  report.drainedToUnlistedMs = unlisted.atMs - drainedAt;
  report.drainedToMovedMs = moved.movedAtMs - drainedAt;
  report.stalledWhenDrainedMs = stalledMs;
  report.moves.push([edge, moved.edge]);
  return (await read(page)).edge;
}

/** Kills the edge that it plays from: the player leaves it by itself, or is told. Gives the edge that it moves to. */
async function leavesKilled(page, edge) {
  const killedAt = Date.now();
  process.kill(plan.edges.find(({ name }) => name === edge).pid, "SIGKILL");
  const moved = await until(page, (state) => state.edge !== edge, `segments come from another edge than ${edge}, killed`);
  const unlisted = await until(page, ({ priority }) => !priority.includes(edge), `${edge}, killed, is not listed`);
  // Longer than what was in the buffer.
  const played = await until(page, ({ played }) => played >= moved.played + PLAYED_S_MIN + BUFFERED_S_MAX, "it plays on");
  report.killedToMovedMs = moved.movedAtMs - killedAt;
  report.killedToUnlistedMs = unlisted.atMs - killedAt;
  report.moves.push([edge, moved.edge]);
  return played.edge;
}

/**
 * Brings an edge back that the playlist does not name, and drains the one that it plays from, the last that it does name. Where the first is
 * ranked before the second, the player moves before that.
 */
async function movesToLate(page, edge) {
  const broughtBackAt = Date.now();
  await operate(`/fleet/edges/${plan.late}/undrain`);
  await until(page, ({ priority }) => priority.includes(plan.late), `${plan.late} is listed`);
  await operate(`/fleet/edges/${edge}/drain`);
  const moved = await until(page, (state) => state.edge === plan.late, `segments come from ${plan.late}`);
  await until(page, ({ played }) => played >= moved.played + PLAYED_S_MIN + BUFFERED_S_MAX, "it plays on");
  report.broughtBackToMovedMs = moved.movedAtMs - broughtBackAt;
  report.moves.push([edge, moved.edge]);
}

/** The page: the player, and what is noted of it. On an origin of its own, as an application's would be. */
async function serve() {
  const code = await readFile(require.resolve(player.code));
  const html = `<!doctype html><meta charset="utf-8"><title>steer</title><link rel="icon" href="data:,">
    <video id="video" muted autoplay playsinline></video>
    <script src="/player.js"></script><script type="module">
    const video = document.getElementById("video");
    const errors = [];
    const orders = [];
    const fetches = [];
    const edges = new Map(${JSON.stringify(plan.edges.map(({ name, port }) => [String(port), name]))});
    let priority = [];
    let stalledMs = 0;
    let stalledAt = null;
    const steered = (order) => { priority = order; orders.push([...order]); };
    new PerformanceObserver((list) => {
      for (const { name, startTime, responseStatus } of list.getEntries()) {
        const edge = edges.get(new URL(name).port);
        if (edge && responseStatus === 200 && name.endsWith(".m4s")) fetches.push({ edge, atMs: performance.timeOrigin + startTime });
      }
      performance.clearResourceTimings();
    }).observe({ type: "resource", buffered: true });
    video.addEventListener("waiting", () => { if (video.currentTime > 0) stalledAt ??= performance.now(); });
    video.addEventListener("playing", () => {
      if (stalledAt !== null) stalledMs += performance.now() - stalledAt;
      stalledAt = null;
    });
    window.state = () => {
      fetches.sort((a, b) => a.atMs - b.atMs);
      const last = fetches.at(-1);
      const run = fetches.findLastIndex(({ edge }) => edge !== last?.edge) + 1;
      return {
        played: video.currentTime, priority, errors, orders, fetches, edge: last?.edge ?? null, movedAtMs: Math.round(fetches[run]?.atMs ?? 0),
        stalledMs: Math.round(stalledMs + (stalledAt === null ? 0 : performance.now() - stalledAt)),
      };
    };
    const playback = await (await fetch(${JSON.stringify(`${plan.control}/videos/${plan.video}/playback`)})).json();
    ${player.start}
    </script>`;
  const server = createServer((request, response) => {
    const [type, body] = request.url === "/player.js" ? ["text/javascript", code] : ["text/html", html];
    response.writeHead(200, { "content-type": type }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}/`;
}

function read(page) {
  return page.evaluate(() => (window.state ? window.state() : null));
}

/** The first state of which this is so, and when it was seen. */
async function until(page, isSo, what) {
  const begun = Date.now();
  let state = null;
  while (Date.now() - begun < STEP_MS_MAX) {
    state = await read(page);
    if (state && isSo(state)) return { ...state, atMs: Date.now() };
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { fetches, ...rest } = state ?? { fetches: [] };
  throw new Error(`waited ${STEP_MS_MAX / 1_000} s until ${what}; ${fetches.length} segments, ${JSON.stringify(rest)}`);
}

async function operate(path) {
  const answer = await fetch(plan.control + path, { method: "POST", headers: { authorization: `Bearer ${plan.secret}` } });
  check(answer.ok, `POST ${path}: ${answer.status} ${await answer.text()}`);
}

function count(values) {
  return values.reduce((counts, value) => ({ ...counts, [value]: (counts[value] ?? 0) + 1 }), {});
}
