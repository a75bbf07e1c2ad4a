// What the tests in a browser share: Debian's Chromium, headless, with a profile of its own that is gone afterwards, a time limit, and how
// the outcome is told: a line for people on stderr when it failed, and one line of JSON as the last of stdout; exit code 0 or 1.
//
// Needs `npm ci` in web/ and /usr/bin/chromium (or CHROMIUM).

import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

/** Finds packages where the player has them. */
export const require = createRequire(new URL("../../web/package.json", import.meta.url));
const { chromium } = require("playwright-core");

const CLOSE_MS_MAX = 5_000;

/**
 * Runs `test` with a page of a fresh browser and ends the process. The report is told as `test` has filled it, with `ok`, and `reason` if it failed.
 *
 * `spki` is SHA-256 of the edges' public keys, which the browser is told to trust; `args` are more of Chromium's own.
 */
export async function inChromium({ name, totalMsMax, spki, args = [], ...context }, report, test) {
  const profile = await mkdtemp(join(tmpdir(), `larder-${name}-`));
  let browser = null;
  let reason = null;
  const run = async () => {
    browser = await launch(profile, spki, args, context);
    await test(browser.pages()[0] ?? (await browser.newPage()));
  };
  const late = async () => {
    await wait(totalMsMax);
    throw new Error(`took longer than ${totalMsMax / 1_000} s`);
  };
  try {
    await Promise.race([run(), late()]);
  } catch (error) {
    reason = error instanceof Error ? error.message : String(error);
  }
  await Promise.race([browser?.close().catch(() => {}), wait(CLOSE_MS_MAX)]);
  await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  if (reason !== null) console.error(`${name}: ${reason}`);
  console.log(JSON.stringify({ ...report, ok: reason === null, ...(reason !== null && { reason }) }));
  process.exit(reason === null ? 0 : 1);
}

/** Fails the test with what it says, unless it holds. */
export function check(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}

function launch(profile, spki, args, context) {
  return chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [
      `--ignore-certificate-errors-spki-list=${spki}`,
      "--autoplay-policy=no-user-gesture-required",
      "--no-sandbox",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...args,
    ],
    ...context,
  });
}
