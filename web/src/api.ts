// Control's API as the player uses it. Field for field the shapes of control's /openapi.json; no state.

export interface Video {
  id: string;
  title: string;
  description: string;
  cast: string[];
  rating?: string | null;
  durationMs: number;
  thumbnailUrl: string;
  createdAt: string | number;
}

export interface VideoPage {
  videos: Video[];
  nextCursor: string | null;
}

/** An edge that may play a title, with signed URLs that are good on that edge. */
export interface Edge {
  edge: string;
  site: string;
  url: string;
  hls: string;
  dash: string;
  storyboard: string;
  poster: string;
}

export interface Rendition {
  id: string;
  kind: "video" | "audio";
  codecs: string;
  width?: number;
  height?: number;
  bitsPerSecondPeak: number;
  language?: string;
}

export interface Playback {
  videoId: string;
  title: string;
  durationMs: number;
  /** Best first. */
  edges: Edge[];
  renditions: Rendition[];
}

/** Control's refusal (RFC 9457), or its silence: then `status` is 0. */
export class Problem extends Error {
  readonly status: number;
  /** From Retry-After, when control gave it in seconds. */
  readonly retryAfterS: number | null;

  constructor(status: number, message: string, retryAfterS: number | null = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** A page of the catalogue, newest first, or of what matches `searchQuery`. */
export function videos(searchQuery: string, cursor: string | null, signal: AbortSignal): Promise<VideoPage> {
  const query = new URLSearchParams();
  if (searchQuery) query.set("searchQuery", searchQuery);
  if (cursor) query.set("nextCursor", cursor);
  return json<VideoPage>(query.size > 0 ? `/videos?${query}` : "/videos", signal);
}

export function video(id: string, signal: AbortSignal): Promise<Video> {
  return json<Video>(`/videos/${encodeURIComponent(id)}`, signal);
}

/** Where to play a title from; a 503 problem when no edge is up. */
export function playback(id: string, signal: AbortSignal): Promise<Playback> {
  return json<Playback>(`/videos/${encodeURIComponent(id)}/playback`, signal);
}

async function json<T>(path: string, signal: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { signal, headers: { accept: "application/json" } });
  } catch (error) {
    signal.throwIfAborted();
    throw new Problem(0, `control does not answer (${String(error)})`);
  }
  if (!response.ok) throw await problem(response);
  return (await response.json()) as T;
}

async function problem(response: Response): Promise<Problem> {
  const body: unknown = await response.json().catch(() => null);
  const { title, detail } = (body ?? {}) as { title?: unknown; detail?: unknown };
  const message = [detail, title].find((text) => typeof text === "string" && text !== "");
  const retryAfterS = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  return new Problem(
    response.status,
    typeof message === "string" ? message : `control answered ${response.status}`,
    Number.isFinite(retryAfterS) ? retryAfterS : null,
  );
}
