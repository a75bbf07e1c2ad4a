// Plays a title in a real browser by hls.js as its makers ship it, from control's steered playlist; drains the edge that it plays from, kills the
// one that it moves to, and watches where segments come from and that the film goes on. Orders of pathways are counted, not timed: a busy
// machine is slow. How long each step took is in the report.
//
//   node tests/browser/steer.mjs '{"control":URL,"video":ID,"spki":BASE64,"secret":…,"edges":[{"name":…,"port":…,"pid":…},…]}'
//
// Needs `npm ci` in web/ and /usr/bin/chromium (or CHROMIUM). The last line of output is one line of JSON; exit code 0 or 1.

import { readFile, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const require = createRequire(new URL("../../web/package.json", import.meta.url));
const { chromium } = require("playwright-core");

const TOTAL_MS_MAX = 420_000;
const STEP_MS_MAX = 90_000;
/** Played before anything is done to an edge, and after all of it. */
const PLAYED_S_MIN = 6;

/** How the player is started in the page: it fills `video`, and tells `steered` of each order of pathways. */
const PLAYER = require.resolve("hls.js/dist/hls.min.js");
const PLAY = `
  const hls = new Hls({ maxBufferLength: 12, maxMaxBufferLength: 12 });
  hls.on(Hls.Events.STEERING_MANIFEST_LOADED, (_, { steeringManifest }) => steered(steeringManifest["PATHWAY-PRIORITY"]));
  hls.on(Hls.Events.ERROR, (_, { details, fatal }) => errors.push(details + (fatal ? " (fatal)" : "")));
  hls.loadSource(playback.hls);
  hls.attachMedia(video);`;

const plan = JSON.parse(process.argv[2]);
const report = { ok: false, moves: [] };
let reason = null;
let profile = null;
let browser = null;
let server = null;
const deadline = setTimeout(() => finish(`took longer than ${TOTAL_MS_MAX / 1_000} s`), TOTAL_MS_MAX);

try {
  profile = await mkdtemp(join(tmpdir(), "larder-steer-"));
  const address = await serve();
  browser = await launch();
  const page = browser.pages()[0] ?? (await browser.newPage());
  page.on("console", (message) => message.type() === "error" && console.error(`browser: ${message.text()}`));
  await page.goto(address);
  await watch(page);
  await finish(null);
} catch (error) {
  await finish(error instanceof Error ? error.message : String(error));
}

/** The test itself: throws with the reason when something is not as it should be. */
async function watch(page) {
  await until(page, ({ played, orders }) => played >= PLAYED_S_MIN && orders.length > 0, `${PLAYED_S_MIN} s are played`);
  const first = (await read(page)).edge;

  const drainedAt = Date.now();
  await operate(`/fleet/edges/${first}/drain`);
  const told = (await read(page)).orders.length;
  const unlisted = await until(page, ({ priority }) => !priority.includes(first), `${first}, drained, is not listed`);
  // The first answer may have been under way when the edge was drained. The next one was asked for a TTL later.
  const late = unlisted.orders.slice(told + 1).filter((order) => order.includes(first));
  check(late.length === 0, `${first}, drained, is still listed in ${JSON.stringify(late)}`);
  const moved = await until(page, ({ edge }) => edge !== first, `segments come from another edge than ${first}`);
  report.drainedToUnlistedMs = unlisted.atMs - drainedAt;
  report.drainedToMovedMs = moved.movedAtMs - drainedAt;
  report.moves.push([first, moved.edge]);
  await until(page, ({ played }) => played >= moved.played + PLAYED_S_MIN, "it plays on");
  const { fetches } = await read(page);
  const back = fetches.slice(moved.fetches.length).filter(({ edge }) => edge === first);
  check(back.length === 0, `${back.length} segments came from ${first} after the player had moved`);

  const second = (await read(page)).edge;
  const killedAt = Date.now();
  process.kill(plan.edges.find(({ name }) => name === second).pid, "SIGKILL");
  const last = await until(page, ({ edge }) => edge !== second, `segments come from another edge than ${second}, killed`);
  const gone = await until(page, ({ priority }) => !priority.includes(second), `${second}, killed, is not listed`);
  report.killedToMovedMs = last.movedAtMs - killedAt;
  report.killedToUnlistedMs = gone.atMs - killedAt;
  report.moves.push([second, last.edge]);
  // Longer than what was in the buffer.
  await until(page, ({ played }) => played >= last.played + 3 * PLAYED_S_MIN, "it plays on");
  const end = await read(page);
  Object.assign(report, { playedSeconds: end.played, stalledMs: end.stalledMs, errors: [...new Set(end.errors)], orders: end.orders.length });
  report.segments = end.fetches.length;
  check(!end.errors.some((error) => error.endsWith("(fatal)")), `the player gave up: ${report.errors.join("; ")}`);
  check(new Set([first, second, last.edge]).size === 3, `it moved from ${first} to ${second} to ${last.edge}`);
}

/** The page: the player, and what is noted of it. On an origin of its own, as an application's would be. */
async function serve() {
  const code = await readFile(PLAYER);
  const html = `<!doctype html><meta charset="utf-8"><title>steer</title><video id="video" muted autoplay playsinline></video>
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
      for (const { name, startTime } of list.getEntries()) {
        const edge = edges.get(new URL(name).port);
        if (edge && name.endsWith(".m4s")) fetches.push({ edge, atMs: performance.timeOrigin + startTime });
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
    ${PLAY}
    void video.play().catch(() => {});
    </script>`;
  server = createServer((request, response) => {
    const [type, body] = request.url === "/player.js" ? ["text/javascript", code] : ["text/html", html];
    response.writeHead(request.url === "/favicon.ico" ? 404 : 200, { "content-type": type }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}/`;
}

function launch() {
  return chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [
      `--ignore-certificate-errors-spki-list=${plan.spki}`,
      "--autoplay-policy=no-user-gesture-required",
      "--no-sandbox",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
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

async function finish(failure) {
  clearTimeout(deadline);
  if (reason !== null) return;
  reason = failure ?? "";
  await Promise.race([browser?.close(), new Promise((resolve) => setTimeout(resolve, 5_000))]);
  server?.close();
  if (profile) await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  report.ok = failure === null;
  if (failure !== null) console.error(`steer: ${failure}`);
  console.log(JSON.stringify(failure === null ? report : { ...report, reason: failure }));
  process.exit(report.ok ? 0 : 1);
}

function check(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}
