/**
 * The service worker: keeps everything the page needs, so that it opens without a network, and adds
 * the headers that threads need where the host does not send them. It answers for the page's own
 * files only: whatever else lies on the host is the host's.
 */

export {}; // a module to TypeScript, so that `self` can be told apart from a page's

declare const self: ServiceWorkerGlobalScope;

/** Filled in when the page is built: the files, and a hash of them all. */
declare const __FILES__: readonly string[];
declare const __VERSION__: string;

const PREFIX = "picosam2-";
const CACHE = PREFIX + __VERSION__;

const scope = new URL("./", self.location.href);
const own = new Set(__FILES__.map((path) => new URL(path, scope).pathname));
const page = scope.pathname;

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      await cache.addAll(__FILES__.map((path) => new Request(path, { cache: "no-cache" })));
    })(),
  );
});

// A new version waits until the user wants it.
self.addEventListener("message", (event) => {
  if (event.data === "take over") void self.skipWaiting();
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) {
        if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
      }
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== scope.origin) return;
  const path = url.pathname === `${page}index.html` ? page : url.pathname;
  // A model chosen by its name is not in the list, nor are the files for WebGPU; both are the page's.
  const other = new RegExp(`^${escaped(page)}(model/[^/]+\\.onnx|assets/[^/]+)$`);
  if (own.has(path) || other.test(path)) event.respondWith(answer(request, url.origin + path));
});

async function answer(request: Request, key: string): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(key);
  if (kept) return isolated(kept);
  const fetched = await fetch(request);
  if (fetched.ok && key.endsWith(".onnx")) await cache.put(key, fetched.clone());
  return isolated(fetched);
}

/** Cross-origin isolation, without which a page gets no threads (no SharedArrayBuffer). */
function isolated(response: Response): Response {
  if (response.status === 0 || response.redirected) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
