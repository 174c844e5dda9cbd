/** Fetches the model and the runtime together, with one account of the bytes over all of them. */

import { ModelError } from "./metadata.ts";

/** What is to be fetched. */
export interface Part {
  readonly url: string;
  readonly what: string;
  /** Bytes as they travel, and after decompression, where they are known beforehand. */
  readonly bytes?: number;
  readonly rawBytes?: number;
}

/** Bytes that travelled so far, of how many. */
export type Progress = (loaded: number, total: number) => void;

const TRIES = 3;
const WAIT_MS = 600;

interface Account {
  loaded: number;
  total: number;
}

/** Fetches all parts at once. A lost connection is tried again, twice, before it is an error. */
export async function download(parts: readonly Part[], onProgress: Progress): Promise<Uint8Array<ArrayBuffer>[]> {
  const accounts: Account[] = parts.map(({ bytes }) => ({ loaded: 0, total: bytes ?? 0 }));
  const tell = (): void => {
    // Before every size is known the share would jump back.
    if (accounts.some(({ total }) => total === 0)) return;
    const sum = (of: (account: Account) => number): number =>
      accounts.reduce((all, account) => all + of(account), 0);
    onProgress(sum((account) => account.loaded), sum((account) => account.total));
  };
  return Promise.all(parts.map((part, i) => persistent(part, accounts[i]!, tell)));
}

async function persistent(part: Part, account: Account, tell: () => void): Promise<Uint8Array<ArrayBuffer>> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await once(part, account, tell);
    } catch (error) {
      if (attempt === TRIES || (error instanceof ModelError && !error.temporary)) throw error;
      account.loaded = 0;
      await new Promise((done) => setTimeout(done, WAIT_MS * attempt));
    }
  }
}

async function once(part: Part, account: Account, tell: () => void): Promise<Uint8Array<ArrayBuffer>> {
  let response: Response;
  try {
    response = await fetch(part.url);
  } catch {
    throw new ModelError(`${part.what} could not be fetched: is there a connection?`, true);
  }
  if (!response.ok || !response.body) {
    const temporary = response.status >= 500 || response.status === 429;
    throw new ModelError(`${part.what} could not be fetched (${response.status})`, temporary);
  }
  const length = Number(response.headers.get("content-length"));
  const raw = part.rawBytes ?? length;
  account.total = part.bytes ?? length;
  const chunks: Uint8Array[] = [];
  let size = 0;
  const reader = response.body.getReader();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      chunks.push(read.value);
      size += read.value.length;
      // What arrives is counted after decompression; what travels is its share of the total.
      if (raw > 0) account.loaded = Math.min(size / raw, 1) * account.total;
      tell();
    }
  } catch {
    throw new ModelError(`${part.what} could not be fetched: the connection was lost`, true);
  }
  account.loaded = account.total = account.total || size;
  tell();
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
