/** The server of the page on loopback, with documents in memory, and a browser that visits it. */
import type { Status } from '../../src/agent/status.js';
import type { Token } from '../../src/admin/access.js';
import { messageOf } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import type { Scope } from '../../src/lib/scope.js';
import { OtherHosts } from '../../src/web/other-hosts.js';
import type { PageEvent, PageLeases } from '../../src/web/page-data.js';
import { Refreshed } from '../../src/web/refreshed.js';
import { openWebServer } from '../../src/web/web-server.js';
import { Browser } from './browser.js';

export interface WebBedOptions {
  readonly hosts: readonly Status[];
  readonly events?: readonly PageEvent[];
  /** Throws where etcd is away. */
  readonly leases?: () => Promise<PageLeases>;
  readonly token?: Token;
}

export interface WebBed {
  readonly browser: Browser;
  /** Ends in a slash. */
  readonly url: string;
}

/** This host is the first of `hosts`. */
export async function openWebBed(scope: Scope, options: WebBedOptions): Promise<WebBed> {
  const { hosts, events = [], leases = () => Promise.reject(new Error('etcd is silent')), token } = options;
  const [own] = hosts;
  if (!own) throw new Error('a bed needs a host');
  const documents = hosts.map((status, at) => {
    const read = async (): Promise<{ status: Status; madeMs: number }> => ({ status, madeMs: Date.now() });
    return { source: `hosts/${at}.json`, read, readIfChanged: read };
  });
  const others = new OtherHosts(documents);
  await others.readNow();
  const sources = {
    status: new Refreshed(async () => own, 1000, messageOf),
    events: new Refreshed(async () => events, 1000, messageOf),
    leases: new Refreshed(leases, 10_000, messageOf),
  };
  const where = { ip: '127.0.0.1', port: 0 };
  const server = openWebServer({ where, token, tls: undefined, sources, others, log: silentLog });
  const { place } = await scope.own('page', server);
  return { browser: await scope.own('browser', Browser.open()), url: place };
}

/** An expression of the page: it shows this view. */
export function shows(view: 'host' | 'leases' | 'hosts'): string {
  return `document.getElementById('main')?.dataset.shown === '${view}'`;
}
