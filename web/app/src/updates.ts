/** The service worker: keeps the page for use without a network, and says when there is a new version. */

/** `onUpdate` hears of a new version, with the function that changes over to it. */
export function watchForUpdates(onUpdate: (takeOver: () => void) => void): void {
  if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
  const { serviceWorker } = navigator;
  const offer = (worker: ServiceWorker): void =>
    onUpdate(() => {
      serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
      worker.postMessage("take over");
    });
  void serviceWorker.register(new URL("sw.js", document.baseURI)).then((registration) => {
    if (registration.waiting && serviceWorker.controller) offer(registration.waiting);
    registration.addEventListener("updatefound", () => {
      const worker = registration.installing;
      worker?.addEventListener("statechange", () => {
        // The first one of all replaces nothing.
        if (worker.state === "installed" && serviceWorker.controller) offer(worker);
      });
    });
  });
}
