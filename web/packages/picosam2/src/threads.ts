/** How many threads WebAssembly gets. */

/** More threads than this gain nothing on a network of this size. */
const MOST_THREADS = 4;

/** The threads to start with: the processor's, as far as the page may use them. */
export function defaultThreads(): number {
  if (!globalThis.crossOriginIsolated) return 1;
  return Math.max(1, Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1));
}

const THREADS_KEY = "picosam2-threads";

/** The number that was measured on this device, with as many processors as now; else null. */
export function rememberedThreads(): number | null {
  try {
    const [cores, threads] = JSON.parse(localStorage.getItem(THREADS_KEY) ?? "[]") as number[];
    const usable = defaultThreads();
    if (cores !== navigator.hardwareConcurrency || !threads || threads > usable) return null;
    return threads;
  } catch {
    return null;
  }
}

export function rememberThreads(threads: number): void {
  try {
    localStorage.setItem(THREADS_KEY, JSON.stringify([navigator.hardwareConcurrency, threads]));
  } catch {
    // A browser may keep nothing for a page.
  }
}
