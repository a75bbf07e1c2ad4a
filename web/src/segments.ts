// The log of segments: where each came from, how, how fast, and what the edge's cache said.
//
// The loader reports each answer; the browser's resource timing (which needs the edge's Timing-Allow-Origin) adds protocol and
// times, a moment earlier or later. Bounded: old segments leave, and so do timings that no segment claims.

import { verdictOf, type Verdict } from "./cacheStatus.ts";

/** How many segments the log keeps. */
export const SEGMENTS_MAX = 1_000;
/** How many timings wait for their segment; playlists and pictures have timings too. */
const TIMINGS_MAX = 50;

export interface Segment {
  /** 1 for the first one loaded. */
  number: number;
  url: string;
  /** The folder of the segment: "v720", "a1". */
  rendition: string;
  /** The file in it: "00001.m4s", "init.mp4". */
  name: string;
  /** The edge that was asked. */
  edge: string;
  /** HTTP status; 0 when no answer came. */
  status: number;
  /** Why there are no bytes; null when all came. */
  failure: string | null;
  bytes: number;
  /** On the clock of `performance.now()`. */
  startMs: number;
  /** From asking to the first byte, and to the last one. */
  firstByteMs: number;
  totalMs: number;
  /** ALPN of the connection ("h3", "h2", "http/1.1"); null until the browser tells, "" when the edge does not allow it to. */
  protocol: string | null;
  /** Taken from the browser's own cache: no edge was asked. */
  fromBrowser: boolean;
  /** The Cache-Status header as it came. */
  cacheStatus: string | null;
  verdict: Verdict | null;
  /** The edge's own times, from Server-Timing. */
  serverTimings: { name: string; durationMs: number; description: string }[];
}

/** What the loader knows when a request to an edge has ended. */
export type Answer = Pick<
  Segment,
  "url" | "edge" | "status" | "failure" | "bytes" | "startMs" | "firstByteMs" | "totalMs" | "cacheStatus"
>;

/** Facts over all segments since the log began. */
export interface Totals {
  segments: number;
  bytes: number;
  /** Bytes that an edge already had, or that another viewer was fetching already. */
  bytesFromCache: number;
  failures: number;
}

export class SegmentLog {
  readonly segments: Segment[] = [];
  readonly totals: Totals = { segments: 0, bytes: 0, bytesFromCache: 0, failures: 0 };
  /** Called after each change; null for nobody. */
  onChange: (() => void) | null = null;
  private timings: PerformanceResourceTiming[] = [];
  private readonly observer = new PerformanceObserver((list) => this.addTimings(list.getEntries()));

  constructor() {
    this.observer.observe({ type: "resource" });
  }

  close(): void {
    this.observer.disconnect();
    this.onChange = null;
  }

  add(answer: Answer): void {
    const verdict = verdictOf(answer.cacheStatus);
    const [rendition = "", name = ""] = new URL(answer.url).pathname.split("/").slice(-2);
    this.totals.segments += 1;
    this.totals.bytes += answer.bytes;
    if (verdict?.outcome === "hit" || verdict?.outcome === "collapsed") this.totals.bytesFromCache += answer.bytes;
    if (answer.failure !== null) this.totals.failures += 1;
    const number = this.totals.segments;
    this.segments.push({ ...answer, number, rendition, name, verdict, protocol: null, fromBrowser: false, serverTimings: [] });
    if (this.segments.length > SEGMENTS_MAX) this.segments.shift();
    this.match();
  }

  private addTimings(entries: PerformanceEntryList): void {
    this.timings.push(...(entries as PerformanceResourceTiming[]));
    performance.clearResourceTimings();
    this.match();
  }

  /** Gives each segment that waits the timing of its own request: the one of its URL that began nearest to it. */
  private match(): void {
    for (const segment of this.segments.filter(({ protocol }) => protocol === null)) {
      const distance = (entry: PerformanceResourceTiming) => Math.abs(entry.startTime - segment.startMs);
      const own = this.timings.filter(({ name }) => name === segment.url).sort((a, b) => distance(a) - distance(b))[0];
      if (!own) continue;
      addTiming(segment, own);
      this.timings = this.timings.filter((entry) => entry !== own);
    }
    this.timings = this.timings.slice(-TIMINGS_MAX);
    this.onChange?.();
  }
}

function addTiming(segment: Segment, entry: PerformanceResourceTiming): void {
  segment.protocol = entry.nextHopProtocol;
  segment.fromBrowser = entry.transferSize === 0 && entry.decodedBodySize > 0;
  segment.serverTimings = entry.serverTiming.map(({ name, duration, description }) => ({
    name,
    durationMs: duration,
    description,
  }));
  if (entry.responseStart > 0) {
    segment.firstByteMs = entry.responseStart - entry.startTime;
    segment.totalMs = entry.responseEnd - entry.startTime;
  }
}

/** Bits per second while the body came, or null when there was hardly any body or time to tell. */
export function throughputOf(segment: Segment): number | null {
  const bodyMs = segment.totalMs - segment.firstByteMs;
  if (segment.failure !== null || segment.fromBrowser || segment.bytes < 50_000 || bodyMs <= 0) return null;
  return (segment.bytes * 8_000) / bodyMs;
}
