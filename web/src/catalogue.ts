// The catalogue: the titles that control knows, with their pictures, a search box, and more of them when the end is near.
//
// The search is in the page's URL (`/?searchQuery=…`), so it can be shared and survives a reload.

import { Problem, videos, type Video } from "./api.ts";
import { clock, element } from "./dom.ts";
import { notice } from "./notice.ts";

const TYPING_PAUSE_MS = 200;

/** Shows the catalogue in `main`; returns what ends it. */
export function showCatalogue(main: HTMLElement): () => void {
  document.title = "Larder";
  const search = element("input", {
    type: "search",
    name: "searchQuery",
    placeholder: "Search titles",
    value: new URL(location.href).searchParams.get("searchQuery") ?? "",
    autocomplete: "off",
    "aria-label": "Search titles",
  });
  const list = element("ul", { className: "titles", "aria-label": "Titles" });
  const status = element("div", { className: "status", "aria-live": "polite" });
  const more = element("button", { type: "button", className: "more", hidden: true, onclick: () => void load() }, "More titles");
  main.replaceChildren(
    element(
      "div",
      { className: "heading" },
      element("h1", { tabIndex: -1 }, "Titles"),
      element("form", { role: "search", onsubmit: (event: Event) => (event.preventDefault(), searchFor()) }, search),
    ),
    list,
    status,
    more,
  );

  let cursor: string | null = null;
  let loading = new AbortController();
  let typing = 0;

  search.oninput = () => {
    clearTimeout(typing);
    typing = window.setTimeout(searchFor, TYPING_PAUSE_MS);
  };
  const end = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && !more.hidden && !more.disabled) void load();
  });
  end.observe(more);
  void load();

  return () => {
    clearTimeout(typing);
    loading.abort();
    end.disconnect();
  };

  function searchFor(): void {
    const query = search.value.trim();
    history.replaceState(null, "", query ? `/?${new URLSearchParams({ searchQuery: query })}` : "/");
    loading.abort();
    cursor = null;
    void load();
  }

  async function load(): Promise<void> {
    loading = new AbortController();
    const { signal } = loading;
    const isFirst = cursor === null;
    const query = search.value.trim();
    more.disabled = true;
    try {
      const page = await videos(query, cursor, signal);
      const cards = page.videos.map(card);
      if (isFirst) list.replaceChildren(...cards);
      else list.append(...cards);
      cursor = page.nextCursor;
      more.hidden = cursor === null;
      status.replaceChildren(...(list.childElementCount === 0 ? [nothing(query)] : []));
    } catch (error) {
      if (signal.aborted) return;
      more.hidden = true;
      if (isFirst) list.replaceChildren();
      status.replaceChildren(failed(error, () => void load()));
    } finally {
      if (!signal.aborted) more.disabled = false;
    }
  }
}

function card(video: Video): HTMLLIElement {
  const picture = element("img", { src: video.thumbnailUrl, alt: "", loading: "lazy" });
  const length = element("span", { className: "length" }, clock(video.durationMs / 1_000));
  const frame = element("div", { className: "picture" }, picture, length);
  picture.onerror = () => frame.classList.add("missing");
  return element(
    "li",
    {},
    element(
      "a",
      { href: `/player/${encodeURIComponent(video.id)}` },
      frame,
      element("h2", {}, video.title),
      element("p", { className: "line" }, [video.rating, ...video.cast].filter(Boolean).join(" · ")),
      video.description ? element("p", { className: "description" }, video.description) : null,
    ),
  );
}

function nothing(query: string): HTMLElement {
  if (query) return notice("Nothing found", `No title matches “${query}”.`);
  return notice(
    "No titles yet",
    "Bring one in; it appears here when it is packaged:",
    element("pre", {}, element("code", {}, 'larder ingest FILE --title "Its name"')),
  );
}

function failed(error: unknown, again: () => void): HTMLElement {
  const isSilent = error instanceof Problem && error.status === 0;
  const heading = isSilent ? "Control does not answer" : "The catalogue cannot be read";
  const advice = isSilent ? "This page came from Larder's control role, which seems to have stopped. " : "";
  const button = element("button", { type: "button", onclick: again }, "Try again");
  return notice(heading, `${advice}${error instanceof Error ? error.message : String(error)}`, button);
}
