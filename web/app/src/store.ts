/** Keeps open photos and their objects in the browser (IndexedDB), so that closing the page loses nothing. */

import type { Workspace } from "./workspace";

const NAME = "picosam2";
const LOCK = "picosam2-work";

interface Kept {
  readonly workspace: Workspace;
  readonly photos: ReadonlyMap<number, Blob>;
}

export class Store {
  private readonly written = new Set<number>();
  private saving: Promise<void> = Promise.resolve();

  private constructor(private readonly db: IDBDatabase) {}

  /**
   * Opens the store; null where the browser keeps nothing, or where another tab of the page already
   * keeps its work there.
   */
  static async open(): Promise<Store | null> {
    try {
      if (!(await isFirstTab())) return null;
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("photos");
        request.result.createObjectStore("work");
      };
      return new Store(await done(request));
    } catch {
      return null;
    }
  }

  /** What was kept last time, without photos that are lost; null if there is nothing. */
  async load(): Promise<Kept | null> {
    const transaction = this.db.transaction(["work", "photos"]);
    const workspace = await done(
      transaction.objectStore("work").get("workspace") as IDBRequest<Workspace | undefined>,
    );
    if (!workspace?.sheets?.length) return null;
    const photos = new Map<number, Blob>();
    const store = transaction.objectStore("photos");
    for (const { id } of workspace.sheets) {
      const blob = await done(store.get(id) as IDBRequest<Blob | undefined>);
      if (blob) photos.set(id, blob);
      this.written.add(id);
    }
    const sheets = workspace.sheets.filter(({ id }) => photos.has(id));
    if (sheets.length === 0) return null;
    const current = sheets.some(({ id }) => id === workspace.current) ? workspace.current : sheets[0]!.id;
    return { workspace: { ...workspace, sheets, current }, photos };
  }

  /** Writes the work as it is now; photos only once, and those that are closed go. */
  save(workspace: Workspace, photos: ReadonlyMap<number, Blob>): Promise<void> {
    this.saving = this.saving
      .then(() => this.write(workspace, photos))
      // A photo may be more than the browser keeps. The work on the others is kept all the same.
      .catch(() => this.write(this.keepable(workspace), new Map()))
      .catch(() => undefined);
    return this.saving;
  }

  /** The work on the photos that are kept already. */
  private keepable(workspace: Workspace): Workspace {
    const sheets = workspace.sheets.filter(({ id }) => this.written.has(id));
    const isKept = sheets.some(({ id }) => id === workspace.current);
    return { ...workspace, sheets, current: isKept ? workspace.current : (sheets[0]?.id ?? null) };
  }

  private async write(workspace: Workspace, photos: ReadonlyMap<number, Blob>): Promise<void> {
    const transaction = this.db.transaction(["work", "photos"], "readwrite");
    const store = transaction.objectStore("photos");
    const open = new Set(workspace.sheets.map(({ id }) => id));
    for (const id of open) {
      const blob = photos.get(id);
      if (blob && !this.written.has(id)) store.put(blob, id);
    }
    for (const id of this.written) if (!open.has(id)) store.delete(id);
    transaction.objectStore("work").put(workspace, "workspace");
    await new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("not kept"));
    });
    this.written.clear();
    for (const id of open) this.written.add(id);
  }
}

/** Two tabs that wrote to one place would lose each other's work: the first one has it. */
async function isFirstTab(): Promise<boolean> {
  if (!navigator.locks) return true;
  return new Promise((resolve, reject) => {
    navigator.locks.request(LOCK, { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      // Held as long as the page lives.
      return lock ? new Promise(() => undefined) : undefined;
    }).catch(reject); // a browser that keeps nothing for this page refuses
  });
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the browser's storage failed"));
  });
}
