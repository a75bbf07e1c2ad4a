// The table of the last segments, newest first.

import { bytesText, element, millisText, rateText } from "./dom.ts";
import { throughputOf, type Segment } from "./segments.ts";

const ROWS_MAX = 24;
const COLUMNS = ["#", "Rendition", "Segment", "Edge", "Protocol", "Cache", "Size", "First byte", "Total", "Rate"];

export interface Table {
  element: HTMLElement;
  update(segments: Segment[]): void;
}

export function segmentTable(): Table {
  const body = element("tbody");
  const head = element("thead", {}, element("tr", {}, ...COLUMNS.map((name) => element("th", { scope: "col" }, name))));
  const table = element("table", {}, element("caption", {}, "Segments, newest first"), head, body);
  return {
    element: element("div", { className: "table", role: "region", "aria-label": "Segments", tabIndex: 0 }, table),
    update(segments) {
      body.replaceChildren(...segments.slice(-ROWS_MAX).reverse().map(row));
    },
  };
}

function row(segment: Segment): HTMLTableRowElement {
  const rate = throughputOf(segment);
  const cells = [
    element("td", { className: "number" }, String(segment.number)),
    element("td", {}, segment.rendition),
    element("td", {}, segment.name),
    element("td", {}, segment.fromBrowser ? "—" : segment.edge),
    element("td", {}, element("span", { className: "protocol" }, protocolText(segment.protocol))),
    element("td", {}, verdictMark(segment)),
    element("td", { className: "number" }, segment.failure === null ? bytesText(segment.bytes) : "—"),
    element("td", { className: "number", title: serverTimes(segment) }, millisText(segment.firstByteMs)),
    element("td", { className: "number" }, millisText(segment.totalMs)),
    element("td", { className: "number" }, rate === null ? "—" : rateText(rate)),
  ];
  return element("tr", {}, ...cells);
}

/** "HTTP/3" for "h3": what people call it. */
export function protocolText(protocol: string | null): string {
  switch (protocol) {
    case null:
      return "…";
    case "":
      return "not told";
    case "h3":
      return "HTTP/3";
    case "h2":
      return "HTTP/2";
    case "http/1.1":
      return "HTTP/1.1";
    default:
      return protocol;
  }
}

/** The verdict's kind, which is also its colour's name in the style sheet. */
export function kindOf(segment: Segment): "hit" | "collapsed" | "miss" | "failed" | "none" {
  if (segment.failure !== null) return "failed";
  if (segment.fromBrowser || !segment.verdict) return "none";
  const { outcome } = segment.verdict;
  return outcome === "hit" || outcome === "collapsed" ? outcome : "miss";
}

function verdictMark(segment: Segment): HTMLElement {
  const title = segment.cacheStatus ? `Cache-Status: ${segment.cacheStatus}` : "The edge sent no Cache-Status";
  return element("span", { className: `verdict ${kindOf(segment)}`, title }, verdictText(segment));
}

function verdictText(segment: Segment): string {
  if (segment.failure !== null) return segment.failure;
  if (segment.fromBrowser) return "browser’s cache";
  if (!segment.verdict) return "not told";
  const { outcome, detail, stored } = segment.verdict;
  return [outcome, detail, stored && "stored"].filter(Boolean).join(" · ");
}

function serverTimes(segment: Segment): string {
  const timings = segment.serverTimings.map(({ name, durationMs, description }) => `${description || name} ${millisText(durationMs)}`);
  return timings.join(", ");
}
