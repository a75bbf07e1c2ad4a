// `window.larder`: what the player knows, for tests and for the curious at the browser's console.

import type { Segment } from "./segments.ts";

export interface PlayerState {
  videoId: string;
  /** "loading" until the first picture; "stalled" when the buffer ran dry; "failed" while nothing can be loaded or decoded. */
  phase: "loading" | "playing" | "paused" | "stalled" | "ended" | "failed";
  /** What the viewer is told, null when all is well. */
  problem: string | null;
  /** The edge that is asked now, all edges that control ranked, and how often the player moved between them. */
  edge: string | null;
  edges: string[];
  moves: number;
  /** The rendition that plays; null before the first picture. */
  rendition: { width: number; height: number; bitsPerSecond: number } | null;
  positionS: number;
  durationS: number;
  bufferS: number;
  /** From the view's opening to the first picture. */
  firstPictureMs: number | null;
}

export interface Larder {
  /** The last segments (up to `SEGMENTS_MAX`), oldest first; emptied when another title is opened. */
  segments: readonly Segment[];
  /** Updated a few times a second; null in the catalogue. */
  player: PlayerState | null;
}

declare global {
  interface Window {
    larder: Larder;
  }
}

export const larder: Larder = { segments: [], player: null };
window.larder = larder;
