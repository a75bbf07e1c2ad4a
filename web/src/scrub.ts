// The seek bar below the picture: what is buffered, where the title plays, and a preview from the storyboard under the pointer.
//
// A range input, so that keyboard and screen readers work by themselves. Without a storyboard it shows times only.

import { clock, element } from "./dom.ts";
import { parseStoryboard, pictureAt, type Picture } from "./storyboard.ts";

export interface Scrub {
  element: HTMLElement;
  /** Loads the pictures of the WebVTT file at `url`; without them the bar works on. */
  loadStoryboard(url: string, signal: AbortSignal): Promise<void>;
  /** Shows where `video` is. */
  update(): void;
}

export function scrubFor(video: HTMLVideoElement): Scrub {
  let pictures: Picture[] = [];
  const input = element("input", { type: "range", min: "0", max: "0", step: "0.1", value: "0", "aria-label": "Seek" });
  const picture = element("div", { className: "frame", hidden: true });
  const time = element("span");
  const preview = element("div", { className: "preview", hidden: true, "aria-hidden": "true" }, picture, time);
  const root = element("div", { className: "scrub" }, input, preview);

  input.oninput = () => {
    video.currentTime = input.valueAsNumber;
  };
  input.onpointermove = (event) => {
    const { left, width } = input.getBoundingClientRect();
    if (Number.isFinite(video.duration) && width > 0) show((event.clientX - left) / width, width);
  };
  input.onpointerleave = () => {
    preview.hidden = true;
  };

  function show(share: number, width: number): void {
    const timeS = Math.min(Math.max(share, 0), 1) * video.duration;
    time.textContent = clock(timeS);
    const found = pictureAt(pictures, timeS);
    picture.hidden = !found;
    if (found) {
      picture.style.width = `${found.width}px`;
      picture.style.height = `${found.height}px`;
      picture.style.backgroundImage = `url("${found.url}")`;
      picture.style.backgroundPosition = `${-found.x}px ${-found.y}px`;
    }
    preview.hidden = false;
    const half = preview.offsetWidth / 2;
    preview.style.left = `${Math.min(Math.max(share * width, half), Math.max(half, width - half))}px`;
  }

  return {
    element: root,
    async loadStoryboard(url, signal) {
      const response = await fetch(url, { signal }).catch(() => null);
      if (response?.ok) pictures = parseStoryboard(await response.text(), url);
    },
    update() {
      if (!Number.isFinite(video.duration)) return;
      input.max = String(video.duration);
      input.value = String(video.currentTime);
      input.setAttribute("aria-valuetext", `${clock(video.currentTime)} of ${clock(video.duration)}`);
      const share = (seconds: number) => `${(100 * seconds) / video.duration}%`;
      input.style.setProperty("--played", share(video.currentTime));
      input.style.setProperty("--buffered", share(video.currentTime + bufferOf(video)));
    },
  };
}

/** Seconds that can play from here without another byte. */
export function bufferOf(video: HTMLVideoElement): number {
  const { buffered, currentTime } = video;
  for (let index = 0; index < buffered.length; index += 1) {
    // A title may begin a frame later than zero.
    if (buffered.start(index) <= currentTime + 0.2 && currentTime < buffered.end(index)) return buffered.end(index) - currentTime;
  }
  return 0;
}
