// Loads for hls.js with fetch(), from the route's current edge, and tells the log about each segment.
//
// hls.js' own loaders are not used: its XHR loader logs an error for each header that an edge does not expose, its fetch loader
// tells ABR nothing until a segment is whole, and neither can move to another edge within one load.
// Always holds: a load ends in exactly one of onSuccess, onError, onAbort, or in silence after destroy().

import { LoadStats } from "hls.js";
import type { HlsConfig, Loader, LoaderCallbacks, LoaderConfiguration, LoaderContext } from "hls.js";
import type { Edge } from "./api.ts";
import type { Failure, Route } from "./route.ts";
import type { SegmentLog } from "./segments.ts";

/** An edge that sends no byte for so long has failed. */
const SILENCE_MS_MAX = 8_000;
/** Requests for one load, over all edges. */
const ATTEMPTS_MAX = 8;

type Body = ArrayBuffer | string | object;
type Callbacks = LoaderCallbacks<LoaderContext>;

/** A loader class for hls.js' `loader` setting, bound to `route` and `log`. */
export function loaderFor(route: Route, log: SegmentLog): new (config: HlsConfig) => Loader<LoaderContext> {
  return class EdgeLoader implements Loader<LoaderContext> {
    context: LoaderContext | null = null;
    stats = new LoadStats();
    private readonly stop = new AbortController();
    private callbacks: Callbacks | null = null;
    private response: Response | null = null;

    load(context: LoaderContext, _limits: LoaderConfiguration, callbacks: Callbacks): void {
      this.context = context;
      this.callbacks = callbacks;
      this.stats.loading.start = performance.now();
      void this.run(context, callbacks);
    }

    abort(): void {
      this.stats.aborted = this.stats.loading.end === 0;
      this.stop.abort();
      if (this.context) this.callbacks?.onAbort?.(this.stats, this.context, this.response);
    }

    destroy(): void {
      this.callbacks = null;
      this.abort();
      this.context = null;
    }

    getResponseHeader(name: string): string | null {
      return this.response?.headers.get(name) ?? null;
    }

    getCacheAge(): number | null {
      const age = Number.parseFloat(this.getResponseHeader("age") ?? "");
      return Number.isFinite(age) ? age : null;
    }

    private async run(context: LoaderContext, callbacks: Callbacks): Promise<void> {
      const { stats } = this;
      for (let attempt = 1; ; attempt += 1) {
        const edge = route.current;
        const outcome = await this.attempt(edge, context);
        if (this.stop.signal.aborted) return;
        if ("data" in outcome) {
          const { data } = outcome;
          const { response } = this;
          callbacks.onProgress?.(stats, context, data as ArrayBuffer, response);
          callbacks.onSuccess({ url: context.url, data, code: response?.status ?? 200 }, stats, context, response);
          return;
        }
        const moved = attempt < ATTEMPTS_MAX && (await route.leave(edge, outcome));
        if (this.stop.signal.aborted) return;
        if (!moved) {
          callbacks.onError({ code: outcome.status, text: outcome.reason }, context, this.response, stats);
          return;
        }
        stats.retry += 1;
      }
    }

    private async attempt(edge: Edge, context: LoaderContext): Promise<{ data: Body } | Failure> {
      const { stats } = this;
      const url = route.on(edge, context.url);
      const startMs = performance.now();
      const silence = new Silence(this.stop.signal);
      stats.loaded = 0;
      stats.loading.first = 0;
      this.response = null;
      let failure: Failure | null = null;
      let data: Body = "";
      try {
        this.response = await fetch(url, { signal: silence.signal, headers: headersOf(context) });
        stats.loading.first = performance.now();
        stats.total = Number(this.response.headers.get("content-length") ?? 0);
        if (!this.response.ok) failure = refusal(this.response);
        const bytes = await this.body(this.response, silence);
        if (!failure) data = decode(bytes, context.responseType);
        stats.loading.end = performance.now();
        stats.total = stats.loaded;
      } catch (error) {
        const reason = silence.fell ? `was silent for ${SILENCE_MS_MAX / 1_000} s` : `no answer (${String(error)})`;
        failure = { status: 0, reason };
      } finally {
        silence.end();
      }
      if ("frag" in context && !this.stop.signal.aborted) {
        log.add({
          url,
          edge: edge.edge,
          status: this.response?.status ?? 0,
          failure: failure?.reason ?? null,
          bytes: stats.loaded,
          startMs,
          firstByteMs: (stats.loading.first || performance.now()) - startMs,
          totalMs: performance.now() - startMs,
          cacheStatus: this.getResponseHeader("cache-status"),
        });
      }
      return failure ?? { data };
    }

    private async body(response: Response, silence: Silence): Promise<ArrayBuffer> {
      const chunks: Uint8Array<ArrayBuffer>[] = [];
      const reader = response.body?.getReader();
      for (let next = await reader?.read(); next && !next.done; next = await reader?.read()) {
        chunks.push(next.value);
        this.stats.loaded += next.value.byteLength;
        this.stats.chunkCount += 1;
        silence.broken();
      }
      return new Blob(chunks).arrayBuffer();
    }
  };
}

/** Aborts a request when its edge has been silent for too long, or when the whole load is stopped. */
class Silence {
  /** Whether silence was the reason. */
  fell = false;
  private readonly abort = new AbortController();
  private readonly stop: AbortSignal;
  private timer = 0;
  private readonly stopped = () => this.abort.abort();

  constructor(stop: AbortSignal) {
    this.stop = stop;
    stop.addEventListener("abort", this.stopped);
    if (stop.aborted) this.stopped();
    this.broken();
  }

  get signal(): AbortSignal {
    return this.abort.signal;
  }

  /** A byte came. */
  broken(): void {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => {
      this.fell = true;
      this.abort.abort();
    }, SILENCE_MS_MAX);
  }

  end(): void {
    clearTimeout(this.timer);
    this.stop.removeEventListener("abort", this.stopped);
  }
}

function headersOf(context: LoaderContext): Record<string, string> {
  if (!context.rangeEnd) return context.headers ?? {};
  return { ...context.headers, range: `bytes=${context.rangeStart ?? 0}-${context.rangeEnd - 1}` };
}

function refusal(response: Response): Failure {
  const why = response.headers.get("larder-reason");
  return { status: response.status, reason: why ? `answered ${response.status} (${why})` : `answered ${response.status}` };
}

function decode(bytes: ArrayBuffer, type: string): Body {
  if (type === "arraybuffer") return bytes;
  const text = new TextDecoder().decode(bytes);
  return type === "json" ? (JSON.parse(text) as object) : text;
}
