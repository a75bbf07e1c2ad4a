// The plot: buffer level, the bitrate that plays, and the throughput of each segment, over the last two minutes.
//
// Left axis: seconds of buffer, from zero. Right axis: bits per second, logarithmic, because an edge in the house is a thousand
// times faster than a film. Dots have the colour of the cache's verdict. Draws what it is given and keeps nothing else.

import { rateText } from "./dom.ts";

/** How much time the plot shows: the shortest of these that all samples fit in. */
const SPANS_MS = [30_000, 60_000, 120_000];
/** Samples older than this are not shown. */
export const SPAN_MS_MAX = 120_000;

export interface Sample {
  atMs: number;
  bufferS: number;
  /** Of the rendition that plays; 0 before the first one does. */
  bitsPerS: number;
}

export interface Dot {
  atMs: number;
  bitsPerS: number;
  /** A CSS colour. */
  colour: string;
}

const MARGIN = { top: 10, right: 66, bottom: 22, left: 34 };
const RATE_MIN = 1e5;
const RATE_MAX = 1e9;

export function draw(canvas: HTMLCanvasElement, samples: Sample[], dots: Dot[], nowMs: number): void {
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const context = canvas.getContext("2d");
  if (!context || width === 0 || height === 0) return;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  context.scale(scale, scale);
  context.font = `11px ${getComputedStyle(canvas).fontFamily}`;

  const style = getComputedStyle(canvas);
  const colour = (name: string) => style.getPropertyValue(name);
  const bufferMax = Math.max(10, Math.ceil(Math.max(...samples.map((sample) => sample.bufferS), 0) / 10) * 10);
  const agoMs = nowMs - (samples[0]?.atMs ?? nowMs);
  const spanMs = SPANS_MS.find((span) => agoMs <= span) ?? SPAN_MS_MAX;
  const bottom = height - MARGIN.bottom;
  const right = width - MARGIN.right;
  const x = (atMs: number) => MARGIN.left + (right - MARGIN.left) * (1 - (nowMs - atMs) / spanMs);
  const yBuffer = (seconds: number) => bottom - (bottom - MARGIN.top) * (seconds / bufferMax);
  const yRate = (bitsPerS: number) => {
    const share = Math.log10(Math.min(Math.max(bitsPerS, RATE_MIN), RATE_MAX) / RATE_MIN) / Math.log10(RATE_MAX / RATE_MIN);
    return bottom - (bottom - MARGIN.top) * share;
  };

  context.strokeStyle = colour("--line");
  context.fillStyle = colour("--muted");
  context.textBaseline = "middle";
  context.lineWidth = 1;
  for (let rate = RATE_MIN; rate <= RATE_MAX; rate *= 10) {
    const y = Math.round(yRate(rate)) + 0.5;
    context.beginPath();
    context.moveTo(MARGIN.left, y);
    context.lineTo(right, y);
    context.stroke();
    context.textAlign = "left";
    context.fillText(rateText(rate).replace(".0", ""), right + 8, y);
  }
  context.textAlign = "right";
  for (const seconds of [0, bufferMax / 2, bufferMax]) context.fillText(`${seconds} s`, MARGIN.left - 6, yBuffer(seconds));
  context.textBaseline = "alphabetic";
  for (const [share, align] of [[0, "right"], [0.5, "center"], [1, "left"]] as const) {
    context.textAlign = align;
    context.fillText(share === 0 ? "now" : `${(share * spanMs) / 1_000} s ago`, x(nowMs - share * spanMs), height - 5);
  }

  context.save();
  context.beginPath();
  context.rect(MARGIN.left, 0, right - MARGIN.left, height);
  context.clip();
  const [oldest] = samples;
  const newest = samples.at(-1);
  if (oldest && newest) {
    context.beginPath();
    context.moveTo(x(oldest.atMs), bottom);
    for (const sample of samples) context.lineTo(x(sample.atMs), yBuffer(sample.bufferS));
    context.lineTo(x(newest.atMs), bottom);
    context.fillStyle = colour("--buffer-fill");
    context.fill();
    context.strokeStyle = colour("--buffer");
    context.lineWidth = 1.5;
    context.stroke();
  }
  context.beginPath();
  let before: Sample | null = null;
  for (const sample of samples) {
    if (sample.bitsPerS > 0) {
      if (before?.bitsPerS) context.lineTo(x(sample.atMs), yRate(before.bitsPerS));
      else context.moveTo(x(sample.atMs), yRate(sample.bitsPerS));
      context.lineTo(x(sample.atMs), yRate(sample.bitsPerS));
    }
    before = sample;
  }
  context.strokeStyle = colour("--accent");
  context.lineWidth = 2;
  context.stroke();
  context.restore();

  for (const dot of dots) {
    if (x(dot.atMs) < MARGIN.left) continue;
    context.beginPath();
    context.arc(x(dot.atMs), yRate(dot.bitsPerS), 2.5, 0, 2 * Math.PI);
    context.fillStyle = dot.colour;
    context.fill();
  }
}
