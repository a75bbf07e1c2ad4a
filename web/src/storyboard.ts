// The storyboard: small pictures of a title over time, cut from one sprite by a WebVTT file whose cues say where.
//
// A cue's text is `sprite.jpg#xywh=x,y,width,height` (Media Fragments URI 1.0 §4.2.2, pixels). Cues that say anything else
// are skipped: a preview is never worth an error.

/** One picture: shown from `startS` until `endS`, at `x`, `y` of the sprite at `url`. */
export interface Picture {
  startS: number;
  endS: number;
  url: string;
  x: number;
  y: number;
  width: number;
  height: number;
}

const TIMING = /^(?:(\d{2,}):)?([0-5]\d):([0-5]\d\.\d{3})[ \t]+-->[ \t]+(?:(\d{2,}):)?([0-5]\d):([0-5]\d\.\d{3})/;
const PLACE = /^(.+)#xywh=(?:pixel:)?(\d+),(\d+),(\d+),(\d+)$/;

/** The pictures of the WebVTT file `text`, in time order; sprites are relative to `base`, the file's own URL. */
export function parseStoryboard(text: string, base: string): Picture[] {
  const pictures: Picture[] = [];
  const lines = text.split(/\r\n|\r|\n/);
  for (const [index, line] of lines.entries()) {
    const timing = TIMING.exec(line);
    const place = timing && PLACE.exec(lines[index + 1]?.trim() ?? "");
    if (!timing || !place) continue;
    const [x, y, width, height] = place.slice(2).map(Number) as [number, number, number, number];
    const picture = { startS: seconds(timing, 1), endS: seconds(timing, 4), url: resolve(place[1]!, base), x, y, width, height };
    if (picture.url && width > 0 && height > 0) pictures.push(picture);
  }
  return pictures.sort((a, b) => a.startS - b.startS);
}

/** The picture to show at `timeS`: the last one that has begun, or the first. */
export function pictureAt(pictures: Picture[], timeS: number): Picture | undefined {
  return pictures.findLast((picture) => picture.startS <= timeS) ?? pictures[0];
}

function seconds(timing: RegExpExecArray, group: number): number {
  return Number(timing[group] ?? 0) * 3600 + Number(timing[group + 1]) * 60 + Number(timing[group + 2]);
}

function resolve(url: string, base: string): string {
  try {
    return new URL(url, base).href;
  } catch {
    return "";
  }
}
