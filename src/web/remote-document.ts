/** A host whose tartand was opened with --status-listen. */
import { errnoOf, messageOf } from '../lib/errors.js';
import { askUrl } from '../lib/socket-http.js';
import type { RemoteHost } from './host-list.js';
import type { DatedStatus, HostDocument } from './other-hosts.js';
import { parseStatusDocument } from './saved-documents.js';

const timeoutMs = 5_000;
/** 5,000 peers take a few megabytes. */
const maxBytes = 16 * 1024 * 1024;

export class RemoteDocument implements HostDocument {
  readonly source: string;
  readonly #host: RemoteHost;

  constructor(host: RemoteHost) {
    this.source = host.url.origin;
    this.#host = host;
  }

  readIfChanged(): Promise<DatedStatus> {
    return this.read();
  }

  /** @throws Error with the reason and, where there is one, the next step */
  async read(): Promise<DatedStatus> {
    const { url, token, ca } = this.#host;
    const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
    const { status, text } = await askUrl({ url, headers, ca, timeoutMs, maxBytes }).catch((cause: unknown) => {
      throw new Error(`${this.source} cannot be asked: ${reasonOf(cause)}`, { cause });
    });
    if (status === 401) throw new Error(`${this.source} refuses the token: give that of its --status-token-file`);
    if (status !== 200) throw new Error(`${this.source} answered with HTTP ${status}: ${text.slice(0, 200).trim()}`);
    return { status: parseStatusDocument(text, this.source), madeMs: Date.now() };
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError'))
    return `no answer within ${timeoutMs / 1000} s`;
  const code = errnoOf(error) ?? '';
  if (code === 'ECONNREFUSED') return 'nobody listens there, see tartand --status-listen';
  if (/CERT|SIGNATURE|ALTNAME/.test(code))
    return `its certificate is not accepted (${messageOf(error)}), see the CA file`;
  return messageOf(error);
}
