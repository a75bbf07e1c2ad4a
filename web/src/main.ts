// The page: which view a URL shows, and moving between views without loading the page again.

import { showCatalogue } from "./catalogue.ts";
import { element } from "./dom.ts";
import { showPlayer } from "./player.ts";

const main = element("main");
let leave = () => {};

document.body.append(
  element("header", {}, element("a", { href: "/", className: "mark" }, element("span", { "aria-hidden": "true" }), "Larder")),
  main,
);
document.addEventListener("click", follow);
window.addEventListener("popstate", () => {
  show();
  focusHeading();
});
show();

function show(): void {
  leave();
  const id = /^\/player\/([a-z0-9-]+)\/?$/.exec(location.pathname)?.[1];
  leave = id ? showPlayer(main, id) : showCatalogue(main);
}

/** Follows a link within the page; all other links are the browser's. */
function follow(event: MouseEvent): void {
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !isPlain || link.target || link.origin !== location.origin) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  show();
  window.scrollTo(0, 0);
  focusHeading();
}

/** Tells screen readers that another view is here. */
function focusHeading(): void {
  main.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
}
