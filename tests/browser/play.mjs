// Plays a title in a real browser, as a viewer would: Debian's Chromium, headless, opens the player that control serves,
// clicks the first title, and watches it. Passes when at least ten seconds of the title have played, every segment came over
// HTTP/3, caches said what they did, the plot shows something, and the browser's console has no complaint.
//
//   node tests/browser/play.mjs --control URL --edge HOST:PORT[,HOST:PORT…] --spki BASE64 --artifacts DIR [--protocol h3]
//
// --edge       the edges, which the browser is made to reach by QUIC from the first request on
// --spki       SHA-256 of the edges' public key, which the browser is told to trust; several with commas
// --artifacts  gets list.png and playing.png (failed.png when the test fails)
//
// What it needs, and how it ends, is in chromium.mjs.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { check, inChromium } from "./chromium.mjs";

const PLAYED_S_MIN = 10;
const VERDICTS_MIN = 3;
const TOTAL_MS_MAX = 60_000;
const STEP_MS_MAX = 15_000;
const PLAY_MS_MAX = 40_000;
const COMPLAINTS_SHOWN_MAX = 5;
/** Complaints of the browser that are not the player's. */
const COMPLAINTS_ALLOWED = [];

const USAGE = "usage: play.mjs --control URL --edge HOST:PORT[,…] --spki BASE64 --artifacts DIR [--protocol h3|h2|http/1.1]";

const options = readOptions();
const complaints = new Set();
const report = { ok: false, playedSeconds: 0, segments: 0, protocols: [], verdicts: {}, screenshots: [] };

const launching = {
  name: "play",
  totalMsMax: TOTAL_MS_MAX,
  spki: options.spki,
  args: options.protocol === "h3" ? [`--origin-to-force-quic-on=${options.edge}`] : [],
  viewport: { width: 1360, height: 1000 },
};
await inChromium(launching, report, async (page) => {
  await mkdir(options.artifacts, { recursive: true });
  await watch(page).catch(async (error) => {
    await screenshot(page, "failed.png").catch(() => {});
    throw error;
  });
});

/** The test itself: throws with the reason when something is not as it should be. */
async function watch(page) {
  page.setDefaultTimeout(STEP_MS_MAX);
  page.on("console", (message) => message.type() === "error" && complain(`${message.text()} (${message.location().url})`));
  page.on("pageerror", (error) => complain(String(error)));

  await page.goto(options.control);
  const title = page.getByRole("list", { name: "Titles" }).getByRole("link").first();
  await title.waitFor().catch(async () => {
    throw new Error(`the page lists no title; it says: ${await page.locator("main").innerText()}`);
  });
  await page.waitForLoadState("networkidle");
  await screenshot(page, "list.png");

  await title.click();
  const hasPlayed = (seconds) => window.larder.player?.positionS >= seconds;
  await page.waitForFunction(hasPlayed, PLAYED_S_MIN, { timeout: PLAY_MS_MAX }).catch(async () => {
    const { player, segments } = await read(page);
    const failures = segments.flatMap(({ edge, failure }) => (failure ? [`${edge}: ${failure}`] : []));
    const found = JSON.stringify({ player, segments: segments.length, failures: [...new Set(failures)] });
    throw new Error(`${PLAYED_S_MIN} s were not played in ${PLAY_MS_MAX / 1_000} s: ${found}; console: ${someComplaints()}`);
  });
  // The browser tells a segment's protocol a moment after its bytes; what it never tells fails below.
  const isTold = () => window.larder.segments.every(({ protocol }) => protocol !== null);
  await page.waitForFunction(isTold, null, { timeout: 5_000 }).catch(() => {});
  await screenshot(page, "playing.png");

  const { player, segments, paintedShare } = await read(page);
  report.playedSeconds = player.positionS;
  report.segments = segments.length;
  report.protocols = [...new Set(segments.map(({ protocol }) => protocol || "unknown"))];
  report.verdicts = count(segments.flatMap(({ verdict }) => (verdict ? [verdict.outcome] : [])));

  for (const { url, edge, failure, protocol } of segments) {
    check(failure === null, `${edge} failed: ${failure} (${url})`);
    check(protocol === options.protocol, `${url} came over ${protocol || "an unknown protocol"}, not ${options.protocol}`);
  }
  const judged = segments.filter(({ verdict }) => verdict !== null).length;
  check(judged >= VERDICTS_MIN, `${judged} of ${segments.length} segments have a readable Cache-Status; ${VERDICTS_MIN} are expected`);
  check(player.problem === null, `the player says: ${player.problem}`);
  check(paintedShare > 0.01, "the plot is empty");
  check(complaints.size === 0, `the browser's console complains: ${someComplaints()}`);
}

function read(page) {
  return page.evaluate(() => {
    const canvas = document.querySelector("canvas");
    const pixels = canvas?.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data ?? [];
    const painted = pixels.filter((value, index) => index % 4 === 3 && value > 0).length;
    return { ...window.larder, paintedShare: painted / Math.max(pixels.length / 4, 1) };
  });
}

async function screenshot(page, name) {
  const path = join(options.artifacts, name);
  await page.screenshot({ path });
  report.screenshots.push(path);
}

function complain(text) {
  if (!COMPLAINTS_ALLOWED.some((allowed) => text.includes(allowed))) complaints.add(text);
}

/** Enough of them to see what is wrong. */
function someComplaints() {
  const shown = [...complaints].slice(0, COMPLAINTS_SHOWN_MAX).join("; ");
  return complaints.size > COMPLAINTS_SHOWN_MAX ? `${shown}; and ${complaints.size - COMPLAINTS_SHOWN_MAX} more` : shown;
}

function count(values) {
  return values.reduce((counts, value) => ({ ...counts, [value]: (counts[value] ?? 0) + 1 }), {});
}

function readOptions() {
  const text = { type: "string" };
  const known = { control: text, edge: text, spki: text, artifacts: text, protocol: { ...text, default: "h3" } };
  try {
    const { values } = parseArgs({ options: known });
    const missing = Object.keys(known).find((name) => !values[name]);
    if (missing) throw new Error(`--${missing} is missing`);
    return values;
  } catch (error) {
    console.error(`play: ${error.message}\n${USAGE}`);
    process.exit(1);
  }
}
