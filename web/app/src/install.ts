/** Installing the page as an app, where the browser offers it. */

/** Chromium's event, which TypeScript does not know. */
interface BeforeInstallPrompt extends Event {
  prompt(): Promise<unknown>;
}

/** Shows `button` while the page can be installed; a press asks the browser to do it. */
export function offerInstall(button: HTMLButtonElement): void {
  let offer: BeforeInstallPrompt | null = null;
  const set = (event: BeforeInstallPrompt | null): void => {
    offer = event;
    button.hidden = event === null;
  };
  addEventListener("beforeinstallprompt", (event) => {
    event.preventDefault(); // the browser's own bar would lie over the page
    set(event as BeforeInstallPrompt);
  });
  addEventListener("appinstalled", () => set(null));
  button.addEventListener("click", () => {
    void offer?.prompt();
    set(null); // an offer holds once
  });
}
