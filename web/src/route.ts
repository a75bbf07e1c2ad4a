// Which edge the player loads from now, and which one next.
//
// Every edge has the same objects below its own signed root, so hls.js keeps seeing the URLs of the first edge (its "home")
// and the loader asks the current edge instead: moving loses no buffer. When every edge has failed, or an edge refuses the
// token, control is asked again. Knows neither hls.js nor fetch.

import type { Edge } from "./api.ts";

/** Control is asked for other edges at most this often. */
export const ASK_AGAIN_MS = 2_500;

/** Why a request to an edge gave no bytes. `status` is 0 when no answer came. */
export interface Failure {
  status: number;
  reason: string;
}

export class Route {
  /** How often the player has moved to another edge. */
  moves = 0;
  private edges: Edge[];
  private at: Edge;
  private readonly home: string;
  private readonly failed = new Set<Edge>();
  private asking: Promise<boolean> | null = null;
  private askedMs = -Infinity;
  private readonly ask: () => Promise<Edge[]>;
  private readonly nowMs: () => number;

  /** `edges` best first, at least one; `ask` brings fresh ones from control. */
  constructor(edges: Edge[], ask: () => Promise<Edge[]>, nowMs: () => number = () => performance.now()) {
    this.edges = edges;
    this.at = first(edges);
    this.home = rootOf(this.at);
    this.ask = ask;
    this.nowMs = nowMs;
  }

  get current(): Edge {
    return this.at;
  }

  get names(): string[] {
    return this.edges.map((edge) => edge.edge);
  }

  /** What hls.js calls `url`, on `edge`. */
  on(edge: Edge, url: string): string {
    return url.startsWith(this.home) ? rootOf(edge) + url.slice(this.home.length) : url;
  }

  /** Leaves `from`, which failed. False when there is nowhere to go for now. */
  async leave(from: Edge, failure: Failure): Promise<boolean> {
    if (from !== this.at) return true;
    this.failed.add(from);
    const tokenRefused = failure.status === 401 || failure.status === 403;
    const next = tokenRefused ? undefined : this.edges.find((edge) => !this.failed.has(edge));
    if (next) {
      this.moveTo(next);
      return true;
    }
    this.asking ??= this.askAgain().finally(() => {
      this.asking = null;
    });
    return this.asking;
  }

  private async askAgain(): Promise<boolean> {
    this.failed.clear();
    const tooSoon = this.nowMs() - this.askedMs < ASK_AGAIN_MS;
    if (!tooSoon) {
      this.askedMs = this.nowMs();
      const edges = await this.ask().catch(() => []);
      if (edges.length > 0) {
        this.edges = edges;
        this.moveTo(first(edges));
        return true;
      }
    }
    this.moveTo(first(this.edges));
    return false;
  }

  private moveTo(edge: Edge): void {
    if (edge.edge !== this.at.edge) this.moves += 1;
    this.at = edge;
  }
}

function first(edges: Edge[]): Edge {
  const [edge] = edges;
  if (!edge) throw new RangeError("a route needs at least one edge");
  return edge;
}

/** The signed folder of a title on `edge`: playlists, segments and pictures are below it. */
function rootOf(edge: Edge): string {
  return new URL(".", edge.hls).href;
}
