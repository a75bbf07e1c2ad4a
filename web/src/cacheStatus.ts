// The Cache-Status response header (RFC 9211): what each cache on the way did with a request.
//
// Parsed as a structured field (RFC 9651 §4.2): a list of strings or tokens, each with parameters. A field that breaks the
// grammar is ignored whole, as §4.2 demands. Knows nothing of the network or the page.

type Value = string | number | boolean;

/** One cache's member of the list: its name and its parameters. */
export interface CacheEntry {
  cache: string;
  parameters: Map<string, Value>;
}

/** What a cache did, in one word: `fwd` reasons of RFC 9211 §2.2 other than a plain miss are kept as they are. */
export type Outcome = "hit" | "collapsed" | "miss" | string;

/** What the cache nearest to the viewer said. */
export interface Verdict {
  cache: string;
  outcome: Outcome;
  /** Whether the bytes were kept for the next viewer (RFC 9211 §2.5). */
  stored: boolean;
  /** Where they were found or brought from: "ram", "origin". Empty when the cache did not say. */
  detail: string;
}

/** The members of `field`, farthest cache first, or null when it breaks the grammar. */
export function parseCacheStatus(field: string): CacheEntry[] | null {
  try {
    return new Reader(field).list();
  } catch (error) {
    if (error instanceof GrammarError) return null;
    throw error;
  }
}

/** The verdict of the cache nearest to the viewer: the last member (RFC 9211 §2). */
export function verdictOf(field: string | null): Verdict | null {
  const entry = field === null ? undefined : parseCacheStatus(field)?.at(-1);
  if (!entry) return null;
  const { cache, parameters } = entry;
  const outcome =
    parameters.get("hit") === true ? "hit" : parameters.get("collapsed") === true ? "collapsed" : parameters.get("fwd");
  if (outcome === undefined) return null;
  return {
    cache,
    outcome: String(outcome),
    stored: parameters.get("stored") === true,
    detail: String(parameters.get("detail") ?? ""),
  };
}

class GrammarError extends Error {}

const TOKEN = /[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*/y;
const KEY = /[a-z*][a-z0-9_.*-]*/y;
const NUMBER = /-?(?:\d{1,12}\.\d{1,3}|\d{1,15})(?![\d.])/y;
const STRING = /"((?:[ !#-[\]-~]|\\["\\])*)"/y;
const BYTES = /:([A-Za-z0-9+/=]*):/y;
const BOOLEAN = /\?([01])/y;
const SPACES = / */y;
const COMMA = /[ \t]*,[ \t]*/y;

class Reader {
  private at = 0;
  private readonly text: string;

  constructor(field: string) {
    this.text = field.replace(/^ +| +$/g, "");
  }

  list(): CacheEntry[] {
    const members: CacheEntry[] = [];
    while (this.at < this.text.length) {
      members.push({ cache: this.string() ?? this.expect(TOKEN)[0], parameters: this.parameters() });
      if (this.at < this.text.length) {
        this.expect(COMMA);
        if (this.at === this.text.length) throw new GrammarError("a comma at the end");
      }
    }
    return members;
  }

  private parameters(): Map<string, Value> {
    const parameters = new Map<string, Value>();
    while (this.text[this.at] === ";") {
      this.at += 1;
      this.expect(SPACES);
      const key = this.expect(KEY)[0];
      let value: Value = true;
      if (this.text[this.at] === "=") {
        this.at += 1;
        value = this.value();
      }
      parameters.set(key, value);
    }
    return parameters;
  }

  private value(): Value {
    const string = this.string();
    if (string !== undefined) return string;
    const boolean = this.match(BOOLEAN);
    if (boolean) return boolean[1] === "1";
    const number = this.match(NUMBER);
    if (number) return Number(number[0]);
    return this.match(BYTES)?.[1] ?? this.expect(TOKEN)[0];
  }

  private string(): string | undefined {
    return this.match(STRING)?.[1]?.replace(/\\(.)/g, "$1");
  }

  private expect(pattern: RegExp): RegExpExecArray {
    const found = this.match(pattern);
    if (!found) throw new GrammarError(`at ${this.at}`);
    return found;
  }

  private match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at = pattern.lastIndex;
    return found;
  }
}
