// Messages to the viewer: what happened, and what to do.

import type { Edge } from "./api.ts";
import { element } from "./dom.ts";
import type { Failure } from "./route.ts";

export function notice(heading: string, text: string, ...more: (Node | string)[]): HTMLElement {
  return element("section", { className: "notice" }, element("h2", {}, heading), element("p", {}, text), ...more);
}

/** What to tell when `edge` gave no bytes and no other edge did. `isTrusted`: this browser got bytes from edges before. */
export function edgeNotice(edge: Edge, failure: Failure, isTrusted: boolean): HTMLElement {
  const { status, reason } = failure;
  const retry = "Larder keeps trying.";
  if (status === 401 || status === 403) {
    const why = "It did not accept this title's token, nor a fresh one. Do its clock and its keys agree with control's?";
    return notice(`Edge ${edge.edge} ${reason}`, `${why} ${retry}`);
  }
  if (status > 0) {
    const why = status === 404 ? "The title may have been withdrawn." : "It has no bytes to give; its origin may be down.";
    return notice(`Edge ${edge.edge} ${reason}`, `${why} ${retry}`);
  }
  if (isTrusted) return notice(`Edge ${edge.edge} does not answer`, `Nor does any other that control knows: ${reason}. ${retry}`);
  return notice(
    `Edge ${edge.edge} does not answer`,
    `It is down, or this browser does not trust its certificate: ${reason}. ${retry}`,
    element(
      "p",
      {},
      "With the demo's own certificate, open ",
      link(edge.url),
      " once and accept it; or start Chromium so that it trusts the certificate, for HTTP/3 too:",
    ),
    element("pre", {}, element("code", {}, chromiumCommand(edge))),
    element("p", {}, element("code", {}, "larder demo"), " prints the fingerprint."),
  );
}

function link(url: string): HTMLAnchorElement {
  return element("a", { href: url, target: "_blank", rel: "noopener" }, url);
}

function chromiumCommand(edge: Edge): string {
  const { hostname, port } = new URL(edge.url);
  return [
    "chromium --user-data-dir=/tmp/larder-chromium",
    `--origin-to-force-quic-on=${hostname}:${port || "443"}`,
    "--ignore-certificate-errors-spki-list=FINGERPRINT",
    location.origin,
  ].join(" \\\n  ");
}
