/** The data of the page as JSON: this host, the leases of the cluster, who reaches whom, and one of the other hosts. */
import type { KeptEvent } from '../admin/events.js';
import type { Status } from '../agent/status.js';
import { pageHostOf, type PageHost } from './page-host.js';
import { hostRowOf, matrixOf, type HostSource, type Matrix } from './matrix.js';
import type { OtherHosts } from './other-hosts.js';
import type { Reading, Refreshed } from './refreshed.js';

export type PageEvent = Pick<KeptEvent, 'time' | 'level' | 'event' | 'message'>;

/** The leases as the page shows them. */
export interface PageLeases {
  readonly items: readonly {
    readonly subnet: string;
    readonly publicIp: string;
    readonly nodeId: string | null;
    readonly backend: string;
    readonly ttlSeconds: number | null;
    readonly self: boolean;
  }[];
  readonly kept: readonly { readonly subnet: string; readonly nodeId: string; readonly reserved: boolean }[];
  readonly rejected: readonly { readonly key: string; readonly reason: string }[];
}

export interface PageSources {
  readonly status: Refreshed<Status>;
  /** The oldest first. */
  readonly events: Refreshed<readonly PageEvent[]>;
  readonly leases: Refreshed<PageLeases>;
}

export interface HostPage {
  /** null: the daemon has not answered yet. */
  readonly view: PageHost | null;
  readonly ageSeconds: number | null;
  readonly failure: string | null;
  /** The newest first. */
  readonly events: readonly PageEvent[];
  readonly eventsFailure: string | null;
  /** Whether there are other hosts to show. */
  readonly others: boolean;
}

const eventsShown = 200;

export function hostPageOf(status: Reading<Status>, events: Reading<readonly PageEvent[]>, others: boolean): HostPage {
  const newest = (events.value ?? []).slice(-eventsShown).reverse();
  return {
    view: status.value ? pageHostOf(status.value) : null,
    ageSeconds: status.ageSeconds,
    failure: status.failure,
    events: newest.map(({ time, level, event, message }) => ({ time, level, event, message })),
    eventsFailure: events.failure,
    others,
  };
}

/** @returns JSON; undefined when the query names no host */
export async function pageDataOf(
  path: string,
  query: URLSearchParams,
  sources: PageSources,
  others: OtherHosts,
): Promise<string | undefined> {
  switch (path) {
    case '/data/host': {
      const [status, events] = await Promise.all([sources.status.current(), sources.events.current()]);
      return JSON.stringify(hostPageOf(status, events, others.count > 0));
    }
    case '/data/leases':
      return JSON.stringify(await sources.leases.current());
    case '/data/matrix':
      return JSON.stringify(await readMatrix(sources, others));
    default: {
      const index = query.get('n') ?? '';
      const view = /^\d{1,6}$/.test(index) ? await others.view(Number(index)) : undefined;
      return view && JSON.stringify(view);
    }
  }
}

/** This host is the first, where its daemon answers and no document is of it. */
async function readMatrix(sources: PageSources, others: OtherHosts): Promise<Reading<Matrix & { own: number }>> {
  const [status, rows] = await Promise.all([sources.status.current(), others.rows()]);
  const documents = rows.value ?? [];
  const own = status.value && hostRowOf(status.value);
  const isThere = documents.some(({ row }) => row?.nodeId === own?.nodeId);
  const first: readonly HostSource[] =
    own && !isThere ? [{ source: 'this host', row: own, ageSeconds: status.ageSeconds, failure: status.failure }] : [];
  const { ageSeconds, failure } = rows;
  return { value: { ...matrixOf([...first, ...documents]), own: first.length }, ageSeconds, failure };
}
