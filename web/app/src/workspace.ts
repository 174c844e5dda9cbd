/** All open photos with what was made of them: one state, so that undo crosses from photo to photo. */

import { type Doc, EMPTY } from "./document";

export interface Sheet {
  readonly id: number;
  readonly name: string;
  readonly width: number;
  readonly height: number;
  readonly doc: Doc;
}

export interface Workspace {
  readonly sheets: readonly Sheet[];
  readonly current: number | null;
  readonly nextId: number;
}

export const NOTHING: Workspace = { sheets: [], current: null, nextId: 1 };

export function currentSheet(workspace: Workspace): Sheet | null {
  return workspace.sheets.find(({ id }) => id === workspace.current) ?? null;
}

/** Adds a photo and shows it. */
export function addSheet(workspace: Workspace, photo: { id: number; name: string; width: number; height: number }): Workspace {
  const { id, name, width, height } = photo;
  const sheet = { id, name, width, height, doc: EMPTY };
  // In the order in which they were chosen, whichever was read first.
  const sheets = [...workspace.sheets, sheet].sort((a, b) => a.id - b.id);
  return { sheets, current: Math.max(id, workspace.current ?? 0), nextId: Math.max(workspace.nextId, id + 1) };
}

/** Closes a photo; its neighbor is shown if it was the one in sight. */
export function removeSheet(workspace: Workspace, id: number): Workspace {
  const at = workspace.sheets.findIndex((sheet) => sheet.id === id);
  const sheets = workspace.sheets.filter((sheet) => sheet.id !== id);
  const neighbor = sheets[Math.min(at, sheets.length - 1)]?.id ?? null;
  return { ...workspace, sheets, current: workspace.current === id ? neighbor : workspace.current };
}

export function showSheet(workspace: Workspace, id: number): Workspace {
  return { ...workspace, current: id };
}

/** The current photo with another document. */
export function changeDoc(workspace: Workspace, doc: Doc): Workspace {
  const sheets = workspace.sheets.map((sheet) => (sheet.id === workspace.current ? { ...sheet, doc } : sheet));
  return { ...workspace, sheets };
}

/** The photos with objects that no file has, after a change: those that had some, and whose objects changed. */
export function unsavedAfter(unsaved: ReadonlySet<number>, before: Workspace, after: Workspace): ReadonlySet<number> {
  const old = new Map(before.sheets.map(({ id, doc }) => [id, doc.items]));
  const has = after.sheets.filter(({ id, doc: { items } }) => items.length > 0 && (unsaved.has(id) || items !== old.get(id)));
  return new Set(has.map(({ id }) => id));
}

/** The same after a file with all of these objects of a photo was written, unless they have changed since. */
export function unsavedWithout(unsaved: ReadonlySet<number>, id: number, items: Doc["items"], workspace: Workspace): ReadonlySet<number> {
  const now = workspace.sheets.find((sheet) => sheet.id === id)?.doc.items;
  return now === items ? new Set([...unsaved].filter((other) => other !== id)) : unsaved;
}
