// The player's view: asks control where a title plays, plays it with hls.js, and shows what happens meanwhile.
//
// hls.js decides what to load and when; the loader and the route decide from where. When loading fails for good the view says
// so and keeps trying: a viewer's buffer outlasts most restarts.

import Hls, { ErrorTypes, Events, type ErrorData, type HlsConfig, type LoadPolicy } from "hls.js";
import { playback, Problem, video as videoOf, type Edge, type Playback } from "./api.ts";
import { bytesText, clock, element, millisText, rateText } from "./dom.ts";
import { loaderFor } from "./loader.ts";
import { edgeNotice, notice } from "./notice.ts";
import { draw, SPAN_MS_MAX, type Dot, type Sample } from "./plot.ts";
import { Route } from "./route.ts";
import { bufferOf, scrubFor } from "./scrub.ts";
import { SegmentLog, throughputOf } from "./segments.ts";
import { larder, type PlayerState } from "./state.ts";
import { kindOf, protocolText, segmentTable } from "./table.ts";

const TICK_MS = 250;
const RETRY_MS = 3_000;
/** Repairs of a stuck decoder, each less than `REPAIR_HELPED_MS` after the one before, until the viewer is told. */
const MEDIA_REPAIRS_MAX = 3;
const REPAIR_HELPED_MS = 15_000;
const FACTS = ["Edge", "Protocol", "From cache", "Picture", "Buffer", "First picture", "Frames dropped"] as const;
const LEGEND = [
  ["line buffer", "buffer"],
  ["line accent", "bitrate played"],
  ["dot hit", "throughput: hit"],
  ["dot collapsed", "collapsed"],
  ["dot miss", "miss"],
] as const;

/** Plays title `id` in `main`; returns what ends it. */
export function showPlayer(main: HTMLElement, id: string): () => void {
  const openedMs = performance.now();
  const leaving = new AbortController();
  const { signal } = leaving;
  const log = new SegmentLog();
  const samples: Sample[] = [];
  const state: PlayerState = {
    videoId: id,
    phase: "loading",
    problem: null,
    edge: null,
    edges: [],
    moves: 0,
    rendition: null,
    positionS: 0,
    durationS: 0,
    bufferS: 0,
    firstPictureMs: null,
  };
  larder.segments = log.segments;
  larder.player = state;
  let route: Route | null = null;
  let hls: Hls | null = null;

  const heading = element("h1", { tabIndex: -1 }, "…");
  const line = element("p", { className: "line" });
  const description = element("p", { className: "description" });
  const quality = element("select", { "aria-label": "Quality", disabled: true }, element("option", { value: "-1" }, "Auto"));
  const video = element("video", { controls: true, playsInline: true, "aria-label": "Video" });
  const scrub = scrubFor(video);
  const status = element("div", { className: "status", "aria-live": "polite" });
  const facts = new Map(FACTS.map((name) => [name, element("dd", {}, "—")]));
  const canvas = element("canvas", { role: "img", "aria-label": "Buffer, bitrate and throughput over the last two minutes" });
  const table = segmentTable();
  main.replaceChildren(
    element("p", { className: "back" }, element("a", { href: "/" }, "← All titles")),
    element(
      "div",
      { className: "stage" },
      element("div", { className: "screen" }, video, scrub.element, status),
      element(
        "aside",
        { "aria-label": "Playback" },
        element("dl", {}, ...FACTS.map((name) => element("div", {}, element("dt", {}, name), facts.get(name)))),
        element("label", { className: "quality" }, "Quality", quality),
        element(
          "figure",
          {},
          canvas,
          element("figcaption", {}, ...LEGEND.map(([mark, name]) => element("span", {}, element("i", { className: mark }), name))),
        ),
      ),
    ),
    element("div", { className: "about" }, heading, line, description),
    table.element,
  );

  let drawing = 0;
  log.onChange = () => {
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => table.update(log.segments));
  };
  const ticking = window.setInterval(tick, TICK_MS);
  video.addEventListener("loadeddata", () => (state.firstPictureMs ??= performance.now() - openedMs), { signal });
  quality.onchange = () => {
    if (hls) hls.nextLevel = Number(quality.value);
  };
  void describe();
  void start();

  return () => {
    leaving.abort();
    clearInterval(ticking);
    cancelAnimationFrame(drawing);
    log.close();
    hls?.destroy();
    video.removeAttribute("src");
    video.load();
    larder.player = null;
  };

  async function describe(): Promise<void> {
    const about = await videoOf(id, signal).catch(() => null);
    if (!about) return;
    heading.textContent = about.title;
    document.title = `${about.title} · Larder`;
    line.textContent = [clock(about.durationMs / 1_000), about.rating, ...about.cast].filter(Boolean).join(" · ");
    description.textContent = about.description;
  }

  async function start(): Promise<void> {
    while (!signal.aborted) {
      try {
        const answer = await edgesFor();
        tell(null);
        play(answer);
        return;
      } catch (error) {
        if (signal.aborted) return;
        const problem = error instanceof Problem ? error : new Problem(500, String(error));
        tell(startNotice(problem));
        if (problem.status !== 0 && problem.status !== 503) return;
        await new Promise((resolve) => setTimeout(resolve, Math.min(problem.retryAfterS ?? 3, 30) * 1_000));
      }
    }
  }

  async function edgesFor(): Promise<Playback> {
    const answer = await playback(id, signal);
    if (answer.edges.length === 0) throw new Problem(503, "control ranked no edge");
    return answer;
  }

  function play(answer: Playback): void {
    const edge = answer.edges[0] as Edge;
    const chosen = new Route(answer.edges, async () => (await edgesFor()).edges);
    route = chosen;
    if (edge.poster) video.poster = edge.poster;
    if (edge.storyboard) void scrub.loadStoryboard(edge.storyboard, signal);
    if (Hls.isSupported()) {
      playBy(chosen, edge);
    } else if (video.canPlayType("application/vnd.apple.mpegurl")) {
      video.src = edge.hls;
      video.onerror = () => tell(notice("This title does not play", video.error?.message || "The browser does not say why."));
      tell(notice("Details are hidden here", "This browser plays HLS by itself and does not show where segments come from."));
      void video.play().catch(() => {});
    } else {
      tell(notice("This browser cannot play", "It has neither Media Source Extensions nor HLS of its own."));
    }
  }

  function playBy(chosen: Route, home: Edge): void {
    const player = new Hls(settings(loaderFor(chosen, log)));
    hls = player;
    let hasManifest = false;
    let repairs = 0;
    let repairedMs = -Infinity;
    player.on(Events.MANIFEST_PARSED, () => {
      hasManifest = true;
      tell(null);
      offerQuality(player);
      // Without a click before, browsers may refuse to begin with sound: then the viewer presses play.
      void video.play().catch(() => {});
    });
    player.on(Events.FRAG_BUFFERED, () => tell(null));
    player.on(Events.ERROR, (_event, error) => {
      if (!error.fatal) return;
      if (error.type === ErrorTypes.NETWORK_ERROR) {
        tell(edgeNotice(chosen.current, failureOf(error), log.totals.bytes > 0));
        const timer = setTimeout(() => (hasManifest ? player.startLoad() : player.loadSource(home.hls)), RETRY_MS);
        signal.addEventListener("abort", () => clearTimeout(timer));
      } else if (error.type === ErrorTypes.MEDIA_ERROR && repair()) {
        return;
      } else {
        tell(notice("This title does not play", `The browser could not decode it: ${error.details}, ${error.error.message}`));
      }
    });
    /** Gives hls.js a fresh decoder; false when that did not help before. */
    const repair = (): boolean => {
      const nowMs = performance.now();
      repairs = nowMs - repairedMs < REPAIR_HELPED_MS ? repairs + 1 : 1;
      if (repairs > MEDIA_REPAIRS_MAX) return false;
      repairedMs = nowMs;
      const isPlaying = !video.paused;
      player.recoverMediaError();
      if (isPlaying) void video.play().catch(() => {});
      return true;
    };
    player.loadSource(home.hls);
    player.attachMedia(video);
  }

  function offerQuality(player: Hls): void {
    const levels = player.levels.map((level, index) =>
      element("option", { value: String(index) }, `${level.height}p · ${rateText(level.bitrate)}`),
    );
    quality.replaceChildren(element("option", { value: "-1" }, "Auto"), ...levels.reverse());
    quality.disabled = false;
  }

  function tell(what: HTMLElement | null): void {
    const problem = what && Array.from(what.children, (part) => part.textContent).join(" ");
    if (problem === state.problem) return;
    state.problem = problem;
    status.replaceChildren(...(what ? [what] : []));
  }

  function tick(): void {
    const nowMs = performance.now();
    const level = hls?.levels[hls.currentLevel];
    // hls.js leaves a chosen quality when it cannot be loaded.
    if (hls?.autoLevelEnabled) quality.value = "-1";
    state.phase = phase();
    state.edge = route?.current.edge ?? null;
    state.edges = route?.names ?? [];
    state.moves = route?.moves ?? 0;
    state.positionS = video.currentTime;
    state.durationS = Number.isFinite(video.duration) ? video.duration : 0;
    state.bufferS = bufferOf(video);
    state.rendition = level ? { width: level.width, height: level.height, bitsPerSecond: level.bitrate } : null;
    samples.push({ atMs: nowMs, bufferS: state.bufferS, bitsPerS: level?.bitrate ?? 0 });
    while ((samples[0]?.atMs ?? nowMs) < nowMs - SPAN_MS_MAX) samples.shift();
    scrub.update();
    showFacts();
    draw(canvas, samples, dots(), nowMs);
  }

  function phase(): PlayerState["phase"] {
    if (video.ended) return "ended";
    if (state.firstPictureMs === null) return state.problem ? "failed" : "loading";
    if (video.paused) return "paused";
    if (video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA) return "playing";
    return state.problem ? "failed" : "stalled";
  }

  function showFacts(): void {
    const { totals } = log;
    const { rendition } = state;
    const cachedPercent = Math.round((100 * totals.bytesFromCache) / totals.bytes);
    const frames = video.getVideoPlaybackQuality();
    const moves = state.moves > 0 ? `, moved ${state.moves} ×` : "";
    const site = route?.current.site ? ` · ${route.current.site}` : "";
    const shown: Record<(typeof FACTS)[number], string> = {
      Edge: state.edge ? `${state.edge}${site}${moves}` : "—",
      Protocol: protocols() || "—",
      "From cache": totals.bytes > 0 ? `${cachedPercent} % of ${bytesText(totals.bytes)}` : "—",
      Picture: rendition ? `${rendition.width} × ${rendition.height}, ${rateText(rendition.bitsPerSecond)}` : "—",
      Buffer: `${state.bufferS.toFixed(1)} s`,
      "First picture": state.firstPictureMs === null ? "—" : `after ${millisText(state.firstPictureMs)}`,
      "Frames dropped": `${frames.droppedVideoFrames} of ${frames.totalVideoFrames}`,
    };
    for (const name of FACTS) {
      const place = facts.get(name);
      if (place && place.textContent !== shown[name]) place.textContent = shown[name];
    }
  }

  /** The protocols of all segments in the log, the latest first. */
  function protocols(): string {
    const known = log.segments.flatMap((segment) => (segment.protocol && !segment.fromBrowser ? [segment.protocol] : []));
    return [...new Set(known.reverse())].map(protocolText).join(", ");
  }

  function dots(): Dot[] {
    const style = getComputedStyle(canvas);
    return log.segments.flatMap((segment) => {
      const bitsPerS = throughputOf(segment);
      if (bitsPerS === null) return [];
      return [{ atMs: segment.startMs + segment.totalMs, bitsPerS, colour: style.getPropertyValue(`--${kindOf(segment)}`) }];
    });
  }
}

function settings(loader: HlsConfig["loader"]): Partial<HlsConfig> {
  // Time-outs and retries are the loader's and the route's, so hls.js has none of its own.
  const once: LoadPolicy = {
    default: { maxTimeToFirstByteMs: 60_000, maxLoadTimeMs: 120_000, timeoutRetry: null, errorRetry: null },
  };
  return {
    loader,
    manifestLoadPolicy: once,
    playlistLoadPolicy: once,
    fragLoadPolicy: once,
    // A failure is an edge's, not a rendition's: hls.js would avoid the rendition for good.
    errorPenaltyExpireMs: 5_000,
    // Segments are fragmented MP4, which needs no transmuxing and so no worker.
    enableWorker: false,
    abrEwmaDefaultEstimate: 2_000_000,
    // No more than that: bytes that nobody watches cost the edge and the viewer alike.
    maxBufferLength: 30,
    maxMaxBufferLength: 30,
    backBufferLength: 60,
  };
}

function failureOf(error: ErrorData): { status: number; reason: string } {
  return { status: error.response?.code ?? 0, reason: error.response?.text || error.error.message };
}

function startNotice(problem: Problem): HTMLElement {
  switch (problem.status) {
    case 0:
      return notice("Control does not answer", `${problem.message}. Larder keeps trying.`);
    case 404:
      return notice("No such title", "It may have been withdrawn.", element("p", {}, element("a", { href: "/" }, "All titles")));
    case 503:
      return notice(
        "No edge is up",
        `${problem.message} An edge counts as up while its reports arrive. Larder keeps trying; meanwhile, is one running?`,
        element("pre", {}, element("code", {}, "larder edge --config edge.toml")),
      );
    default:
      return notice("Control refused", problem.message);
  }
}
