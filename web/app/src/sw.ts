/**
 * The service worker: keeps everything the page needs, so that it opens without a network, and adds
 * the headers that threads need where the host does not send them.
 */

export {}; // a module to TypeScript, so that `self` can be told apart from a page's

declare const self: ServiceWorkerGlobalScope;

/** Filled in when the page is built: the files, and a hash of them all. */
declare const __FILES__: readonly string[];
declare const __VERSION__: string;

const PREFIX = "picosam2-";
const CACHE = PREFIX + __VERSION__;

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      await cache.addAll(__FILES__.map((path) => new Request(path, { cache: "no-cache" })));
      await self.skipWaiting();
    })(),
  );
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
  if (request.method !== "GET" || url.origin !== self.location.origin) return;
  event.respondWith(answer(request, url));
});

async function answer(request: Request, url: URL): Promise<Response> {
  const cache = await caches.open(CACHE);
  const page = request.mode === "navigate";
  const found = await cache.match(page ? "./" : url.origin + url.pathname);
  if (found) return isolated(found);
  const fetched = await fetch(request);
  // A model chosen by its name is not in the list; keep it as well.
  if (fetched.ok && url.pathname.endsWith(".onnx")) await cache.put(request, fetched.clone());
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
