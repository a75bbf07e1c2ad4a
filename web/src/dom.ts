// Elements in one expression, and the units the page shows. Text goes in as text nodes only, never as markup.

type Child = Node | string | null | undefined | false;

/** A new element. `settings` are properties (`className`, `onclick`), or attributes where the name has a dash or is `role`. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  settings: Record<string, unknown> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, String(value));
    else Object.assign(made, { [name]: value });
  }
  made.append(...children.filter((child): child is Node | string => Boolean(child)));
  return made;
}

/** "1:02:03", "4:05". */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] === 0 ? parts.slice(1) : parts;
  return shown.map((part, index) => (index === 0 ? String(part) : String(part).padStart(2, "0"))).join(":");
}

/** "812 B", "1.4 MB": powers of 1000. */
export const bytesText = (bytes: number): string => scaled(bytes, "B");

/** "2.8 Mbit/s". */
export const rateText = (bitsPerS: number): string => scaled(bitsPerS, "bit/s");

/** "0.8 ms", "12 ms", "1.20 s". */
export function millisText(ms: number): string {
  if (ms >= 1_000) return `${(ms / 1_000).toFixed(2)} s`;
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

function scaled(amount: number, unit: string): string {
  const step = Math.min(3, Math.max(0, Math.floor(Math.log10(Math.max(amount, 1)) / 3)));
  const value = amount / 1_000 ** step;
  return `${value.toFixed(step > 0 && value < 100 ? 1 : 0)} ${["", "k", "M", "G"][step]}${unit}`;
}
