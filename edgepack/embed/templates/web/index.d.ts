/** Types of this folder's module; edgepack wrote both. */

export interface Recommendation {
  readonly id: string;
  readonly score: number;
}

export interface Ranking {
  /** Best first; equal scores by the item's place in the vocabulary. */
  readonly items: readonly Recommendation[];
  /** As long as the caller waited. */
  readonly milliseconds: number;
  /** The model alone. */
  readonly inferenceMs: number;
  /** Ids of the history that the model does not know; they were left out. */
  readonly unknown: readonly string[];
}

export interface RecommendOptions {
  /** How many items; without it as many as the bundle was judged by. */
  k?: number;
  /** Ids that must not be recommended: out of stock, say. */
  exclude?: readonly string[];
  /** A search text; only models with `facts.query` read it. */
  query?: string;
}

export interface Progress {
  readonly loadedBytes: number;
  readonly totalBytes: number;
}

export interface LoadOptions {
  /** Where this folder is served; without it, beside the module. */
  baseUrl?: string | URL;
  /** Run in a thread of its own, so that the page stays smooth; true where there are workers. */
  worker?: boolean;
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

/** How much an item of the history pulled a recommended one up: its score with that item less its score without. */
export interface Reason {
  readonly id: string;
  readonly pull: number;
}

export interface SelfTest {
  /** How many of the recorded lists came back exactly. */
  readonly same: number;
  readonly total: number;
  readonly passed: boolean;
}

/** What the shop calls its items; without a catalogue in the bundle the ids stand for titles. */
export interface Catalogue {
  title(id: string): string;
  /** In `currency`; null when the shop tells none. */
  price(id: string): number | null;
  category(id: string): string;
  /** ISO 4217 code, "" when it is unknown. */
  readonly currency: string;
  /** Whom the titles are owed to; a page must show it. "" when none is owed. */
  readonly notice: string;
  /** Ids of the items whose title has a word that begins like each word of `text`. */
  search(text: string): readonly string[];
}

export interface Backend {
  readonly name: string;
  readonly version: string;
  readonly threads: number;
  /** Why so many threads. */
  readonly why: string;
  readonly inWorker: boolean;
}

export interface Recommender {
  /** Ids of all items, those that sell most first. */
  readonly items: readonly string[];
  readonly catalogue: Catalogue;
  readonly backend: Backend;
  /** Why the next load needs the network, once the files are written; "" when it does not. */
  readonly whyNotKept: Promise<string>;
  /** The newest `facts.historyLength` known items count; the history goes from the oldest to the newest. */
  recommend(history: readonly string[], options?: RecommendOptions): Promise<Ranking>;
  /**
   * For each of `ids` the items of the history that pulled it up, strongest first. Runs the model once for
   * each of the newest 12 of them.
   */
  explain(
    history: readonly string[],
    ids: readonly string[],
    options?: Pick<RecommendOptions, "query">,
  ): Promise<readonly (readonly Reason[])[]>;
  /** Runs the bundle's recorded inputs here and compares. */
  selfTest(): Promise<SelfTest>;
  dispose(): Promise<void>;
}

export type ErrorCode = "hash-mismatch" | "network" | "no-simd" | "nothing-to-compare";

export class EdgepackError extends Error {
  readonly code: ErrorCode;
}

export interface Limit {
  readonly limit: string;
  readonly allowed: number;
  readonly found: number | null;
  readonly status: string;
}

export interface Facts {
  readonly name: string;
  readonly target: string;
  readonly format: string;
  readonly recipe: string;
  /** SHA-256 of the bundle's manifest. */
  readonly contentHash: string;
  readonly itemCount: number;
  readonly historyLength: number;
  readonly filterSeen: boolean;
  /** How a search text is hashed; null when the model takes none. */
  readonly query: object | null;
  readonly runtime: { readonly name: string; readonly version: string };
  /** These three are keys of `files`. */
  readonly model: string;
  readonly vocabulary: string;
  readonly goldens: string;
  /** What `load` fetches, by path. */
  readonly files: Readonly<Record<string, { readonly sha256: string; readonly bytes: number }>>;
  readonly limits: readonly Limit[];
}

/** What the shopper took, oldest first, kept in this browser alone. */
export interface History {
  readonly ids: readonly string[];
  add(id: string): void;
  removeAt(position: number): void;
  clear(): void;
  /**
   * The history as CSV `user,item,time` that `edgepack data` reads: item ids, their order instead of times, and a
   * user's name made anew each time. Send it only when the shopper says so.
   */
  exportLog(): string;
}

/** `compared`: what `loadCompared` loads; null when `embed` was given one bundle. */
export const facts: Facts & { readonly compared: Facts | null };
/** The history under `key`; where the browser keeps nothing, it lasts as long as the page. */
export function openHistory(key?: string, storage?: Storage): History;
/** Fetch, check and start everything. Rejects with EdgepackError, or AbortError after `signal`. */
export function load(options?: LoadOptions): Promise<Recommender>;
/**
 * As `load`, with the model that this one is compared with: fetched now, and run beside this one until it is
 * disposed of. Rejects with code `nothing-to-compare` where `embed` was given one bundle.
 */
export function loadCompared(options?: LoadOptions): Promise<Recommender>;
/** Whether every file that `load` needs is kept by this browser, so that `load` needs no network. */
export function isCached(options?: Pick<LoadOptions, "baseUrl">): Promise<boolean>;
export function clearCache(options?: Pick<LoadOptions, "baseUrl">): Promise<void>;
